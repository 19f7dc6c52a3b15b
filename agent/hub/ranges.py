"""Which numbers of a stream are there: all up to a watermark, and ranges beyond it."""

from bisect import bisect_left
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]
"""First and last number, both included."""

MAX_RANGES = 4096
"""Ranges beyond the watermark that one stream may have: what a group of messages reads and writes stays bounded."""


class ScatteredError(Exception):
    """One range more than ``MAX_RANGES``: what lies lower must come first."""


class Coverage:
    """The numbers of one stream that are accounted for: 1 to ``upto``, and the ranges of ``ahead``."""

    __slots__ = ("ahead", "upto")

    def __init__(self, upto: int = 0, ahead: list[Range] | None = None) -> None:
        """``ahead`` must be ascending, disjoint, not touching, and begin above ``upto + 1``."""
        self.upto = upto
        self.ahead = ahead or []

    def add(self, first: int, last: int) -> list[Range]:
        """Takes in ``first`` to ``last`` and returns the parts that were not there yet, ascending.

        ``ScatteredError`` if that would make too many ranges; then nothing has changed.
        """
        first = max(first, self.upto + 1)
        if last < first:
            return []
        ahead = self.ahead
        begin = end = bisect_left(ahead, first - 1, key=_last)
        parts, missing_from, low, high = [], first, first, last
        while end < len(ahead) and ahead[end][0] <= last + 1:
            start, stop = ahead[end]
            if start > missing_from:
                parts.append((missing_from, start - 1))
            missing_from, low, high = stop + 1, min(low, start), max(high, stop)
            end += 1
        if missing_from <= last:
            parts.append((missing_from, last))
        if low == self.upto + 1:
            self.upto = high
            del ahead[begin:end]
            return parts
        if begin == end and len(ahead) >= MAX_RANGES:
            raise ScatteredError(f"more than {MAX_RANGES} ranges beyond {self.upto}")
        ahead[begin:end] = [(low, high)]
        return parts

    @property
    def highest(self) -> int:
        """The highest number that is there; 0 for none."""
        return self.ahead[-1][1] if self.ahead else self.upto

    def beyond(self) -> int:
        """How many numbers beyond the watermark are there."""
        return sum(last - first + 1 for first, last in self.ahead)


def _last(one: Range) -> int:
    return one[1]
