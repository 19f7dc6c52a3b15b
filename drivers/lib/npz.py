"""Arrays out of an ``.npz`` file that anybody may have made: sizes are checked before memory is taken for them.

Only what numpy writes is read (format version 1.0, one to four dimensions, stored or deflated) and only the types that
are asked for, so neither a pickle nor any other code can be in it.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

MOST_BYTES = 1 << 31
"""All arrays of a file together."""
_MAGIC = b"\x93NUMPY\x01\x00"
_PREFIX = struct.Struct("<8sH")
_HEADER = re.compile(
    r"\{'descr': (.{1,99}), 'fortran_order': (True|False), 'shape': \((\d{1,15}(?:,|(?:, \d{1,15}){1,3}))\), \} *\n"
)

Types = Sequence[np.dtype[Any]]
Arrays = dict[str, npt.NDArray[Any]]


def read_arrays(file: BinaryIO, wanted: Mapping[str, Types]) -> Arrays:
    """The read-only arrays ``wanted``, each of one of the types that are allowed for it.

    Raises ValueError with the reason when the file is no such archive, OSError when it cannot be read.
    """
    with _open(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        absent = [name for name in wanted if f"{name}.npy" not in members]
        if absent:
            raise ValueError(f"it has no array {absent[0]!r}")
        found = {name: members[f"{name}.npy"] for name in wanted}
        _check_size(found, MOST_BYTES)
        return {name: _array(name, _content(archive, found[name]), types) for name, types in wanted.items()}


def read_all(file: BinaryIO, types: Types, most_bytes: int) -> Arrays:
    """All arrays of the file, read-only, each of one of ``types``. Raises as ``read_arrays`` does."""
    with _open(file) as archive:
        found = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if len(found) != len(archive.infolist()):
            raise ValueError("it has two arrays of one name")
        _check_size(found, most_bytes)
        return {name: _array(name, _content(archive, member), types) for name, member in found.items()}


@contextmanager
def _open(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, NotImplementedError) as error:
        # What it quotes of the file may be long.
        raise ValueError(f"it is damaged or no .npz file: {str(error)[:100]}") from error


def _check_size(members: Mapping[str, zipfile.ZipInfo], most_bytes: int) -> None:
    size = sum(member.file_size for member in members.values())
    if size > most_bytes:
        raise ValueError(f"its arrays take {size} bytes, at most {most_bytes} are read")


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    encrypted = member.flag_bits & 1
    if encrypted or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its member {member.filename!r} is packed or encrypted in a way that numpy does not use")
    with archive.open(member) as file:
        # With a size, no more than that is inflated, whatever the member really holds.
        return file.read(member.file_size)


def _array(name: str, content: bytes, types: Types) -> npt.NDArray[Any]:
    magic, header_bytes = _PREFIX.unpack_from(content.ljust(_PREFIX.size))
    start = _PREFIX.size + header_bytes
    header = _HEADER.fullmatch(content[_PREFIX.size : start].decode("latin-1"))
    if magic != _MAGIC or header is None:
        raise ValueError(f"its member {f'{name}.npy'!r} is no array as numpy writes it, or of objects")
    by_text = {repr(np.lib.format.dtype_to_descr(dtype)): dtype for dtype in types}
    dtype = by_text.get(header[1])
    if dtype is None:
        raise ValueError(f"its array {name!r} is of type {header[1]}, which has no place there")
    shape = tuple(int(size) for size in header[3].rstrip(",").split(", "))
    needed = prod(shape) * dtype.itemsize
    if len(content) - start != needed:
        raise ValueError(f"its array {name!r} {shape} needs {needed} bytes, {len(content) - start} are there")
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if header[2] == "True" else "C")
