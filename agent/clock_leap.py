"""Notices when a wall clock leaps. Pure: others read the clocks."""

LEAST_US = 10_000
"""Less than that is the time that reading two clocks takes on a busy machine."""
GRAVE_US = 60_000_000
"""Less than that is nothing where something would be thrown away that is days old."""
SETTLED_NS = 24 * 3600 * 1_000_000_000
"""A wall clock that has not leapt for so long is taken for right where something would be thrown away by it."""


class Leaps:
    """Of one clock. One thread calls it."""

    def __init__(self, least_us: int = LEAST_US) -> None:
        self._least_us = least_us
        self._offset_us: int | None = None
        self._since_ns = 0
        self.count = 0
        self.last_us = 0
        """By how much it leapt last; above 0 is forwards."""

    def look(self, now_ns: int, offset_us: int) -> int:
        """Takes the offset to a clock that never leaps; returns by how much it changed, 0 if it did not."""
        before_us, self._offset_us = self._offset_us, offset_us
        if before_us is None:
            self._since_ns = now_ns
            return 0
        leap_us = offset_us - before_us
        if abs(leap_us) < self._least_us:
            # Kept as it was: a clock that creeps away in small steps leaps all the same.
            self._offset_us = before_us
            return 0
        self.count += 1
        self.last_us, self._since_ns = leap_us, now_ns
        return leap_us

    def is_settled(self, now_ns: int) -> bool:
        """Looked at for a day without a leap."""
        return self._offset_us is not None and now_ns - self._since_ns >= SETTLED_NS
