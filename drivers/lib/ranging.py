"""What distance sensors have in common: a value for "no target", framed streams, questions and answers."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from drivers.lib.clock import NS_PER_S, WINDOW_S, sent_ns
from drivers.lib.framing import U8, FrameFormat, FrameScanner, Offsets, steps_from
from drivers.lib.framing_variable import Spacing
from drivers.lib.timeline import GAP_NS, Rows, Timeline
from drivers.lib.watch import STUCK_S, Still
from drivers.packet import SensorCounters

NO_TARGET = 0
"""Stands in a distance column for everything that is no distance: nothing in range, or a value the sensor cannot mean.
No sensor measures 0, all have a blind zone. Each one is counted in ``out_of_range``."""

Values: TypeAlias = npt.NDArray[np.int32]
"""(n, channels), the distance in column 0."""


class RangeParser:
    """Fixed-length frames to rows, a row from each."""

    def __init__(
        self,
        frame_format: FrameFormat,
        baud: int,
        decode: Callable[[U8], Values],
        is_target: Callable[[Values], npt.NDArray[np.bool_]],
        ticks: Callable[[U8], Offsets] | None = None,
    ) -> None:
        """``decode``: (n, length) bytes to what they say; ``is_target``: which (n,) of that are distances.

        ``ticks``: (n, length) bytes to the (n,) sensor's own times in them, where it has a clock.
        """
        self._scanner = FrameScanner(frame_format)
        self._spacing = Spacing(frame_format.length)
        self._baud = baud
        self._decode = decode
        self._is_target = is_target
        self._ticks = ticks
        self._frames = 0
        self._out_of_range = 0

    @property
    def row_bytes(self) -> int:
        return self._scanner.format.length

    def tally(self) -> Offsets:
        scanner = self._scanner
        return np.array([self._frames, scanner.bad_checksums, scanner.skipped_bytes, self._out_of_range])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        length = self.row_bytes
        frames = self._scanner.feed(chunk)
        count = len(frames.ends)
        values = self._decode(frames.data)
        nothing = ~self._is_target(values)
        values[nothing, 0] = NO_TARGET
        self._out_of_range += int(np.count_nonzero(nothing))
        skipped_before = frames.ends - length * (self._frames + 1 + np.arange(count))
        self._frames += count
        left_ns = sent_ns(arrival_ns, self._scanner.position - frames.ends + length, self._baud)
        missing = self._spacing.missing(frames.ends, skipped_before, np.ones(count, np.bool_))
        ticks = np.full(count, -1, np.int64) if self._ticks is None else self._ticks(frames.data)
        return Rows(values, ticks, left_ns, missing)


class ArrivalTimeline(Timeline):
    """For sensors that measure when they please: a row is captured when it leaves the sensor.

    Of rows that come at once, since the host was busy, only the newest can have left just now; the others did so a
    period apart before it.
    Lost are the rows that the nominal rate would have put where damage, or a pause of at least 0.5 s, was seen.
    """

    def __init__(self, rate_hz: float) -> None:
        super().__init__(rate_hz)
        self._rate = rate_hz
        self._period_ns = NS_PER_S / rate_hz
        self._gap_ns = max(GAP_NS, round(3 * self._period_ns))
        self._left_ns: int | None = None

    def place(self, rows: Rows) -> tuple[Offsets, Offsets]:
        behind = np.cumsum(np.append(0, 1 + rows.missing[:0:-1]))[::-1]
        left_ns = np.minimum(rows.left_ns, rows.left_ns[-1] - np.rint(behind * self._period_ns).astype(np.int64))
        # What waits for the first read is no older than a clock looks back.
        oldest_ns = max(0, int(left_ns[0]), int(left_ns[-1]) - WINDOW_S * NS_PER_S)
        last_ns = oldest_ns if self._left_ns is None else self._left_ns
        t_ns = np.maximum(np.maximum.accumulate(left_ns), last_ns)
        elapsed_ns = steps_from(last_ns, t_ns)
        by_time = np.maximum(np.rint(elapsed_ns * self._rate / NS_PER_S).astype(np.int64) - 1, 0)
        lost: Offsets = np.where((rows.missing > 0) | (elapsed_ns >= self._gap_ns), by_time, 0)
        self._left_ns = int(t_ns[-1])
        return t_ns, lost


class StillTarget:
    """Notes a distance that never changes: a wall, or a sensor that is stuck. Nobody else can tell them apart."""

    def __init__(self, rate_hz: float, counters: SensorCounters) -> None:
        self._still = Still(
            "still",
            f"the distance has not changed by one step for {STUCK_S} s: nothing moves, or the sensor is stuck",
            rate_hz,
            counters,
        )

    def update(self, values: npt.NDArray[Any]) -> None:
        """(n, channels) rows; those without a target tell nothing."""
        seen = values[values[:, 0] != NO_TARGET]
        if len(seen):
            self._still.update(seen)


def within(low: int, high: int) -> Callable[[Values], npt.NDArray[np.bool_]]:
    """Distances from ``low`` to ``high`` are targets."""

    def is_target(values: Values) -> npt.NDArray[np.bool_]:
        seen: npt.NDArray[np.bool_] = (values[:, 0] >= low) & (values[:, 0] <= high)
        return seen

    return is_target
