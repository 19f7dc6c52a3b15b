"""Open a ``.nir`` file (HDF5) from anywhere: looked through before the nir package may build a graph of it.

HDF5 can point into other files, nest without end and declare arrays of any size; a graph needs none of that.
"""

import io
import math
from pathlib import Path
from typing import Any

from drivers.extras import how_to_install
from models.base import BadModel
from models.nir_nodes import LINEAR, NEURONS

MAX_FILE_BYTES = 256 << 20
MAX_ARRAY_BYTES = 512 << 20
"""All arrays of a graph together, inflated."""
MAX_OBJECTS = 100_000
MAX_DEPTH = 24
_KNOWN = (*NEURONS, *LINEAR, "Input", "Output", "NIRGraph")
_FAULTS = (
    OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, AssertionError, RuntimeError, MemoryError,
    NotImplementedError, ArithmeticError,
)  # fmt: skip
"""What h5py and nir raise for files that are not as they expect."""


def read_graph(path: Path) -> Any:
    """The ``nir.NIRGraph`` in ``path``, with its nodes as stated: types are not checked yet. Raises BadModel."""
    try:
        import h5py
        import nir
    except ImportError as error:
        raise BadModel(f"reading {path} needs the nir package: {how_to_install('build')}") from error
    content = _content(path)
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            _Survey(h5py, str(path)).group(file, "/", 0)
            if "node" not in file:
                raise BadModel(f"{path}: not a NIR graph (it has no group 'node')")
        graph = nir.read(io.BytesIO(content), type_check=False)
    except _FAULTS as error:
        raise BadModel(f"{path}: not a NIR graph ({_one_line(error)})") from error
    return graph


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise BadModel(f"{path}: no such file; expected a NIR graph (.nir)")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadModel(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_FILE_BYTES:
        raise BadModel(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    return content


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class _Survey:
    """Walks a file's groups without reading an array; raises BadModel for what no graph needs."""

    def __init__(self, h5py: Any, where: str) -> None:
        self._h5py = h5py
        self._where = where
        self._objects = 0
        self._bytes = 0

    def group(self, group: Any, name: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise BadModel(f"{self._where}: {name} is nested more than {MAX_DEPTH} deep")
        for key in group:
            inside = f"{name.rstrip('/')}/{key}"
            self._objects += 1
            if self._objects > MAX_OBJECTS:
                raise BadModel(f"{self._where}: has more than {MAX_OBJECTS} parts")
            link = group.get(key, getlink=True)
            if not isinstance(link, self._h5py.HardLink):
                raise BadModel(f"{self._where}: {inside} is a link, possibly into another file; write the graph whole")
            item = group[key]
            if isinstance(item, self._h5py.Group):
                self._check_type(item, inside)
                self.group(item, inside, depth + 1)
            elif isinstance(item, self._h5py.Dataset):
                self._dataset(item, inside)
            else:
                raise BadModel(f"{self._where}: {inside} is neither a group nor an array")

    def _check_type(self, group: Any, name: str) -> None:
        """Refuse unknown primitives here, where their name is known: nir only asserts."""
        if "type" not in group or not name.startswith("/node/") or name.endswith("/metadata"):
            return
        found = group.get("type", getlink=True)
        if not isinstance(found, self._h5py.HardLink) or not isinstance(group["type"], self._h5py.Dataset):
            return
        self._dataset(group["type"], f"{name}/type")
        kind = group["type"][()]
        kind = kind.decode("utf-8", "replace") if isinstance(kind, bytes) else str(kind)
        if kind not in _KNOWN:
            node = ".".join(part for part in name.removeprefix("/node/").split("/") if part != "nodes")
            raise BadModel(f"{self._where}: node {node!r} is a {kind[:40]}, which axond cannot map yet")

    def _dataset(self, item: Any, name: str) -> None:
        if item.is_virtual or item.external:
            raise BadModel(f"{self._where}: {name} keeps its values in another file; write the graph whole")
        text = self._h5py.check_string_dtype(item.dtype) is not None
        if not text and item.dtype.kind not in "biufS":
            raise BadModel(f"{self._where}: {name} holds {item.dtype}, expected numbers or text")
        self._bytes += math.prod(item.shape or ()) * item.dtype.itemsize
        if self._bytes > MAX_ARRAY_BYTES:
            raise BadModel(f"{self._where}: {name} declares {item.shape}, more than {MAX_ARRAY_BYTES} bytes in all")


def with_dt(path: Path, dt_s: float) -> bytes:
    """The content of ``path``, a graph that ``read_graph`` takes, stating the time step ``dt_s``. Raises BadModel."""
    import h5py

    out = io.BytesIO(_content(path))
    try:
        with h5py.File(out, "r+") as file:
            metadata = file["node"].require_group("metadata")
            if "dt" in metadata:
                del metadata["dt"]
            metadata["dt"] = dt_s
    except _FAULTS as error:
        raise BadModel(f"{path}: cannot take the time step ({_one_line(error)})") from error
    return out.getvalue()
