"""Sets of sequence numbers as ranges: what is held of one boot and stream."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """Numbers as disjoint, ascending ranges that do not touch. Few ranges, however many numbers."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def copy(self) -> "Ranges":
        made = Ranges()
        made._first, made._last = self._first.copy(), self._last.copy()
        return made

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._first, self._last, strict=True)))

    def __len__(self) -> int:
        """How many ranges."""
        return len(self._first)

    @property
    def lowest(self) -> int | None:
        return self._first[0] if self._first else None

    @property
    def count(self) -> int:
        """How many numbers."""
        return sum(self._last) - sum(self._first) + len(self._first)

    def add(self, first: int, last: int) -> None:
        """Adds ``first`` to ``last``, both included; some may be there already."""
        if self._last and first == self._last[-1] + 1:
            self._last[-1] = last
            return
        low, high = self._touched(first - 1, last + 1)
        if low < high:
            first, last = min(first, self._first[low]), max(last, self._last[high - 1])
        self._first[low:high] = [first]
        self._last[low:high] = [last]

    def remove(self, first: int, last: int) -> None:
        """Removes ``first`` to ``last``, both included; some may be absent."""
        low, high = self._touched(first, last)
        if low == high:
            return
        rest = [(a, b) for a, b in ((self._first[low], first - 1), (last + 1, self._last[high - 1])) if a <= b]
        self._first[low:high] = [a for a, _ in rest]
        self._last[low:high] = [b for _, b in rest]

    def common(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of ``first`` to ``last`` that are in the set."""
        low, high = self._touched(first, last)
        return [(max(first, self._first[i]), min(last, self._last[i])) for i in range(low, high)]

    def _touched(self, first: int, last: int) -> tuple[int, int]:
        """The slice of ranges that share a number with ``first`` to ``last``."""
        low = bisect_right(self._first, first) - 1
        if low < 0 or self._last[low] < first:
            low += 1
        return low, bisect_right(self._first, last, lo=low)
