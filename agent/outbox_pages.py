"""Reads an SQLite file and its WAL byte by byte, where SQLite itself gives up.

Follows https://www.sqlite.org/fileformat2.html: b-tree pages (1.6), records (2.1), the WAL and its checksums (4).
Nothing found here is to be trusted before its content is checked: a cell may be torn, old, or no cell at all.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from agent.outbox_schema import PAGE_BYTES

Cell: TypeAlias = int | float | str | bytes | None
Row: TypeAlias = tuple[int, list[Cell]]
"""Rowid and columns."""

MAGIC = b"SQLite format 3\x00"
_WAL_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_FRAME_BYTES = _FRAME_HEADER_BYTES + PAGE_BYTES
_LEAF = 0x0D
_MOST_CELLS = PAGE_BYTES // 6
_MOST_ROW_BYTES = 4 << 20
_MOST_COLUMNS = 32
_REFUSALS = 8
_INT_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


@dataclass(frozen=True, slots=True)
class Frame:
    """One page in the WAL."""

    page: int
    offset: int
    """Of the page in the WAL file."""
    sound: bool
    """Whether its checksum and its generation are right."""


def problem(path: Path) -> str | None:
    """What is wrong with a file that nobody works on, and SQLite would not tell but read less of it; None: nothing."""
    return header_problem(path) or wal_problem(path)


def header_problem(path: Path) -> str | None:
    """What is wrong with the parts of the file's header that never change, and with its length; None: nothing.

    SQLite takes some of these values for wishes (a version that it may only read) and not for damage.
    """
    size_bytes = path.stat().st_size if path.exists() else 0
    if size_bytes == 0:
        return None
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(MAGIC):
        return "it does not begin like an SQLite file"
    if header[16:24] != b"\x10\x00\x02\x02\x00\x40\x20\x20":
        return "its header is not the one that it was made with"
    pages = int.from_bytes(header[28:32], "big")
    if size_bytes % PAGE_BYTES or (pages * PAGE_BYTES > size_bytes and not wal_path(path).exists()):
        return f"it has {size_bytes} bytes, {pages} pages of {PAGE_BYTES} are expected"
    return None


def wal_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def wal_problem(path: Path) -> str | None:
    """What is wrong in the middle of the WAL, or None.

    At the first bad frame SQLite takes the WAL for ended, and forgets what follows. A bad end alone is what a power cut
    leaves of a transaction that was never whole.
    """
    frames = wal_frames(wal_path(path))
    last_sound = max((number for number, frame in enumerate(frames) if frame.sound), default=-1)
    bad = sum(not frame.sound for frame in frames[:last_sound])
    return f"{bad} of {len(frames)} pages in the middle of its WAL are damaged" if bad else None


def wal_frames(path: Path) -> list[Frame]:
    """The frames of the WAL's present generation, the last one too if it is damaged; none if there is no WAL."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return []
    with file:
        header = file.read(_WAL_HEADER_BYTES)
        heads: list[tuple[int, bytes, bytes, bytes]] = []
        """Page, salts, checksum that is said, checksum over the frame if the frame before is as it says."""
        before = header[24:32]
        while len(frame := file.read(_FRAME_BYTES)) == _FRAME_BYTES:
            actual = _checksum(before, frame[:8] + frame[_FRAME_HEADER_BYTES:])
            before = frame[16:24]
            heads.append((int.from_bytes(frame[:4], "big"), frame[8:16], before, actual))
    if not heads:
        return []
    intact = len(header) == _WAL_HEADER_BYTES and _checksum(bytes(8), header[:24]) == header[24:32]
    salts = header[16:24] if intact else Counter(head[1] for head in heads[:3]).most_common(1)[0][0]
    end = max((number for number, head in enumerate(heads) if head[1] == salts), default=-1) + 1
    return [
        Frame(
            page,
            _WAL_HEADER_BYTES + number * _FRAME_BYTES + _FRAME_HEADER_BYTES,
            frame_salts == salts and said == actual and (intact or number > 0),
        )
        for number, (page, frame_salts, said, actual) in enumerate(heads[:end])
    ]


def _powers(count: int) -> npt.NDArray[np.uint32]:
    """The first powers of the matrix by which a pair of words moves the two sums of the WAL (4.2)."""
    powers = np.zeros((count, 2, 2), np.uint64)
    powers[0] = np.eye(2)
    for number in range(1, count):
        powers[number] = powers[number - 1] @ np.array([[1, 1], [1, 2]], np.uint64) & np.uint64(0xFFFFFFFF)
    return powers.astype(np.uint32)


_POWERS = _powers(1 + (8 + PAGE_BYTES) // 8)


def _checksum(seed: bytes, data: bytes) -> bytes:
    """The two sums over ``data`` (a multiple of 8 bytes), begun with ``seed``, as the file says them."""
    words = np.frombuffer(data, "<u4").reshape(-1, 2)
    steps = np.stack((words[:, 0], words[:, 0] + words[:, 1]), axis=1)
    powers = _POWERS[len(words) - 1 :: -1] if len(words) > 1 else _POWERS[:1]
    start = np.frombuffer(seed, ">u4").astype(np.uint32)
    sums = (powers * steps[:, np.newaxis, :]).sum(axis=(0, 2), dtype=np.uint32)
    sums += (_POWERS[len(words)] * start).sum(axis=1, dtype=np.uint32)
    return bytes(sums.astype(">u4").tobytes())


class PageReader:
    """All pages of a file, as its WAL has them.

    A page that the disk refuses to read counts as zeros. So many that it is rather the disk than the file are an
    ``OSError``: it may be read later.
    """

    def __init__(self, main: BinaryIO, wal: BinaryIO | None, frames: list[Frame]) -> None:
        self._main = main
        self._wal = wal
        self._latest = {frame.page: frame for frame in frames}
        self._older = [frame for frame in frames if self._latest[frame.page] is not frame]
        self.pages = max((size_pages(main), *(frame.page for frame in frames if frame.sound)))
        self._refusals = max(_REFUSALS, self.pages // 20)

    def versions(self) -> Iterator[bytes]:
        """Each page as it is now; of a page whose latest version is damaged also what it was before."""
        doubtful = {page for page, frame in self._latest.items() if not frame.sound}
        for page in range(1, self.pages + 1):
            yield self.read(page)
            if page in doubtful:
                yield from (self._in_wal(frame) for frame in self._older if frame.page == page)
                yield self._in_main(page)

    def read(self, page: int) -> bytes:
        """A page by its number, from 1 on."""
        frame = self._latest.get(page)
        return self._in_main(page) if frame is None else self._in_wal(frame)

    def rows(self) -> Iterator[Row]:
        """Whatever looks like a row of a table, in the order of the pages."""
        for number, content in enumerate(self.versions()):
            head = 100 if number == 0 else 0
            if content[head] == _LEAF or _looks_like_leaf(content):
                yield from self._cells(content, head)

    def _in_main(self, page: int) -> bytes:
        return self._read_at(self._main, (page - 1) * PAGE_BYTES)

    def _in_wal(self, frame: Frame) -> bytes:
        return self._read_at(self._wal, frame.offset) if self._wal is not None else bytes(PAGE_BYTES)

    def _read_at(self, file: BinaryIO, offset: int) -> bytes:
        try:
            content = os.pread(file.fileno(), PAGE_BYTES, offset)
        except OSError:
            self._refusals -= 1
            if self._refusals < 0:
                raise
            content = b""
        return content.ljust(PAGE_BYTES, b"\0")

    def _cells(self, content: bytes, head: int) -> Iterator[Row]:
        count = int.from_bytes(content[head + 3 : head + 5], "big")
        pointers = struct.unpack_from(f">{min(_MOST_CELLS, (PAGE_BYTES - head - 8) // 2)}H", content, head + 8)
        for number, pointer in enumerate(pointers):
            plausible = head + 8 < pointer < PAGE_BYTES - 4
            if not plausible and number >= count:
                return
            row = self._row(content, pointer) if plausible else None
            if row is not None:
                yield row

    def _row(self, content: bytes, at: int) -> Row | None:
        try:
            length, at = _varint(content, at)
            rowid, at = _varint(content, at)
            if not 2 <= length <= _MOST_ROW_BYTES:
                return None
            return rowid, _columns(self._payload(content, at, length))
        except (IndexError, ValueError, struct.error):
            return None

    def _payload(self, content: bytes, at: int, length: int) -> bytes:
        if length <= PAGE_BYTES - 35:
            return content[at : at + length]
        least = (PAGE_BYTES - 12) * 32 // 255 - 23
        local = least + (length - least) % (PAGE_BYTES - 4)
        local = local if local <= PAGE_BYTES - 35 else least
        parts = [content[at : at + local]]
        _columns(parts[0] + bytes(length - local))  # no row: do not follow its pages
        left, page = length - local, int.from_bytes(content[at + local : at + local + 4], "big")
        while left > 0 and 1 <= page <= self.pages:
            more = self.read(page)
            parts.append(more[4 : 4 + left])
            left, page = left - len(parts[-1]), int.from_bytes(more[:4], "big")
        return b"".join(parts)


def size_pages(file: BinaryIO) -> int:
    return -(-file.seek(0, 2) // PAGE_BYTES)


def _looks_like_leaf(content: bytes) -> bool:
    """Whether everything but the first byte is as in a leaf of a table: a few bytes cannot hide a whole page."""
    count, start = int.from_bytes(content[3:5], "big"), int.from_bytes(content[5:7], "big")
    if not (0 < count <= _MOST_CELLS and 8 + 2 * count <= start < PAGE_BYTES and content[7] <= 60):
        return False
    pointers = struct.unpack_from(f">{count}H", content, 8)
    return all(start <= pointer < PAGE_BYTES for pointer in pointers)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for number in range(9):
        byte = content[at + number]
        if number == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + number + 1
    raise ValueError("no varint")


def _columns(payload: bytes) -> list[Cell]:
    end, at = _varint(payload, 0)
    if end > 9 * _MOST_COLUMNS:
        raise ValueError("more columns than any of our tables has")
    kinds: list[int] = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    cells: list[Cell] = []
    at = end
    for kind in kinds:
        cell, at = _cell(payload, at, kind)
        cells.append(cell)
    if at > len(payload):
        raise ValueError("the row ends too early")
    return cells


def _cell(payload: bytes, at: int, kind: int) -> tuple[Cell, int]:
    if kind >= 12:
        size = (kind - 12) // 2
        content = payload[at : at + size]
        return (content.decode() if kind % 2 else content), at + size
    if kind in _INT_BYTES:
        size = _INT_BYTES[kind]
        return int.from_bytes(payload[at : at + size], "big", signed=True), at + size
    if kind == 7:
        return struct.unpack_from(">d", payload, at)[0], at + 8
    if kind in (8, 9):
        return kind - 8, at
    if kind == 0:
        return None, at
    raise ValueError("no such kind of value")
