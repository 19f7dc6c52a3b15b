"""Capture times of an eDVS: its time fields on CLOCK_MONOTONIC, with the wraps that nobody saw counted by the host."""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

import numpy as np

from drivers.event_camera.edvs_events import Events
from drivers.lib.clock import NS_PER_S, WINDOW_S, DeviceClock, Lasting, sent_ns
from drivers.lib.framing import Offsets, steps_from

NS_PER_TICK = 1000


@dataclass(frozen=True, slots=True)
class Arrival:
    position: int
    """Stream position behind the bytes of one read."""
    at_ns: int
    waited: bool
    """The host looked just before and saw an idle line, so these bytes have just come; others may have waited."""


class EventClock:
    """Time fields to CLOCK_MONOTONIC: the device's clock by regression, its wraps counted with the host's help."""

    def __init__(self, scanner_modulus: int | None, timed: bool, baud: int) -> None:
        self._modulus = scanner_modulus
        self._timed = timed
        self._baud = baud
        self._clock = DeviceClock(NS_PER_S / NS_PER_TICK)
        self._lasting = Lasting()
        self._after_loss = False
        self._arrivals: deque[Arrival] = deque()
        self._tick: int | None = None
        self._last_ns = 0

    def arrived(self, arrival: Arrival) -> None:
        """Note a read; called before the events that it completes are placed."""
        self._arrivals.append(arrival)

    def place(self, events: Events) -> Offsets:
        """Capture times (n,) of n >= 1 events; they never go back."""
        arrivals = list(self._arrivals)
        positions = [arrival.position for arrival in arrivals]
        end = int(events.ends[-1])
        if self._timed:
            t_ns = self._by_device(events, arrivals[: bisect_left(positions, end) + 1])
        else:
            which = np.searchsorted(np.array(positions), events.ends)
            at_ns = np.array([arrival.at_ns for arrival in arrivals])[which]
            behind = np.array(positions)[which] - events.ends
            t_ns = np.maximum.accumulate(at_ns - sent_ns(0, -behind, self._baud))
        while len(self._arrivals) > 1 and self._arrivals[0].position <= end:
            self._arrivals.popleft()
        # Of the first events a broken time field may say that they are hours old.
        oldest_ns = self._last_ns or int(t_ns[-1]) - WINDOW_S * NS_PER_S
        if t_ns[0] < oldest_ns:
            t_ns = np.maximum(t_ns, oldest_ns)
        self._last_ns = int(t_ns[-1])
        return t_ns

    def _by_device(self, events: Events, arrivals: list[Arrival]) -> Offsets:
        """Ascending, since no step is negative."""
        steps = events.ticks
        if self._modulus is not None:
            steps = steps_from(int(steps[0]) if self._tick is None else self._tick, steps) & (self._modulus - 1)
        ticks = np.cumsum(steps)
        ticks += int(events.ticks[0]) if self._tick is None else self._tick
        self._after_loss |= events.after_loss
        for arrival in arrivals[:-1]:
            if arrival.waited:
                ticks += self._unseen(events, ticks, arrival)
        if unseen := self._unseen(events, ticks, arrivals[-1]):
            ticks += unseen
        self._tick = int(ticks[-1])
        left_ns = self._left_ns(arrivals[-1], int(events.ends[-1]))
        end_ns = int(self._clock.update(ticks[-1:], left_ns)[0])
        back_ns = (ticks[-1] - ticks) * (NS_PER_TICK * (1 + self._clock.drift))
        t_ns: Offsets = end_ns - np.rint(back_ns, out=back_ns).astype(np.int64)
        return t_ns

    def _left_ns(self, arrival: Arrival, end: int) -> Offsets:
        """(1,) when the byte before stream position ``end``, which came with ``arrival``, left the camera."""
        return sent_ns(arrival.at_ns, np.array([arrival.position - end]), self._baud)

    def _unseen(self, events: Events, ticks: Offsets, arrival: Arrival) -> int:
        """Ticks that the time fields did not show: whole wraps in a pause, or steps that were lost.

        They show as a lateness of the last event of ``arrival``, but so does a host that was busy while events waited
        for it. That one goes away.
        """
        last = int(np.searchsorted(events.ends, arrival.position, side="right")) - 1
        if last < 0:
            return 0
        left_ns = self._left_ns(arrival, int(events.ends[last]))
        late_ns = float(self._clock.late_ns(ticks[last : last + 1], left_ns)[0])
        lasting_ns = self._lasting.update(late_ns, int(left_ns[0]))
        if arrival.waited:
            lasting_ns = late_ns
        if lasting_ns is None:
            return 0
        if self._modulus is not None:
            return self._modulus * round(lasting_ns / (self._modulus * NS_PER_TICK))
        lost = max(0, round(lasting_ns / NS_PER_TICK)) if self._after_loss else 0
        self._after_loss = False
        return lost
