"""Reading what anybody may have made: plain files, JSON and arrays, nothing that runs, nothing without a limit."""

import io
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.lib.npz import Types, read_all
from models.base import BadModel

NPZ_MAX_BYTES = 128 * 1024 * 1024
"""All arrays of an archive together."""
NPZ_MAX_ARRAYS = 4096
JSON_MAX_DEPTH = 16
INTEGER_MAX = (1 << 63) - 1
_TYPES = tuple(np.dtype(code) for code in ("i1", "u1", "<i4", "<i8"))
_ARCHIVE_ENTRY = b"PK\x01\x02"


def read_file(path: Path, most_bytes: int) -> bytes:
    """The content of a plain file. Raises BadModel for links, folders, pipes, devices, and more than ``most_bytes``."""
    try:
        # A pipe would be waited for, and a link leads out of the folder.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadModel(f"{path}: is no plain file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(most_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BadModel(f"{path}: cannot be read ({error.strerror}); restore the bundle") from error
    if len(content) > most_bytes:
        raise BadModel(f"{path}: is larger than {most_bytes} bytes, more than any of its kind needs")
    return content


def parse_json(content: bytes) -> Any:
    """A JSON document of finite numbers and clean text, without twin keys. Raises ValueError with what is wrong."""
    try:
        document = json.loads(content.decode(), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check(document, JSON_MAX_DEPTH)
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("it has one key twice in an object")
    return made


def _check(value: Any, levels: int) -> None:
    if levels == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it has a number that is not finite")
    if isinstance(value, int) and abs(value) > INTEGER_MAX:
        raise ValueError("it has an integer of more than 64 bits")
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"it has a text with control characters, {value[:40]!r}")
    if isinstance(value, dict):
        for key in value:
            _check(key, levels)
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, levels - 1)


def read_npz(content: bytes, where: str, types: Types = _TYPES) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an ``.npz``, read-only, each of one of ``types`` (int8, uint8, int32, int64). Raises BadModel."""
    # Opening an archive takes memory for each entry, long before its sizes can be looked at.
    if content.count(_ARCHIVE_ENTRY) > NPZ_MAX_ARRAYS:
        raise BadModel(f"{where}: has more than {NPZ_MAX_ARRAYS} arrays")
    try:
        arrays = read_all(io.BytesIO(content), types, NPZ_MAX_BYTES)
    except (ValueError, OSError) as error:
        raise BadModel(f"{where}: {error}") from error
    return {name: np.require(array, requirements=["C", "A"]) for name, array in arrays.items()}
