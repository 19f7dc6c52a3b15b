"""Maps a device's own clock to CLOCK_MONOTONIC, from arrival times that are late but never early."""

from collections import deque
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

NS_PER_S = 1_000_000_000
BITS_PER_BYTE_8N1 = 10

WINDOW_S = 60
"""The fit looks back this far: long enough for a few ppm, short enough to follow a warming crystal."""
MIN_SPAN_S = 5
"""Below this span the device is taken to run at its nominal rate."""
MAX_DRIFT = 0.03
"""Crystals drift by tens of ppm, RC oscillators by a percent, and one PDM microphone runs at 15 625 Hz for 16 000."""
EARLY_NS = 50_000_000
LATE_NS = 500_000_000
"""An arrival outside prediction - EARLY .. + LATE is an outlier: a broken counter value, or a stalled host."""
RESTART_AFTER = 8
"""So many updates in a row that are outliers mean that the device's clock itself was set or restarted."""
STALLED_NS = 30 * NS_PER_S
"""Unless its time has run on and they are only late: what a host that was busy finds waiting is late too. Nothing waits
for so long that is not worked off; a counter that stood still for a while stays late for ever."""
LASTING_SPAN_NS = NS_PER_S
LASTING_AGREES_NS = 10_000_000
"""What is worked off at 1.01 times the device's pace loses more than this of its lateness in a second."""


def sent_ns(arrival_ns: int, bytes_after: npt.NDArray[np.int64], baud: int) -> npt.NDArray[np.int64]:
    """When a byte left the device, given that ``bytes_after`` more bytes (8N1) arrived with it or behind it."""
    return arrival_ns - bytes_after * BITS_PER_BYTE_8N1 * NS_PER_S // baud


class DeviceClock:
    """Counter values of one device in, capture times in CLOCK_MONOTONIC ns out; the output never goes back.

    Arrival = capture + offset + drift + delay with delay >= 0, so the least delayed arrival of each second carries the
    information: the line is laid along the lower edge of those (S. Moon, P. Skelly and D. Towsley, "Estimation and
    removal of clock skew from network delay measurements", 1999). For a device without a counter, the number of samples
    at the nominal rate is the counter, and the arrival is the time at which the sample's first byte left the device
    (``sent_ns``).
    """

    def __init__(self, tick_hz: float) -> None:
        """``tick_hz``: nominal rate of the counter, whose wraps are already undone."""
        self._tick_ns = NS_PER_S / tick_hz
        self.restarts = 0
        """How often the mapping was begun anew because the device's clock had jumped."""
        self.reset()

    def reset(self) -> None:
        """Forget everything but the count of restarts; also allows the output to start anywhere."""
        self._output: tuple[int, int] | None = None
        self._start_fit()

    @property
    def drift(self) -> float:
        """How much faster CLOCK_MONOTONIC runs than the device's nominal time: 1e-6 is one ppm."""
        return self._slope

    def late_ns(self, ticks: npt.NDArray[np.int64], arrival_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """How much later than the least delayed ones samples arrived (negative: earlier than ever); changes nothing.

        0 before the first ``update``.
        """
        if not self._points:
            return np.zeros(len(ticks))
        device_ns = ticks.astype(np.float64) * self._tick_ns
        late: npt.NDArray[np.float64] = arrival_ns - device_ns - self._offset(device_ns)
        return late

    def update(self, ticks: npt.NDArray[np.int64], arrival_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Capture times of samples with counter values ``ticks`` that arrived at ``arrival_ns``, both (n,), n >= 1.

        Results never lie behind their arrival, nor before an earlier result.
        """
        device_ns = ticks.astype(np.float64) * self._tick_ns
        if self._output is not None and device_ns[0] < self._output[1] - EARLY_NS:
            self._set_back = True
        self._learn(device_ns, arrival_ns)
        mapped = np.rint(device_ns + self._offset(device_ns)).astype(np.int64)
        if self._output is not None:
            last_ns, last_device_ns = self._output
            # A better estimate may lie earlier than the last one: then run at half speed instead of stopping.
            mapped = np.maximum(mapped, last_ns + (device_ns - last_device_ns).astype(np.int64) // 2)
            mapped = np.maximum(np.minimum(mapped, arrival_ns), last_ns)
        else:
            # A clock that was set while its first samples waited in a buffer tells nothing of how old they are.
            mapped = np.clip(mapped, arrival_ns - WINDOW_S * NS_PER_S, arrival_ns)
        mapped = np.maximum.accumulate(mapped)
        self._output = int(mapped[-1]), int(device_ns[-1])
        return mapped

    def _start_fit(self) -> None:
        self._points: deque[tuple[int, int]] = deque(maxlen=WINDOW_S + 1)
        self._second = 0
        self._slope = 0.0
        self._anchor = 0
        self._level = 0.0
        self._strange = 0
        self._strange_ns = 0
        self._set_back = False

    def _offset(self, device_ns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return self._level + self._slope * (device_ns - self._anchor)

    def _learn(self, device_ns: npt.NDArray[np.float64], arrival_ns: npt.NDArray[np.int64]) -> None:
        """Take the least delayed sample of this batch into the fit, unless it is an outlier."""
        excess = arrival_ns - device_ns
        if self._points:
            excess = excess - self._offset(device_ns)
            usual = (excess > -EARLY_NS) & (excess < LATE_NS)
            if not usual.any():
                if not self._strange:
                    self._strange_ns = int(arrival_ns[0])
                self._strange += 1
                only_late = not self._set_back and bool((excess >= LATE_NS).all())
                stalled = only_late and int(arrival_ns[-1]) - self._strange_ns < STALLED_NS
                if self._strange < RESTART_AFTER or stalled:
                    return
                self.restarts += 1
                self._start_fit()
                excess = arrival_ns - device_ns
            else:
                self._strange, self._set_back = 0, False
                excess = np.where(usual, excess, np.inf)
        best = int(np.argmin(excess))
        self._add(int(device_ns[best]), int(arrival_ns[best]))

    def _add(self, device_ns: int, arrival_ns: int) -> None:
        second = device_ns // NS_PER_S
        point = device_ns, arrival_ns - device_ns
        if self._points and second == self._second:
            kept_at, kept = self._points[-1]
            if point[1] - kept >= self._slope * (device_ns - kept_at):
                return
            self._points[-1] = point
        elif not self._points or device_ns > self._points[-1][0]:
            self._points.append(point)
            self._second = second
            while self._points[0][0] < device_ns - WINDOW_S * NS_PER_S:
                self._points.popleft()
            self._fit()
        else:
            return
        self._level = min(self._level, point[1] - self._slope * (device_ns - self._anchor))

    def _fit(self) -> None:
        """The line below all points to which most of them are near: the edge of their lower hull in the middle.

        So what came late does not count, as long as less than half of the seconds were late throughout.
        """
        first, last = self._points[0][0], self._points[-1][0]
        if last - first >= MIN_SPAN_S * NS_PER_S:
            middle = self._points[len(self._points) // 2][0]
            begin, end = next(edge for edge in pairwise(_lower_hull(self._points)) if edge[1][0] >= middle)
            self._slope = min(max((end[1] - begin[1]) / (end[0] - begin[0]), -MAX_DRIFT), MAX_DRIFT)
        self._anchor = last
        self._level = min(late - self._slope * (at - last) for at, late in self._points)


def _lower_hull(points: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of points in ascending order of x."""
    hull: list[tuple[int, int]] = []
    for x, y in points:
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-2:]
            if (bx - ax) * (y - ay) > (by - ay) * (x - ax):
                break
            hull.pop()
        hull.append((x, y))
    return hull


class Lasting:
    """Tells a lateness that stays from that of a backlog, which shrinks while it is worked off."""

    def __init__(self) -> None:
        self._begin_ns: int | None = None
        self._least_ns = self._before_ns = np.inf

    def update(self, late_ns: float, now_ns: int) -> float | None:
        """The least lateness of two spans of 1 s, if both had the same one and this update ends the second; or None."""
        if self._begin_ns is None:
            self._begin_ns = now_ns
        self._least_ns = min(self._least_ns, late_ns)
        if now_ns - self._begin_ns < LASTING_SPAN_NS:
            return None
        least_ns, before_ns = self._least_ns, self._before_ns
        self._begin_ns, self._before_ns, self._least_ns = now_ns, least_ns, np.inf
        return min(least_ns, before_ns) if abs(least_ns - before_ns) <= LASTING_AGREES_NS else None
