"""The frame of an AEDAT4 file, looked at before faery decodes it.

faery 0.7 reads the header without checks: a damaged one ends its whole process. It also takes a file that ends early
for a whole one when its recorder never wrote where the data end. The header is a flatbuffer (inivation.gitlab.io,
"AEDAT file format"): ``compression``, ``dataTablePosition`` and ``infoNode`` are fields 0, 1 and 2 of its table.
"""

import os
import struct
from pathlib import Path

from drivers.base import Misconfigured

MAGIC = b"#!AER-DAT4.0\r\n"
IDENTIFIER = b"IOHE"
FIELD_BYTES = (4, 8, 4)
"""Of the three fields, as they lie in the table."""
UNKNOWN = -1
"""The recorder did not get to write where the data end: they end with the file."""


def check_aedat4(path: Path, length: int) -> None:
    """Walk from packet to packet to the end of the data. Raises Misconfigured for a file that is not whole, OSError."""
    with path.open("rb", buffering=0) as file:
        prefix = file.read(len(MAGIC) + 4)
        at = len(prefix) + int.from_bytes(prefix[len(MAGIC) :], "little")
        if len(prefix) < len(MAGIC) + 4 or at > length:
            raise _cut_short(path, length)
        try:
            end = _data_end(file.read(at - len(prefix)))
        except ValueError as error:
            raise Misconfigured(f"{path}: its AEDAT4 header is broken ({error}); copy or convert it again") from error
        if end == UNKNOWN:
            end = length
        elif end > length:
            raise _cut_short(path, length)
        while at < end:
            packet = os.pread(file.fileno(), 8, at)
            if len(packet) < 8:
                raise _cut_short(path, length)
            at += 8 + int.from_bytes(packet[4:], "little")
        if at > end:
            raise _cut_short(path, end)


def _data_end(header: bytes) -> int:
    """``dataTablePosition``. Raises ValueError where anything that faery reads in the header lies outside of it."""
    if header[4:8] != IDENTIFIER:
        raise ValueError(f"it begins with {header[4:8]!r}, expected {IDENTIFIER!r}")
    table = _number(header, "<I", 0)
    vtable = table - _number(header, "<i", table)
    vtable_bytes = _number(header, "<H", vtable)
    if vtable + vtable_bytes > len(header):
        raise ValueError("its table ends outside of it")
    places = []
    for field, size in enumerate(FIELD_BYTES):
        entry = 4 + 2 * field
        offset = _number(header, "<H", vtable + entry) if entry + 2 <= vtable_bytes else 0
        if offset and table + offset + size > len(header):
            raise ValueError(f"field {field} lies outside of it")
        places.append(table + offset if offset else 0)
    _, position, info = places
    if not info:
        raise ValueError("it does not describe its streams")
    info += _number(header, "<I", info)
    text = header[info + 4 :][: _number(header, "<I", info)]
    if len(text) < _number(header, "<I", info):
        raise ValueError("the description of its streams ends outside of it")
    text.decode()
    end = _number(header, "<q", position) if position else UNKNOWN
    if end < UNKNOWN:
        raise ValueError(f"its data end at byte {end}")
    return end


def _number(header: bytes, kind: str, at: int) -> int:
    if not 0 <= at <= len(header) - struct.calcsize(kind):
        raise ValueError(f"it points to byte {at}")
    return int(struct.unpack_from(kind, header, at)[0])


def _cut_short(path: Path, length: int) -> Misconfigured:
    return Misconfigured(f"{path}: cut short at byte {length}, within a packet; copy the file again")
