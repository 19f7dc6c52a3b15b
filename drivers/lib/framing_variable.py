"""Finds frames that carry their own length in a stream of bytes that arrives in pieces of any size."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from drivers.lib.framing import U8, Offsets, inside, steps_from

MORE = 0
"""Length of a candidate that cannot be told before more bytes have come."""
NO_FRAME = -1
"""Length of a candidate that is none."""


class VariableFormat(Protocol):
    """How one protocol, or several on one port, lay out their frames."""

    def candidates(self, data: U8) -> Offsets:
        """Where a frame may begin, sorted; also where only its first bytes are there yet."""

    def lengths(self, data: U8, starts: Offsets) -> Offsets:
        """Bytes of the frame at each start, header and checksum included, or MORE, or NO_FRAME.

        MORE only within a bounded distance of the end: it holds back everything behind it.
        """

    def check(self, data: U8, starts: Offsets, lengths: Offsets) -> npt.NDArray[np.bool_]:
        """Which of these frames, all whole, carry a correct checksum."""


@dataclass(frozen=True, slots=True)
class Spans:
    """The frames that one call of ``VariableScanner.feed`` found, in stream order."""

    data: U8
    """Bytes in which they lie."""
    starts: Offsets
    """(k,) offsets in ``data``."""
    lengths: Offsets
    ends: Offsets
    """(k,): stream position just behind each frame, counted from the first byte ever fed."""
    skipped: Offsets
    """(k,): bytes given up before each frame, since the first byte ever fed."""

    def __len__(self) -> int:
        return len(self.starts)

    def table(self, which: npt.NDArray[np.intp], offset: int, size: int) -> U8:
        """(n, size) bytes from ``offset`` of the n frames ``which``; zeros behind a frame's end."""
        columns = np.arange(offset, offset + size)
        at = self.starts[which, None] + columns
        within = columns < self.lengths[which, None]
        if within.all():
            table: U8 = self.data[at]
        else:
            table = np.where(within, self.data[np.minimum(at, max(0, len(self.data) - 1))], np.uint8(0))
        return table


class VariableScanner:
    """Incremental scanner: any chunking of a stream gives the same frames, counts and positions.

    It takes what a reader going byte by byte would take: at each position a whole valid frame, or it goes on by one.
    A candidate whose end has not come yet holds back everything behind it; so ``lengths`` bounds the memory.
    """

    def __init__(self, frame_format: VariableFormat) -> None:
        self.bad_checksums = 0
        """Whole candidates with a wrong checksum, outside of accepted frames."""
        self.skipped_bytes = 0
        """Bytes given up because they belong to no valid frame."""
        self.position = 0
        """Bytes fed so far."""
        self.frames = 0
        """Valid frames so far."""
        self._format = frame_format
        self._rest = np.zeros(0, np.uint8)

    def feed(self, chunk: bytes) -> Spans:
        """Take the next bytes of the stream; return the frames that they complete."""
        data = np.concatenate([self._rest, np.frombuffer(chunk, np.uint8)])
        origin = self.position - len(self._rest)
        self.position += len(chunk)

        starts = self._format.candidates(data)
        lengths = self._format.lengths(data, starts)
        whole = (lengths > 0) & (starts + lengths <= len(data))
        pending = starts[(lengths != NO_FRAME) & ~whole]
        starts, lengths = starts[whole], lengths[whole]
        valid = self._format.check(data, starts, lengths)
        bad = starts[~valid]
        starts, lengths = _first_wins(starts[valid], lengths[valid])

        waiting = pending[~inside(pending, starts, lengths)]
        consumed = int(waiting[0]) if len(waiting) else len(data)
        early = starts < consumed
        starts, lengths = starts[early], lengths[early]
        bad = bad[bad < consumed]
        self.bad_checksums += int(np.count_nonzero(~inside(bad, starts, lengths)))
        self.frames += len(starts)
        before = np.cumsum(lengths)
        skipped = self.skipped_bytes + starts + lengths - before
        self.skipped_bytes += consumed - int(lengths.sum())
        self._rest = data[consumed:].copy()
        return Spans(data, starts, lengths, origin + starts + lengths, skipped)


def _first_wins(starts: Offsets, lengths: Offsets) -> tuple[Offsets, Offsets]:
    """Of frames that overlap, the first one is taken."""
    if bool((starts[1:] - starts[:-1] >= lengths[:-1]).all()):
        return starts, lengths
    kept: list[int] = []
    free = 0
    for index, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        if start >= free:
            kept.append(index)
            free = start + length
    return starts[kept], lengths[kept]


class Spacing:
    """Estimates the rows that damage has cost a device without a counter, from the space between the rows around it."""

    def __init__(self, row_bytes: int) -> None:
        """``row_bytes``: from one row to the next, until the stream has shown it."""
        self.row_bytes = row_bytes
        self._last: tuple[int, int] | None = None
        self._unusable = 0

    def missing(self, ends: Offsets, skipped: Offsets, usable: npt.NDArray[np.bool_]) -> Offsets:
        """Rows missing before each usable one of n rows that end at ``ends``; ``skipped``: bytes lost before each."""
        if not len(ends):
            return np.zeros(0, np.int64)
        # What was damaged before the first row was no row of ours: the stream began in the middle of it.
        first = self._last is None
        last_end, last_skipped = self._last or (int(ends[0]) - self.row_bytes, int(skipped[0]))
        self._last = int(ends[-1]), int(skipped[-1])
        distance, damage = steps_from(last_end, ends), steps_from(last_skipped, skipped)
        clean = distance[int(first) :][damage[int(first) :] == 0]
        if len(clean):
            self.row_bytes = int(clean[-1])
        if not (self._unusable or damage.any()) and usable.all():
            return np.zeros(len(ends), np.int64)
        by_space = np.maximum(np.rint(distance / self.row_bytes).astype(np.int64) - 1, 0)
        total = np.cumsum(np.where(damage > 0, by_space, 0) + ~usable) + self._unusable
        before_usable = total[usable]
        self._unusable = int(total[-1] - (before_usable[-1] if len(before_usable) else 0))
        return steps_from(0, before_usable)
