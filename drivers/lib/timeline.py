"""Gives samples their capture time and tells how many are missing before each, with or without a device clock."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.lib.clock import NS_PER_S, DeviceClock
from drivers.lib.framing import Offsets, steps_from

GAP_NS = 500_000_000
"""Without a device clock, a pause this long is a loss and not a late delivery."""
PUNCTUAL_NS = 20_000_000
"""Deliveries differ by this much in how late they are, without a loss."""
CLOCK_SLACK_NS = 1_000_000_000
"""The device's clock may claim this much more lost time than the host saw pass."""


def paused(elapsed_ns: int, rows: int, rate_hz: float) -> int:
    """Rows missing in ``elapsed_ns`` between the newest rows of two deliveries, of which the second brought ``rows``.

    0 for less than a pause. Both are on time: of a late delivery the newest row is, as nothing is left behind it.
    """
    if elapsed_ns <= GAP_NS:
        return 0
    missing = round(elapsed_ns * rate_hz / NS_PER_S) - rows
    return missing if missing * NS_PER_S >= PUNCTUAL_NS * rate_hz else 0


@dataclass(frozen=True, slots=True)
class Rows:
    """Complete samples that a parser found, one array element each, in stream order."""

    values: npt.NDArray[Any]
    """(n, channels), integer."""
    ticks: Offsets
    """(n,) the device's clock or counter at the sample, in 0 .. modulus - 1; -1 where it is not known."""
    left_ns: Offsets
    """(n,) CLOCK_MONOTONIC at which the sample's first byte left the device, late by the delivery."""
    missing: Offsets
    """(n,) samples missing before this one, as a frame counter or the damage in the byte stream tells."""


class Timeline:
    """Capture times and losses of one device since it was opened.

    Where the first samples carry ticks, times are those of the device's clock and losses are the holes in them.
    Otherwise the count of samples at the nominal rate is the clock, and losses are what the damage took, pauses, and a
    lateness of all samples that does not go away.
    """

    def __init__(self, rate_hz: float, tick_hz: float = 1, modulus: int = 1) -> None:
        """``tick_hz`` and ``modulus``: rate of the device's counter, and the value at which it wraps."""
        self._rate_hz = rate_hz
        self._tick_hz = tick_hz
        self._modulus = modulus
        self._period = tick_hz / rate_hz
        self._clock: DeviceClock | None = None
        self._timed = False
        self._count = 0
        self._rows_per_check = max(10, round(rate_hz))
        self._late_ns = np.zeros(0)
        self._last_tick = 0.0
        self._last_left_ns = 0
        self._captured_ns = 0

    def place(self, rows: Rows) -> tuple[Offsets, Offsets]:
        """Capture times (n,) and losses (n,) of n >= 1 rows: by the device's clock if it sends it, else by count."""
        if self._clock is None:
            self._timed = bool((rows.ticks >= 0).any())
            self._clock = DeviceClock(self._tick_hz if self._timed else self._rate_hz)
            first = int(np.argmax(rows.ticks >= 0))
            self._last_tick = float(rows.ticks[first]) - (first + 1) * self._period
            self._last_left_ns = self._captured_ns = int(rows.left_ns[0])
        if self._timed:
            ticks, lost = self._by_device_time(rows)
        else:
            ticks, lost = self._by_count(rows, self._clock)
        self._last_left_ns = int(rows.left_ns[-1])
        t_ns = self._clock.update(ticks, rows.left_ns)
        self._captured_ns = int(t_ns[-1])
        return t_ns, lost

    def lost(self, by_time: Offsets, missing: Offsets, elapsed_ns: Offsets) -> Offsets:
        """Losses before each row of a device with a clock: ``by_time`` (n,), from the holes in the device's time.

        For devices that count their frames too: ``missing`` (n,) as in ``Rows``, ``elapsed_ns`` (n,) of the host since
        the row before was captured.
        """
        return by_time

    def _by_device_time(self, rows: Rows) -> tuple[Offsets, Offsets]:
        """A sample without usable ticks is taken to follow its predecessor without a loss."""
        half = self._modulus / 2
        steps = (steps_from(self._last_tick, self._whole(rows.ticks)) + half) % self._modulus - half
        # The newest row of a late delivery is on time, so over the whole batch the host tells how often it wrapped; the
        # row before which it did is the one with an odd step.
        passed = (int(rows.left_ns[-1]) - self._captured_ns) * self._tick_hz / NS_PER_S
        wraps = round((passed - float(steps.sum())) / self._modulus)
        odd = np.abs(steps - self._period)
        if wraps > 0:
            steps[int(odd.argmax())] += self._modulus * wraps
        ticks = self._last_tick + np.cumsum(steps)
        self._last_tick = float(ticks[-1])
        whole_ticks = np.rint(ticks).astype(np.int64)
        if wraps <= 0 and 2 * odd.max() < self._period and not rows.missing.any():
            return whole_ticks, np.zeros(len(ticks), np.int64)
        by_time = np.rint(steps / self._period).astype(np.int64) - 1
        # A clock that is being set jumps: beyond what the host saw pass, the host's own time is the better witness.
        # It saw pass what lies between this arrival and the capture of the row before, however late that one came.
        step_ns = steps * (NS_PER_S / self._tick_hz)
        captured_ns = self._captured_ns + np.cumsum(step_ns).astype(np.int64)
        elapsed_ns: Offsets = rows.left_ns - np.minimum(
            np.append(self._captured_ns, captured_ns[:-1]), np.append(self._last_left_ns, rows.left_ns[:-1])
        )
        by_host = np.rint(elapsed_ns * self._rate_hz / NS_PER_S).astype(np.int64) - 1
        by_time = np.maximum(np.where(step_ns > elapsed_ns + CLOCK_SLACK_NS, by_host, by_time), 0)
        lost = np.maximum(self.lost(by_time, rows.missing, elapsed_ns), 0)
        return whole_ticks, lost

    def _whole(self, ticks: Offsets) -> npt.NDArray[np.float64]:
        """(n,) ticks where all are known: the unknown ones follow their predecessors by the nominal period."""
        if ticks.min() >= 0:
            return ticks.astype(np.float64)
        known = np.concatenate([[True], ticks >= 0])
        index = np.arange(len(known))
        source = np.maximum.accumulate(np.where(known, index, 0))
        filled: npt.NDArray[np.float64] = np.concatenate([[self._last_tick], ticks])[source]
        filled += (index - source) * self._period
        return filled[1:]

    def _by_count(self, rows: Rows, clock: DeviceClock) -> tuple[Offsets, Offsets]:
        """Losses from damage and pauses at once; those that left no trace when all rows have come late for a second."""
        lost: Offsets = rows.missing.copy()
        if self._count:
            lost[0] += paused(int(rows.left_ns[-1]) - self._last_left_ns, int((1 + lost).sum()), self._rate_hz)
        late_ns = clock.late_ns(self._count + np.cumsum(1 + lost), rows.left_ns)
        self._late_ns = np.concatenate([self._late_ns, late_ns])[-self._rows_per_check :]
        slipped = int(self._late_ns.min() * self._rate_hz / NS_PER_S + 0.25)
        if slipped > 0 and len(self._late_ns) == self._rows_per_check:
            lost[0] += slipped
            self._late_ns = self._late_ns[:0]
        ticks: Offsets = self._count + np.cumsum(1 + lost)
        self._count = int(ticks[-1])
        return ticks, lost
