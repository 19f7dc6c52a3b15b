"""Reads tables of a flatbuffer that may be anything: bounded, in Python, so that damage is an error and no crash.

Format: https://flatbuffers.dev/internals. A method raises ValueError, IndexError or struct.error where there is none of
what it is asked for.
"""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_PARTS = 1 << 16
"""Of one vector of tables."""


class Table:
    """One table: its fields by their number in the schema."""

    def __init__(self, content: bytes, at: int, fields: tuple[int, ...]) -> None:
        """The table at byte ``at``; ValueError if it has others than ``fields``."""
        self._content = content
        self._at = at
        vtable = at - self._read("<i", at)
        size = self._read("<H", vtable)
        entries = ((i, self._read("<H", vtable + 4 + 2 * i)) for i in range((size - 4) // 2))
        self._offsets = {i: offset for i, offset in entries if offset}
        odd = self._offsets.keys() - set(fields)
        if odd:
            raise ValueError(f"the table at byte {at} has the odd field {min(odd)}")

    @classmethod
    def root(cls, content: bytes, identifier: bytes, fields: tuple[int, ...]) -> "Table":
        """The first table of a file."""
        if content[4:8] != identifier:
            raise ValueError(f"it does not begin as a {identifier.decode()} file")
        return cls(content, struct.unpack_from("<I", content)[0], fields)

    def number(self, field: int, kind: str = "<i", default: int = 0) -> int:
        """An integer of ``struct`` type ``kind``."""
        return self._read(kind, self._at + self._offsets[field]) if field in self._offsets else default

    def table(self, field: int, fields: tuple[int, ...]) -> "Table | None":
        """The table that a field points to; None if it is not there."""
        return Table(self._content, self._target(field), fields) if field in self._offsets else None

    def tables(self, field: int, fields: tuple[int, ...]) -> "list[Table]":
        """A vector of tables."""
        start, count = self._vector(field)
        if count > _MOST_PARTS:
            raise ValueError(f"it has {count} parts of a kind")
        places = range(start, start + 4 * count, 4)
        return [Table(self._content, place + self._read("<I", place), fields) for place in places]

    def array(self, field: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A vector of numbers; empty if it is not there."""
        if field not in self._offsets:
            return np.empty(0, dtype)
        start, count = self._vector(field)
        return np.frombuffer(self._content, dtype, count, start) if count else np.empty(0, dtype)

    def text(self, field: int) -> str:
        """A string."""
        return self.array(field, np.uint8).tobytes().decode()

    def _vector(self, field: int) -> tuple[int, int]:
        """Byte of the first element, and the number of elements."""
        start = self._target(field) if field in self._offsets else 0
        if not start:
            raise ValueError(f"the table at byte {self._at} lacks field {field}")
        return start + 4, self._read("<I", start)

    def _target(self, field: int) -> int:
        place = self._at + self._offsets[field]
        return place + self._read("<I", place)

    def _read(self, kind: str, at: int) -> int:
        if at < 0:
            raise ValueError(f"it refers to byte {at}")
        value: int = struct.unpack_from(kind, self._content, at)[0]
        return value
