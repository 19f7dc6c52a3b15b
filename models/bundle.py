"""A bundle: a folder with everything that one model needs, listed with digests in its manifest.

::

    manifest.json     what it is, its input, window, encoder, labels, and the SHA-256 of every other file but one
    manifest.sha256   the manifest's own, as sha256sum writes it
    network.nir       the float graph, for people and other tools
    network.npz       the integer network: what every backend executes
    golden.npz        rasters, and what the network must answer to them, from the reference backend
    model.onnx        the compiled step graph; other targets have theirs
    statistics.npz    means and covariance of the hidden activity in training, if it was trained here
    parent.npz        of a bundle that was taught something: the files of the one before, as they were
    CARD.md           data, licence, recipe, accuracy, limits

Loading verifies digests and never executes anything from the folder.
"""

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models import network as integer
from models.base import BadModel
from models.detect import DetectSpec
from models.untrusted import parse_json, read_file, read_npz
from models.window import WindowSpec

FORMAT = 1
MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
REQUIRED = ("network.npz", "golden.npz")
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 256 << 20
MAX_FILES = 64
MAX_INPUTS = 8
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputSpec(_Strict):
    """The sensor that this model listens to."""

    family: Literal["audio", "imu", "ultrasonic", "event_camera", "vibration"]
    channels: list[Name] = Field(min_length=1, max_length=1024)
    rate_hz: float = Field(gt=0, le=1e9)


class Part(_Strict):
    """One sensor of a model, how its data are cut, and how they become spikes."""

    name: Name = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """What the model calls it, as ``missing`` of a result and ``--without`` do."""
    input: InputSpec
    window: WindowSpec | None = None
    """How the input is cut; none with state policy ``carry``."""
    encoder: dict[str, Any]
    """``kind`` and that encoder's own settings."""
    rate_range: tuple[float, float] | None = None
    """Fewest and most input spikes of a whole window that the training saw; far outside, the input is set aside."""


class Parent(_Strict):
    """The bundle that this one was made of, by teaching it something."""

    id: Name
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of its manifest."""


class Manifest(_Strict):
    """``manifest.json``. It has either ``input`` and ``encoder``, or several ``inputs`` that are fused."""

    format: Literal[1]
    name: Name = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: Name = Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")
    input: InputSpec | None = None
    window: WindowSpec | None = None
    """How the input is cut; none with state policy ``carry``."""
    encoder: dict[str, Any] | None = None
    """``kind`` and that encoder's own settings."""
    inputs: list[Part] | None = Field(default=None, min_length=2, max_length=MAX_INPUTS)
    """Of a fused model; the network's features are theirs, in this order."""
    late_ms: float | None = Field(default=None, ge=0, le=10_000)
    """Of a fused model: so long after a window's end the data of its sensors are waited for."""
    labels: list[Name] = Field(min_length=2)
    state: Literal["reset", "carry"]
    """State policy: back to rest before every window, or no windows: the network goes on from step to step."""
    readout_steps: int = Field(default=1, ge=1, le=100_000)
    """With ``carry``: a decision is over so many steps."""
    temperature: float = Field(ge=1e-6, le=1e15)
    """Potentials divided by this give the softmax scores."""
    detect: DetectSpec | None = None
    """Which of the inferences are results where ``report`` is ``detect``; None: this model has no such rule."""
    parent: Parent | None = None
    weight_bits: Literal[4, 8]
    granularity: Literal["layer", "neuron"]
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(max_length=MAX_FILES)
    """File name to SHA-256, in hex."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """All inputs, also where there is only one."""
        if self.inputs is not None:
            return tuple(self.inputs)
        if self.input is None or self.encoder is None:
            raise BadModel(f"model {self.name!r} has neither input and encoder nor inputs; build it anew")
        return (Part(name=self.input.family, input=self.input, window=self.window, encoder=self.encoder),)

    @property
    def sole(self) -> Part:
        """The one input. Raises BadModel for a fused model."""
        if self.inputs is not None:
            names = ", ".join(f"{part.name}: {part.input.family}" for part in self.inputs)
            raise BadModel(
                f"model {self.name!r} fuses {len(self.inputs)} sensors ({names}); one alone is not enough here"
            )
        return self.parts[0]


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
        """How the one input is cut. Raises BadModel for a stream, which has no windows, and for a fused model."""
        window = self.manifest.sole.window
        if window is None:
            raise BadModel(f"{self.id} decides on a stream, step by step; it has no windows")
        return window

    def artefact(self, name: str) -> bytes:
        """The content of one listed file. Raises BadModel if it is missing or not what the manifest says."""
        digest = self.manifest.files.get(name)
        if digest is None:
            raise BadModel(f"{self.path / MANIFEST}: the bundle has no {name}; build it anew")
        content = read_file(self.path / name, MAX_FILE_BYTES)
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise BadModel(
                f"{self.path / name}: SHA-256 is {found[:12]}..., the manifest says {digest[:12]}...: the file was "
                "changed or damaged; restore the bundle"
            )
        return content

    @cached_property
    def network(self) -> integer.Network:
        """The integer network."""
        return integer.load(self.artefact("network.npz"), str(self.path / "network.npz"))

    @cached_property
    def golden(self) -> Golden:
        """The golden vectors."""
        where = str(self.path / "golden.npz")
        arrays = read_npz(self.artefact("golden.npz"), where)
        try:
            return _golden(arrays, self.network)
        except KeyError as error:
            raise BadModel(f"{where}: not golden vectors of this network (it has no array {error})") from error
        except ValueError as error:
            raise BadModel(f"{where}: not golden vectors of this network ({error})") from error


def _golden(arrays: dict[str, npt.NDArray[Any]], network: integer.Network) -> Golden:
    """Raises ValueError unless there is something to compare, in the shapes of ``network``; KeyError."""
    vectors, steps, features = arrays["shape"].tolist() if arrays["shape"].shape == (3,) else (0, 0, 0)
    if min(vectors, steps) < 1 or features != network.features:
        raise ValueError("there are none, or their shapes are of another network")

    def array(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
        found = arrays[name]
        if found.shape != shape or found.dtype != dtype:
            raise ValueError(f"{name} is {found.dtype} {found.shape}, expected {np.dtype(dtype)} {shape}")
        return found

    def spikes(name: str, count: int) -> npt.NDArray[np.uint8]:
        return np.unpackbits(array(name, (vectors, steps, -(-count // 8)), np.uint8), axis=-1, count=count)

    return Golden(
        spikes("rasters", features),
        tuple(spikes(f"spikes{i}", n) for i, n in enumerate(network.neurons)),
        tuple(array(f"u{i}", (vectors, n), np.int32) for i, n in enumerate(network.neurons)),
        tuple(array(f"v{i}", (vectors, n), np.int32) for i, n in enumerate(network.neurons)),
        array("potentials", (vectors, network.classes), np.int64),
    )


def load(path: Path) -> Bundle:
    """Read and verify the bundle in folder ``path``. Raises BadModel with the file and what is wrong with it."""
    manifest_path = path / MANIFEST
    content = read_file(manifest_path, MAX_MANIFEST_BYTES)
    manifest = _manifest(content, manifest_path)
    digest = hashlib.sha256(content).hexdigest()
    if read_file(path / SEAL, MAX_MANIFEST_BYTES) != _seal(content):
        raise BadModel(
            f"{manifest_path}: its SHA-256 is {digest[:12]}..., which is not what {SEAL} says: one of the two was "
            "changed or damaged; restore the bundle"
        )
    bundle = Bundle(path, manifest, digest)
    for name in manifest.files:
        bundle.artefact(name)
    network = bundle.network
    if network.classes != len(manifest.labels):
        raise BadModel(f"{manifest_path}: {len(manifest.labels)} labels for a network with {network.classes} outputs")
    most = 1 << (manifest.weight_bits - 1)
    for layer in network.layers:
        if any(w is not None and (w.min() < -most or w.max() >= most) for w in (layer.w_in, layer.w_rec)):
            raise BadModel(
                f"{manifest_path}: layer {layer.name!r} has weights of more than {manifest.weight_bits} bits"
            )
    return bundle


def _manifest(content: bytes, where: Path) -> Manifest:
    """Raises BadModel unless everything in it makes sense, also together."""
    try:
        document = parse_json(content)
    except ValueError as error:
        raise BadModel(f"{where}: not JSON as a manifest has it ({error})") from error
    if isinstance(document, dict) and isinstance(document.get("format"), int) and document["format"] > FORMAT:
        raise BadModel(f"{where}: format {document['format']} is newer than this axond reads ({FORMAT}); upgrade axond")
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise BadModel(f"{where}: {first_error(error)}") from error
    for name in manifest.files:
        if not _FILE_NAME.fullmatch(name) or name in (MANIFEST, SEAL):
            raise BadModel(f"{where}: files: {name!r} must be a plain file name")
    absent = [name for name in REQUIRED if name not in manifest.files]
    if absent:
        raise BadModel(f"{where}: files: has no {absent[0]}; build the bundle anew")
    _check_labels(manifest, where)
    _check_inputs(manifest, where)
    for part in manifest.parts:
        if (part.window is None) != (manifest.state == "carry"):
            raise BadModel(f"{where}: window: expected with state 'reset', and with that only")
        if part.window is not None:
            try:
                part.window.check()
            except BadModel as error:
                raise BadModel(f"{where}: {error}") from error
    return manifest


def _check_labels(manifest: Manifest, where: Path) -> None:
    """Raises BadModel unless each is there once, and those that are never reported are among them."""
    if len(set(manifest.labels)) != len(manifest.labels):
        raise BadModel(f"{where}: labels: two are the same")
    if manifest.detect is not None:
        unknown = sorted(set(manifest.detect.ignore) - set(manifest.labels))
        if unknown:
            raise BadModel(f"{where}: detect.ignore: {unknown[0]!r} is none of the labels")


def _check_inputs(manifest: Manifest, where: Path) -> None:
    """Raises BadModel unless it is one input in full, or several."""
    if manifest.inputs is None:
        for key in ("input", "encoder"):
            if getattr(manifest, key) is None:
                raise BadModel(f"{where}: {key}: Field required")
        if manifest.late_ms is not None:
            raise BadModel(f"{where}: late_ms: expected with inputs, and with that only")
        return
    if manifest.input is not None or manifest.encoder is not None or manifest.window is not None:
        raise BadModel(f"{where}: inputs: expected in place of input, encoder and window, not beside them")
    if manifest.late_ms is None:
        raise BadModel(f"{where}: late_ms: expected with inputs: how long the data of a sensor are waited for")
    if manifest.state != "reset":
        raise BadModel(f"{where}: state: a fused model decides on windows, expected 'reset'")
    if len({part.name for part in manifest.inputs}) != len(manifest.inputs):
        raise BadModel(f"{where}: inputs: two have the same name")
    for i, part in enumerate(manifest.inputs):
        if part.rate_range is not None and not 0 <= part.rate_range[0] <= part.rate_range[1]:
            raise BadModel(f"{where}: inputs.{i}.rate_range: expected the fewest and the most spikes, in this order")


def first_error(error: ValidationError) -> str:
    """The first of the errors that pydantic found, as the key's path and what is wrong with it."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    return f"{key or 'document'}: {first['msg']}"


def _seal(manifest: bytes) -> bytes:
    """What ``sha256sum manifest.json`` prints."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


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
    text = (json.dumps({"format": FORMAT, **manifest, "files": digests}, indent=1) + "\n").encode()
    return place(path, {**files, MANIFEST: text, SEAL: _seal(text)})


def check_place(path: Path) -> None:
    """Before much work: whether ``place`` may write there. Raises BadModel."""
    if path.exists() and not (path / MANIFEST).is_file():
        raise BadModel(f"{path}: exists and is no bundle; name a new folder, or a bundle to replace")


def place(path: Path, files: dict[str, bytes]) -> Bundle:
    """As ``write``, for the files of a bundle as they are, its manifest and seal among them. Raises BadModel."""
    check_place(path)
    for name in files:
        if not _FILE_NAME.fullmatch(name):
            raise BadModel(f"{path}: {name!r} must be a plain file name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
            fresh = Path(scratch) / "new"
            fresh.mkdir()
            for name, content in files.items():
                with (fresh / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            unlisted = sorted(files.keys() - load(fresh).manifest.files.keys() - {MANIFEST, SEAL})
            if unlisted:
                raise BadModel(f"{path}: {unlisted[0]!r} is not in the manifest, so nothing tells what it should be")
            _swap(path, fresh, Path(scratch) / "old")
    except OSError as error:
        raise BadModel(f"{path}: cannot be written ({error.strerror or error})") from error
    return load(path)


def _swap(path: Path, fresh: Path, old: Path) -> None:
    """``fresh`` takes the place of ``path``; where that fails, what was there stays."""
    replaces = path.exists()
    if replaces:
        path.rename(old)
    try:
        fresh.rename(path)
    finally:
        if replaces and not path.exists():
            old.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
