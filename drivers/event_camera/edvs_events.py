"""Bytes of an eDVS to events. The stream has no checksum: synchronisation is confirmed over several events.

An event is ``1yyyyyyy pxxxxxxx`` and a time in microseconds, big-endian: absent, 16, 24 or 32 bits of it, or the step
since the last event in 1 to 4 groups of 7 bits, of which only the last has bit 7 set. Source: iniVation eDVS4337 user
guide, event formats E0 to E4.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from drivers.lib.framing import U8, Offsets

Time: TypeAlias = Literal["none", "delta", "16", "24", "32"]
"""What follows the two address bytes."""

BACK = 8
"""So many events are held until others follow or the line is quiet: a loss is noticed a few events too late."""
REGION_BYTES = 512
"""A search for synchronisation looks at so many places at once."""
QUIET_EVENTS = 4
"""So many events in step, up to the last byte before a pause of the line, are worth as much as a run."""
MAX_DELTA_BYTES = 4
NEVER = 1 << 60
"""Longer than any run takes."""
LOW_BITS = np.uint8(0x7F)


@dataclass(frozen=True, slots=True)
class Events:
    """(n,) arrays of one call, in stream order."""

    x: U8
    y: U8
    on: U8
    ticks: Offsets
    """The event's time field in us (modulo 2**bits), or its step; zeros without a time."""
    ends: Offsets
    """Stream position just behind each event, counted from the first byte ever fed."""
    after_loss: bool
    """Bytes were given up between the last event of an earlier call and the last event of this one."""


class EventScanner:
    """Incremental: any chunking of a stream gives the same events. Keeps a few hundred bytes between calls.

    Out of step is an address byte without its bit 7, or a time step that is too long. A place is in step again when
    a run of events from there is right; of several such places the one whose run takes the least time is taken, since
    a stream read from a wrong place shows wild times. A long step alone, with nothing wrong around it, is a pause.
    """

    def __init__(self, time: Time) -> None:
        self.skipped_bytes = 0
        """Bytes given up because they belong to no event."""
        self.position = 0
        """Bytes fed so far."""
        self._time = time
        self._bytes = {"none": 2, "delta": 3, "16": 4, "24": 5, "32": 6}[time]
        self._longest = 2 + MAX_DELTA_BYTES if time == "delta" else self._bytes
        bits = {"none": 0, "delta": 28, "16": 16, "24": 24, "32": 32}[time]
        self._mask = (1 << bits) - 1
        self._max_step = min(1_000_000, 1 << bits >> 2)
        # Without a time only bit 7 speaks, and read from a wrong place it is the polarity; a step may be an address.
        self._confirm = {"none": 32, "delta": 24}.get(time, 12)
        self._judge_bytes = (self._confirm + 2) * self._longest
        self._window = BACK * self._longest
        self._synced = False
        self._at_start = True
        self._rest = np.zeros(0, np.uint8)

    @property
    def modulus(self) -> int | None:
        """Where the time field wraps; None for formats without one."""
        return None if self._time in ("none", "delta") else self._mask + 1

    def feed(self, chunk: bytes, quiet: bool = False) -> Events:
        """The events that these bytes complete and confirm. ``quiet``: the line has paused, so nothing is held back.

        A pause of the line falls between two events: what is then in the buffer ends with a whole event.
        """
        data = np.concatenate([self._rest, np.frombuffer(chunk, np.uint8)])
        origin = self.position - len(self._rest)
        self.position += len(chunk)
        even = self._even(data) if self._synced and not quiet else None
        if even is not None:
            self._rest = data[even.size :].copy()
            return self._even_events(even, origin)
        skipped_before = self.skipped_bytes
        taken = [np.zeros(0, np.int64)]
        at, going = 0, True
        while going:
            if not self._synced:
                at = self._enter(data, at, quiet)
            if not self._synced:
                break
            starts = self._chain(data, at)
            wrong = self._first_wrong(data, starts)
            if wrong is None:
                kept = len(starts) if quiet else max(0, len(starts) - BACK)
                at = self._behind(data, starts, kept, at)
                going = False
            else:
                kept, at, going = self._repair(data, starts, wrong, quiet)
            taken.append(starts[:kept])
        self._rest = data[at:].copy()
        return self._events(data, np.concatenate(taken), origin, self.skipped_bytes > skipped_before)

    def _even(self, data: U8) -> U8 | None:
        """What nearly all reads of a busy scene are: events of one size, all right, to the end. (n, size) of them.

        None for everything else, which takes the long way.
        """
        size = self._bytes
        whole = len(data) // size
        if whole <= BACK:
            return None
        table = data[: whole * size].reshape(whole, size)
        right = bool((table[:, 0] >= 0x80).all())
        if right and self._time == "delta":
            right = bool((table[:, 2] >= 0x80).all())
        elif right and self._time != "none":
            ticks = self._even_ticks(table)
            right = bool((((ticks[1:] - ticks[:-1]) & self._mask) <= self._max_step).all())
        return table[: whole - BACK] if right else None

    def _even_ticks(self, table: U8) -> Offsets:
        ticks = np.zeros(len(table), np.int64)
        if self._time == "delta":
            ticks += table[:, 2] & LOW_BITS
            return ticks
        for place in range(2, self._bytes):
            ticks = (ticks << 8) | table[:, place]
        return ticks

    def _even_events(self, table: U8, origin: int) -> Events:
        ends = origin + self._bytes * np.arange(1, len(table) + 1)
        x, y, on = table[:, 1] & LOW_BITS, table[:, 0] & LOW_BITS, table[:, 1] >> np.uint8(7)
        return Events(x, y, on, self._even_ticks(table), ends, after_loss=False)

    def _enter(self, data: U8, at: int, quiet: bool) -> int:
        """Where a run of right events begins; if there is none yet, where the search must go on with more bytes."""
        end = max(at, len(data) - self._judge_bytes)
        found = at
        if self._at_start and end > at:
            # A camera that was just started begins with an event; only a stream joined later must be searched.
            self._synced = self._best_run(data, at, at + 1) is not None
            self._at_start = False
        # What lies within the window behind a place has a say, so all of it must be there: reads may end anywhere.
        while found + self._window < end and not self._synced:
            region_end = min(found + REGION_BYTES, end - self._window)
            best = self._entry(data, found, region_end)
            self._synced = best is not None
            found = best if best is not None else region_end
        if quiet and not self._synced:
            for place in range(found, len(data) - QUIET_EVENTS * self._bytes + 1):
                if self._ends_whole(data, self._chain(data, place)):
                    self._synced = True
                    found = place
                    break
        self.skipped_bytes += found - at
        return found

    def _repair(self, data: U8, starts: Offsets, wrong: int, quiet: bool) -> tuple[int, int, bool]:
        """What to do about event ``wrong``: events to take, where to go on, and whether that can be done now."""
        place = int(starts[wrong])
        search_end = place + 2 * self._longest
        if search_end + self._judge_bytes > len(data):
            if not quiet:
                kept = max(0, wrong - BACK)
                return kept, int(starts[kept]), False
            if self._ends_whole(data, starts):
                return len(starts), len(data), False
            found = None
        elif self._best_run(data, place, place + 1) is not None:
            # With events that fit together around it, the one before is the broken one; else this is a pause.
            broken = wrong >= 2 and self._first_wrong(data, starts[[wrong - 2, wrong]]) is None
            kept, found = wrong - broken, place
        else:
            trusted = starts[max(0, wrong - BACK) :][:1]
            tick = int(self._ticks(data, trusted)[0])
            found = self._best_run(data, int(trusted[0]) + 1, search_end, tick)
            if found is not None:
                kept = int(np.count_nonzero(self._next(data, starts[:wrong]) <= found))
        if found is None:
            self._synced = False
            return wrong, place, True
        self.skipped_bytes += found - (int(starts[kept]) if found > place or kept < wrong else place)
        return kept, found, True

    def _entry(self, data: U8, first: int, end: int) -> int | None:
        """The first of the places ``first .. end - 1`` from which a run goes on that is not far slower than the runs
        from the window behind it."""
        run, taken = self._runs(data, first, end + self._window)
        if not run[: end - first].any():
            return None
        taken = np.where(run, taken, NEVER)
        least = np.lib.stride_tricks.sliding_window_view(taken, self._window + 1).min(axis=1)
        good = run[: end - first] & (taken[: end - first] <= 4 * least + self._confirm)
        return first + int(good.argmax()) if good.any() else None

    def _best_run(self, data: U8, first: int, end: int, since_tick: int | None = None) -> int | None:
        """Offset in ``first .. end - 1`` of the first of the runs of right events that take the least time.

        ``since_tick``: time field of an event not long before them; the way from there to them counts too.
        """
        run, taken = self._runs(data, first, end)
        if not run.any():
            return None
        if since_tick is not None and self._time != "delta":
            taken = taken + ((self._ticks(data, np.arange(first, end)) - since_tick) & self._mask)
        least = int(taken[run].min())
        return first + int(np.argmax(run & (taken <= 4 * least + self._confirm)))

    def _runs(self, data: U8, first: int, end: int) -> tuple[np.ndarray, Offsets]:
        """Whether a run of right events begins at each of the places ``first .. end - 1``, and the time it takes."""
        places = np.arange(first, min(len(data), end + self._judge_bytes))
        size = len(places)
        whole = self._next(data, places) <= first + size
        nexts = np.append(np.where(whole, self._next(data, places) - first, size), size)
        ticks = np.zeros(size + 1, np.int64)
        right = np.zeros(size + 1, np.bool_)
        ticks[:-1][whole] = self._ticks(data, places[whole])
        right[:-1][whole] = self._marked(data, places[whole])
        steps = ticks if self._time == "delta" else (ticks[nexts] - ticks) & self._mask
        right[:-1] &= right[nexts[:-1]] & (steps[:-1] <= self._max_step)
        at = np.arange(end - first)
        run, taken = right[at], steps[at]
        for _ in range(self._confirm - 1):
            at = nexts[at]
            run, taken = run & right[at], taken + steps[at]
        return run, taken

    def _ends_whole(self, data: U8, starts: Offsets) -> bool:
        """Whether these are enough events, all marked, up to the last byte."""
        if len(starts) < QUIET_EVENTS or self._behind(data, starts, len(starts), 0) != len(data):
            return False
        return bool(self._marked(data, starts).all())

    def _behind(self, data: U8, starts: Offsets, kept: int, at: int) -> int:
        """Offset behind the first ``kept`` of these events, which begin at ``at``."""
        if not kept:
            return at
        return int(starts[kept]) if kept < len(starts) else int(self._next(data, starts[-1:])[0])

    def _events(self, data: U8, starts: Offsets, origin: int, after_loss: bool) -> Events:
        second = data[starts + 1]
        ends = self._next(data, starts)
        return Events(
            second & LOW_BITS,
            data[starts] & LOW_BITS,
            second >> np.uint8(7),
            self._ticks(data, starts),
            origin + ends,
            after_loss,
        )

    def _next(self, data: U8, starts: Offsets) -> Offsets:
        """Offset behind the event that begins at each start; beyond the data where the event is not whole."""
        return starts + self._bytes if self._time != "delta" else self._ends_of_deltas(data, starts)

    def _ends_of_deltas(self, data: U8, starts: Offsets) -> Offsets:
        """Where a step event that began at each start would end: behind the first group with bit 7 set."""
        ends = starts + self._bytes
        open_end = np.arange(len(starts))
        for _ in range(MAX_DELTA_BYTES - 1):
            last = ends[open_end] - 1
            within = last < len(data)
            # No last group in four: either the rest has yet to come, or this is no event, which ``_marked`` will tell.
            ended = np.zeros(len(open_end), np.bool_)
            ended[within] = data[last[within]] >= 0x80
            open_end = open_end[~ended]
            if not len(open_end):
                break
            ends[open_end] += 1
        return ends

    def _ticks(self, data: U8, starts: Offsets) -> Offsets:
        ticks = np.zeros(len(starts), np.int64)
        if self._time == "delta":
            last = self._next(data, starts) - 1
            ticks += data[last] & LOW_BITS
            for group in range(1, MAX_DELTA_BYTES):
                more = np.flatnonzero(last - starts > group + 1)
                ticks[more] |= (data[last[more] - group] & LOW_BITS).astype(np.int64) << 7 * group
            return ticks
        for place in range(2, self._bytes):
            ticks = (ticks << 8) | data[starts + place]
        return ticks

    def _chain(self, data: U8, at: int) -> Offsets:
        """Starts of all whole events from ``at`` on."""
        if self._time != "delta":
            return np.arange(at, len(data) - self._bytes + 1, self._bytes)
        size, length, wire = self._bytes, len(data), data.tobytes()
        sizes: list[int] = []
        counts: list[int] = []
        lows: dict[int, Offsets] = {}
        start = at
        while start + size <= length:
            # A run of the shortest events, up to the first whose only group does not say that it is the last one.
            phase = (start + 2) % size
            if phase not in lows:
                lows[phase] = phase + size * np.flatnonzero(data[phase::size] < 0x80)
            found = int(lows[phase].searchsorted(start + 2))
            run = ((int(lows[phase][found]) - 2 if found < len(lows[phase]) else length) - start) // size
            start += run * size
            end = start + size
            while end < start + self._longest and (end > length or wire[end - 1] < 0x80):
                end += 1
            longer = end <= length
            sizes += (size, end - start)
            counts += (run, int(longer))
            if not longer:
                break
            start = end
        each = np.repeat(np.array(sizes, np.int64), counts)
        starts: Offsets = at + np.cumsum(each) - each
        return starts

    def _first_wrong(self, data: U8, starts: Offsets) -> int | None:
        """Index of the first event that does not follow its predecessor."""
        if not len(starts):
            return None
        wrong = ~self._marked(data, starts)
        ticks = self._ticks(data, starts)
        if self._time == "delta":
            wrong |= ticks > self._max_step
        elif self._time != "none":
            wrong[1:] |= (np.diff(ticks) & self._mask) > self._max_step
        first = int(wrong.argmax())
        return first if wrong[first] else None

    def _marked(self, data: U8, starts: Offsets) -> np.ndarray:
        """Whether these whole events can be events at all: bit 7 of the first byte; a step that ends in four groups."""
        marked: np.ndarray = data[starts] >= 0x80
        if self._time == "delta":
            marked &= data[self._next(data, starts) - 1] >= 0x80
        return marked
