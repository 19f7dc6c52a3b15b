"""A bundle: a folder with everything that one model needs, listed with digests in its manifest.

::

    manifest.json   what it is, its input, window, encoder, labels, and the SHA-256 of every other file
    network.nir     the float graph, for people and other tools
    network.npz     the integer network: what every backend executes
    model.onnx      the compiled step graph
    golden.npz      rasters, and what the network must answer to them, from the reference backend
    CARD.md         data, licence, recipe, accuracy, limits

Loading verifies digests and never executes anything from the folder.
"""

import hashlib
import json
import os
import stat
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models import network as integer
from models.base import BadModel
from models.window import WindowSpec

FORMAT = 1
MAX_FILE_BYTES = 256 * 1024 * 1024
MANIFEST = "manifest.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_Strict):
    """The sensor that this model listens to."""

    family: Literal["audio", "imu", "ultrasonic", "event_camera"]
    channels: list[str]
    rate_hz: float = Field(gt=0)


class Manifest(_Strict):
    """``manifest.json``."""

    format: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: str = Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")
    input: InputSpec
    window: WindowSpec | None = None
    """How the input is cut; none with state policy ``carry``."""
    encoder: dict[str, Any]
    """``kind`` and that encoder's own settings."""
    labels: list[str] = Field(min_length=2)
    state: Literal["reset", "carry"]
    """State policy: back to rest before every window, or no windows: the network goes on from step to step."""
    readout_steps: int = Field(default=1, ge=1, le=100_000)
    """With ``carry``: a decision is over so many steps."""
    temperature: float = Field(gt=0)
    """Potentials divided by this give the softmax scores."""
    weight_bits: Literal[4, 8]
    granularity: Literal["layer", "neuron"]
    files: dict[str, str]
    """File name to SHA-256, in hex."""


@dataclass(frozen=True, slots=True)
class Golden:
    """What the network must answer: inputs and, from the reference backend, every spike and the final state."""

    rasters: npt.NDArray[np.uint8]
    """(vectors, steps, features)."""
    spikes: tuple[npt.NDArray[np.uint8], ...]
    """Per layer (vectors, steps, neurons)."""
    u: tuple[npt.NDArray[np.int32], ...]
    """Per layer (vectors, neurons), after the last step."""
    v: tuple[npt.NDArray[np.int32], ...]
    potentials: npt.NDArray[np.int64]
    """(vectors, classes)."""


class Bundle:
    """A verified bundle. Arrays are read when first asked for."""

    def __init__(self, path: Path, manifest: Manifest, digest: str) -> None:
        self.path = path
        self.manifest = manifest
        self.digest = digest
        """SHA-256 of the manifest, which has those of all other files: what this bundle is."""

    @property
    def id(self) -> str:
        """``name@version``, as results carry it."""
        return f"{self.manifest.name}@{self.manifest.version}"

    @property
    def windows(self) -> WindowSpec:
        """How the input is cut. Raises BadModel for a stream, which has no windows."""
        if self.manifest.window is None:
            raise BadModel(f"{self.id} decides on a stream, step by step; it has no windows")
        return self.manifest.window

    def artefact(self, name: str) -> bytes:
        """The content of one listed file. Raises BadModel if it is missing or not what the manifest says."""
        digest = self.manifest.files.get(name)
        path = self.path / name
        if digest is None:
            raise BadModel(f"{self.path / MANIFEST}: the bundle has no {name}; build it anew")
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
                raise BadModel(f"{path}: not a plain file of at most {MAX_FILE_BYTES} bytes")
            content = path.read_bytes()
        except OSError as error:
            raise BadModel(f"{path}: cannot be read ({error.strerror}); restore the bundle") from error
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise BadModel(
                f"{path}: SHA-256 is {found[:12]}..., the manifest says {digest[:12]}...: the file was changed or "
                "damaged; restore the bundle"
            )
        return content

    @cached_property
    def network(self) -> integer.Network:
        """The integer network."""
        return integer.load(self.artefact("network.npz"), str(self.path / "network.npz"))

    @cached_property
    def golden(self) -> Golden:
        """The golden vectors."""
        arrays = integer.read_npz(self.artefact("golden.npz"), str(self.path / "golden.npz"))
        n = len(self.network.layers)
        try:
            shape = tuple(arrays["shape"])
            golden = Golden(
                np.unpackbits(arrays["rasters"], axis=-1, count=int(shape[-1])),
                tuple(
                    np.unpackbits(arrays[f"spikes{i}"], axis=-1, count=self.network.layers[i].neurons) for i in range(n)
                ),
                tuple(arrays[f"u{i}"] for i in range(n)),
                tuple(arrays[f"v{i}"] for i in range(n)),
                arrays["potentials"],
            )
            self._check_golden(golden)
            return golden
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise BadModel(f"{self.path / 'golden.npz'}: not golden vectors of this network ({error})") from error

    def _check_golden(self, golden: Golden) -> None:
        """Raise ValueError unless there is something to compare, in the shapes of this network."""
        vectors, steps = golden.rasters.shape[:2]
        neurons = [layer.neurons for layer in self.network.layers]
        right = (
            vectors > 0
            and steps > 0
            and golden.rasters.shape == (vectors, steps, self.network.features)
            and [a.shape for a in golden.spikes] == [(vectors, steps, n) for n in neurons]
            and [a.shape for a in (*golden.u, *golden.v)] == [(vectors, n) for n in neurons * 2]
            and golden.potentials.shape == (vectors, self.network.classes)
        )
        if not right:
            raise ValueError("there are none, or their shapes are of another network")


def load(path: Path) -> Bundle:
    """Read and verify the bundle in folder ``path``. Raises BadModel with the file and what is wrong with it."""
    manifest_path = path / MANIFEST
    try:
        content = manifest_path.read_bytes()
        document = json.loads(content)
    except OSError as error:
        raise BadModel(f"{manifest_path}: cannot be read ({error.strerror}); expected a bundle's folder") from error
    except ValueError as error:
        raise BadModel(f"{manifest_path}: not JSON ({error})") from error
    if isinstance(document, dict) and isinstance(document.get("format"), int) and document["format"] > FORMAT:
        raise BadModel(
            f"{manifest_path}: format {document['format']} is newer than this axond reads ({FORMAT}); upgrade axond"
        )
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BadModel(f"{manifest_path}: {key or 'document'}: {first['msg']}") from error
    for name in manifest.files:
        if Path(name).name != name or name == MANIFEST:
            raise BadModel(f"{manifest_path}: files: {name!r} must be a plain file name")
    if (manifest.window is None) != (manifest.state == "carry"):
        raise BadModel(f"{manifest_path}: window: expected with state 'reset', and with that only")
    if manifest.window is not None:
        try:
            manifest.window.check()
        except BadModel as error:
            raise BadModel(f"{manifest_path}: {error}") from error
    bundle = Bundle(path, manifest, hashlib.sha256(content).hexdigest())
    for name in manifest.files:
        bundle.artefact(name)
    if bundle.network.classes != len(manifest.labels):
        raise BadModel(
            f"{manifest_path}: {len(manifest.labels)} labels for a network with {bundle.network.classes} outputs"
        )
    return bundle


def pack_golden(golden: Golden) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of ``golden.npz``."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "shape": np.array(golden.rasters.shape, np.int64),
        "rasters": np.packbits(golden.rasters, axis=-1),
        "potentials": golden.potentials,
    }
    for i, (spikes, u, v) in enumerate(zip(golden.spikes, golden.u, golden.v, strict=True)):
        arrays |= {f"spikes{i}": np.packbits(spikes, axis=-1), f"u{i}": u, f"v{i}": v}
    return arrays


def write(path: Path, manifest: dict[str, Any], files: dict[str, bytes]) -> Bundle:
    """Write a bundle's folder whole or not at all, replacing what is there, and load it back. Raises BadModel."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    if path.exists() and not (path / MANIFEST).is_file():
        raise BadModel(f"{path}: exists and is no bundle; name a new folder, or a bundle to replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        text = json.dumps({"format": FORMAT, **manifest, "files": digests}, indent=1) + "\n"
        for name, content in {**files, MANIFEST: text.encode()}.items():
            with (fresh / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        load(fresh)
        if path.exists():
            path.rename(Path(scratch) / "old")
        fresh.rename(path)
    return load(path)
