"""What the hub said last of each stream: what it has already, and what it lacks and will never get."""

from agent.record import Key, Record
from agent.uplink_watermark import Range, Watermark

HOLE_S = 1.0
"""Watermarks of several hubs come in any order: only what is lacking for this long is lacking. Also the pace of the
first gap records."""
LONGEST_S = 300.0
"""A gap record that changes nothing is sent again after twice the time, up to this."""
MAX_MARKS = 1024
"""Boots and streams to remember; a broker may name any number of them."""


class Holes:
    """The last watermarks of one connection. It is told the time and does nothing by itself."""

    def __init__(self) -> None:
        self._marks: dict[Key, Watermark] = {}
        self._lacking_s: dict[Key, float] = {}
        """Since when a key's watermark has stood where the next record is not under way, or the last gap record."""
        self._wait_s: dict[Key, float] = {}
        """How long to wait after that, once a gap record was sent."""
        self._lower_s: dict[Key, float] = {}
        """Since when only lower watermarks come than the one that is remembered."""

    def heard(self, key: Key, mark: Watermark, *, complete: bool, now_s: float, late: bool = False) -> None:
        """``complete``: the number after the watermark is under way. ``late``: a higher one may have overtaken it.

        Hubs side by side answer out of order, and one that was restored from a backup has less than before: a lower
        watermark is believed if it tells of something new, or comes again later.
        """
        before = self._marks.get(key)
        if before is None and len(self._marks) >= MAX_MARKS:
            return
        late = late and before is not None and mark.upto < before.upto and mark.highest <= before.highest
        if late and now_s - self._lower_s.setdefault(key, now_s) < HOLE_S:
            return
        self._lower_s.pop(key, None)
        self._marks[key] = mark
        if before is not None and before.upto != mark.upto:
            self._wait_s.pop(key, None)
        if complete:
            self._lacking_s.pop(key, None)
        elif before is None or before.upto != mark.upto:
            self._lacking_s[key] = now_s
        else:
            self._lacking_s.setdefault(key, now_s)

    def is_stored(self, record: Record) -> bool:
        """Whether the hub has said that it has the whole record."""
        mark = self._marks.get(record.key)
        return mark is not None and mark.covers(record.seq0, record.seq1)

    def due(self, now_s: float) -> list[Key]:
        """Where something may be lacking for good."""
        return [key for key, since_s in self._lacking_s.items() if now_s - since_s >= self._wait_s.get(key, HOLE_S)]

    def is_told(self, key: Key) -> bool:
        """Whether a gap record was sent since the watermark has moved."""
        return key in self._wait_s

    def close(self, key: Key, lowest_held: int | None, now_s: float) -> Range | None:
        """The numbers to call a gap, given the lowest that the device still holds; None if nothing is lacking."""
        mark = self._marks.get(key)
        hole = mark.hole(lowest_held) if mark is not None else None
        if hole is None:
            self._lacking_s.pop(key, None)
        else:
            self._lacking_s[key] = now_s
            self._wait_s[key] = min(2 * self._wait_s.get(key, HOLE_S / 2), LONGEST_S)
        return hole
