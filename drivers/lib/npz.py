"""Arrays out of an ``.npz`` file that anybody may have made: sizes are checked before memory is taken for them.

Only what numpy writes is read (format version 1.0, one or two dimensions, stored or deflated) and only the types that
are asked for, so neither a pickle nor any other code can be in it.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

MOST_BYTES = 1 << 31
"""All arrays of a file together."""
_MAGIC = b"\x93NUMPY\x01\x00"
_PREFIX = struct.Struct("<8sH")
_HEADER = re.compile(
    r"\{'descr': (.{1,99}), 'fortran_order': (True|False), 'shape': \((\d{1,15}),(?: (\d{1,9}))?\), \} *\n"
)


def read_arrays(file: BinaryIO, wanted: Mapping[str, Sequence[np.dtype[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """The read-only arrays ``wanted``, each of one of the types that are allowed for it.

    Raises ValueError with the reason when the file is no such archive, OSError when it cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            absent = [name for name in wanted if f"{name}.npy" not in members]
            if absent:
                raise ValueError(f"it has no array {absent[0]!r}")
            found = {name: members[f"{name}.npy"] for name in wanted}
            size = sum(member.file_size for member in found.values())
            if size > MOST_BYTES:
                raise ValueError(f"its arrays take {size} bytes, at most {MOST_BYTES} are read")
            return {name: _array(name, _content(archive, found[name]), types) for name, types in wanted.items()}
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, NotImplementedError) as error:
        # What it quotes of the file may be long.
        raise ValueError(f"it is damaged or no .npz file: {str(error)[:100]}") from error


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    encrypted = member.flag_bits & 1
    if encrypted or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its member {member.filename!r} is packed or encrypted in a way that numpy does not use")
    with archive.open(member) as file:
        # With a size, no more than that is inflated, whatever the member really holds.
        return file.read(member.file_size)


def _array(name: str, content: bytes, types: Sequence[np.dtype[Any]]) -> npt.NDArray[Any]:
    magic, header_bytes = _PREFIX.unpack_from(content.ljust(_PREFIX.size))
    start = _PREFIX.size + header_bytes
    header = _HEADER.fullmatch(content[_PREFIX.size : start].decode("latin-1"))
    if magic != _MAGIC or header is None:
        raise ValueError(f"its member '{name}.npy' is no array as numpy writes it, or of objects")
    by_text = {repr(np.lib.format.dtype_to_descr(dtype)): dtype for dtype in types}
    dtype = by_text.get(header[1])
    if dtype is None:
        raise ValueError(f"its array {name!r} is of type {header[1]}, which has no place there")
    shape = (int(header[3]),) if header[4] is None else (int(header[3]), int(header[4]))
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if len(content) - start != needed:
        raise ValueError(f"its array {name!r} {shape} needs {needed} bytes, {len(content) - start} are there")
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if header[2] == "True" else "C")
