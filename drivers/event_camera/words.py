"""Event recordings of fixed words as blocks of events: EVT2, DAT version 2 and 5-byte events, decoded by numpy.

faery decodes EVT2 and DAT too, but its events then have to be made into ours; here the columns of many words are
made at once, in less time than faery needs alone. Formats: Prophesee's "EVT 2.0" and "DAT" pages.

Each function starts at byte ``data_at`` and raises Misconfigured for an event outside of ``size``, OSError.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from drivers.base import Misconfigured
from drivers.packet import EVENT

Size: TypeAlias = tuple[int, int]
Words: TypeAlias = npt.NDArray[np.uint32]
Bits: TypeAlias = tuple[int, int]
"""Where a part of a word begins, and its mask."""
BLOCK = 1 << 17
"""Words at a time: many for numpy's calls, few enough for the processor's cache."""
CD_END = np.uint32(2 << 28)
"""EVT2: words below are change detection events."""
EVT2_COLUMNS: tuple[Bits, Bits, Bits] = ((11, 0x7FF), (0, 0x7FF), (28, 1))
"""x, y, polarity."""
DAT2_COLUMNS: tuple[Bits, Bits, Bits] = ((0, 0x3FFF), (14, 0x3FFF), (28, 0xF))
TIME_HIGH = 8
NS_PER_US = 1000
TIME_HIGH_WRAP_US = 1 << 34
DAT_WRAP_US = 1 << 32
FIVE_BYTES = np.dtype([("x", "u1"), ("y", "u1"), ("on_high", "u1"), ("low", ">u2")])


class Block(NamedTuple):
    """Events in file order; n >= 1."""

    t_ns: npt.NDArray[np.int64]
    """(n,) times since the file's own zero, in whole microseconds. Valid until the next block is made."""
    events: npt.NDArray[Any]
    """EVENT[n] whose ``t_ns`` is still to be written; not shared with anyone."""
    ordered: bool = False
    """True: no time lies before its predecessor, as far as the file goes; nobody need look."""


def evt2(path: Path, data_at: int, size: Size) -> Iterator[Block]:
    """The upper 28 of 34 bits of time come from TIME_HIGH words; one below its predecessor means that they ran over.

    Events before the first of them tell no time; they get its own.
    """
    clock = _HighClock()
    columns = _Columns(path, size, EVT2_COLUMNS)
    for words in _read(path, data_at, np.dtype("<u4")):
        is_cd = words < CD_END
        cd = words[is_cd]
        other = np.flatnonzero(~is_cd)
        t_ns, untimed = clock.high_ns(words[other], other, len(cd))
        if len(cd):
            low = columns.bits(cd, (22, 0x3F))
            low[:untimed] = 0
            low *= NS_PER_US
            t_ns += low
            yield Block(t_ns, columns.events(cd))


def dat2(path: Path, data_at: int, size: Size) -> Iterator[Block]:
    """A fall of the 32 bits of time by more than half of them means that they ran over."""
    newest_us = wraps_us = 0
    columns = _Columns(path, size, DAT2_COLUMNS)
    for words in _read(path, data_at, np.dtype(("<u4", 2))):
        t_us = words[:, 0].astype(np.int64)
        ordered = bool((t_us[:-1] <= t_us[1:]).all())
        if not ordered or t_us[0] < newest_us:
            fell = np.diff(t_us, prepend=newest_us) < -DAT_WRAP_US // 2
            newest_us = int(t_us[-1])
            t_us += wraps_us + DAT_WRAP_US * np.cumsum(fell)
            wraps_us += DAT_WRAP_US * int(fell.sum())
        else:
            newest_us = int(t_us[-1])
            if wraps_us:
                t_us += wraps_us
        t_us *= NS_PER_US
        yield Block(t_us, columns.events(words[:, 1]), ordered)


def five_bytes(path: Path, size: Size) -> Iterator[Block]:
    """Their 23 bits of time have no way to run over."""
    at = 0
    for words in _read(path, 0, FIVE_BYTES):
        x, y, on_high = words["x"], words["y"], words["on_high"]
        check_inside(path, at, size, x, y)
        at += len(words)
        t_ns = (on_high & 0x7F).astype(np.int64) << 16
        t_ns += words["low"]
        t_ns *= NS_PER_US
        events = np.empty(len(words), EVENT)
        events["x"], events["y"], events["on"] = x, y, on_high >> 7
        yield Block(t_ns, events)


def check_inside(path: Path, at: int, size: Size, x: Any, y: Any) -> None:
    """``at``: number of the first event in the file. Raises Misconfigured."""
    if x.max() >= size[0] or y.max() >= size[1]:
        number = at + int(np.argmax((x >= size[0]) | (y >= size[1])))
        raise Misconfigured(
            f"{path}: event {number} lies outside of {size[0]} x {size[1]} pixels; set geometry to the camera's"
        )


class _HighClock:
    """EVT2's TIME_HIGH words, from the first on."""

    def __init__(self) -> None:
        self._newest_us: int | None = None
        self._wraps_us = 0

    def high_ns(self, other: Any, other_at: Any, count: int) -> tuple[npt.NDArray[np.int64], int]:
        """Of the ``count`` events of a block whose other words stand at ``other_at``: the time without its low bits.

        And how many events at its begin lie before the first TIME_HIGH of all.
        """
        is_high = other >> 28 == TIME_HIGH
        newer_us = (other[is_high] & 0x0FFF_FFFF).astype(np.int64) << 6
        if not len(newer_us):
            return np.full(count, ((self._newest_us or 0) + self._wraps_us) * NS_PER_US), 0
        # Before how many events each TIME_HIGH stands.
        change_at = (other_at - np.arange(len(other)))[is_high]
        untimed = 0
        if self._newest_us is None:
            self._newest_us, untimed = int(newer_us[0]), int(change_at[0])
        steps_us = np.empty(len(newer_us) + 1, np.int64)
        steps_us[0], steps_us[1:] = self._newest_us, newer_us
        self._newest_us = int(newer_us[-1])
        back = steps_us[1:] < steps_us[:-1]
        steps_us += self._wraps_us
        if back.any():
            steps_us[1:] += TIME_HIGH_WRAP_US * np.cumsum(back)
            self._wraps_us += TIME_HIGH_WRAP_US * int(back.sum())
        events = np.empty(len(steps_us), np.int64)
        events[0], events[-1] = change_at[0], count - change_at[-1]
        np.subtract(change_at[1:], change_at[:-1], out=events[1:-1])
        return np.repeat(steps_us * NS_PER_US, events), untimed


class _Columns:
    """Makes x, y and polarity of words."""

    def __init__(self, path: Path, size: Size, columns: tuple[Bits, Bits, Bits]) -> None:
        self._path = path
        self._size = size
        self._columns = columns
        self._done = 0
        self._scratch = np.empty(BLOCK, np.uint32)

    def bits(self, words: Words, bits: Bits) -> Words:
        """Valid until the next call."""
        part = self._scratch[: len(words)]
        np.right_shift(words, np.uint32(bits[0]), out=part)
        np.bitwise_and(part, np.uint32(bits[1]), out=part)
        return part

    def events(self, words: Words) -> npt.NDArray[Any]:
        x, y, on = self._columns
        events = np.empty(len(words), EVENT)
        for name, bits, limit in (("x", x, self._size[0]), ("y", y, self._size[1])):
            values = self.bits(words, bits)
            if values.max() >= limit:
                check_inside(self._path, self._done, self._size, words >> x[0] & x[1], words >> y[0] & y[1])
            events[name] = values
        values = self.bits(words, on)
        events["on"] = np.minimum(values, np.uint32(1), out=values)
        self._done += len(words)
        return events


def _read(path: Path, data_at: int, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """Whole words, in memory that the next ones overwrite."""
    words: npt.NDArray[Any] = np.empty(BLOCK, dtype)
    with path.open("rb") as file:
        file.seek(data_at)
        while count := file.readinto(words.view(np.uint8).data) // dtype.itemsize:
            yield words[:count]
