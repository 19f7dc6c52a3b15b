"""What one sensor measured, by capture time, for as long as a window over several sensors may ask for it."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.packet import EVENT, Packet, SensorInfo
from models.base import BadModel, Window
from models.window_events import MOST_EVENTS, NS_PER_US

MOST_WINDOWS = 8
"""Of samples as many values are kept as of events, but no fewer windows than this: a clock may stand still."""

Events = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Share:
    """What one sensor has of a window over several."""

    window: Window | None
    """None where it has nothing; samples that are missing hold the last value."""
    known: npt.NDArray[np.bool_]
    """(samples,) which of them were measured; empty for events, which cannot be seen to be missing."""
    coverage: float
    """0..1: part of the window for which there are data."""
    lost: int = 0
    """Samples (of events: as far as known) that are missing, where there are any at all."""


@dataclass(slots=True)
class _Past:
    """What a track counts, and up to where it was shown."""

    span_ns: tuple[int, int] = (0, 0)
    """The window that was decided last."""
    late: int = field(default=0)


class SampleTrack:
    """Of a sensor with samples at a rate; one thread calls it."""

    def __init__(self, info: SensorInfo, samples: int) -> None:
        """``samples``: length of a window."""
        self.info = info
        self.samples = samples
        self._dt_ns = round(1e9 / info.rate_hz)
        self._chunks: deque[tuple[Packet, bool]] = deque()
        """Packets, and whether each follows the one before with nothing missing but what it says."""
        self._held = 0
        """Samples in them."""
        self._most = max(MOST_EVENTS // len(info.channels), MOST_WINDOWS * samples)
        self._next_seq: int | None = None
        self._past = _Past()
        self.end_ns: int | None = None
        """Capture time up to which all is known."""

    @property
    def begin_ns(self) -> int | None:
        """Capture time of the oldest sample that is kept."""
        return self._chunks[0][0].t0_ns if self._chunks else None

    @property
    def late(self) -> int:
        """Samples that came when the window to which they belong had been decided, or were too many to keep."""
        return self._past.late

    def push(self, packet: Packet) -> None:
        """Take a packet. Raises BadModel when it has other channels than the sensor's info says, or events."""
        channels = len(self.info.channels)
        if packet.dt_ns <= 0 or packet.data.ndim != 2 or packet.data.shape[1] != channels:
            raise BadModel(
                f"a packet of {packet.sensor!r} has shape {packet.data.shape} and dt {packet.dt_ns} ns, "
                f"expected (n, {channels}) samples with a period above 0"
            )
        end_ns = packet.t0_ns + packet.dt_ns * len(packet.data)
        if self.end_ns is not None and packet.t0_ns < self.end_ns - self.samples * packet.dt_ns:
            self._chunks.clear()  # another time: what was kept is not before this packet
            self._held = 0
        begin, stop = ((ns - packet.t0_ns) / packet.dt_ns for ns in self._past.span_ns)
        self._past.late += max(0, min(len(packet.data), round(stop)) - max(0, round(begin)))
        follows = packet.seq == self._next_seq and self._is_near(packet)
        self._chunks.append((packet, follows))
        self._held += len(packet.data)
        while self._held > self._most and len(self._chunks) > 1:
            self._past.late += self._drop_oldest()
        self._next_seq, self._dt_ns, self.end_ns = packet.seq + 1, packet.dt_ns, end_ns

    def _drop_oldest(self) -> int:
        count = len(self._chunks.popleft()[0].data)
        self._held -= count
        return count

    def _is_near(self, packet: Packet) -> bool:
        """Whether its time is what the samples before it and those that it lost tell: clocks are corrected little."""
        if self.end_ns is None:
            return False
        missing = (packet.t0_ns - self.end_ns) / packet.dt_ns
        return abs(missing - packet.lost) < max(2.0, self.samples * 0.01)

    def has(self, t0_ns: int) -> bool:
        """Whether all that a window from ``t0_ns`` on can get is there."""
        return self.end_ns is not None and self.end_ns >= t0_ns + (2 * self.samples - 1) * self._dt_ns // 2

    def share(self, t0_ns: int, heard_ns: int) -> Share:
        """What there is of the window from ``t0_ns`` on; ``heard_ns`` does not matter, samples tell it themselves."""
        known = np.zeros(self.samples, np.bool_)
        data: npt.NDArray[np.generic] | None = None
        behind: int | None = None
        for packet, follows in self._chunks:
            if packet.t0_ns + packet.dt_ns * len(packet.data) <= t0_ns:
                continue
            at = round((packet.t0_ns - t0_ns) / packet.dt_ns)
            if follows and behind is not None:
                at = behind + packet.lost
            behind = at + len(packet.data)
            first, stop = max(at, 0), min(behind, self.samples)
            if first >= stop:
                continue
            if data is None or data.dtype != packet.data.dtype:
                data = np.zeros((self.samples, packet.data.shape[1]), packet.data.dtype)
                known[:] = False
            data[first:stop] = packet.data[first - at : stop - at]
            known[first:stop] = True
        self._past.span_ns = t0_ns, t0_ns + self.samples * self._dt_ns
        count = int(np.count_nonzero(known))
        if data is None or not count:
            return Share(None, known, 0.0)
        if count < self.samples:
            held = np.maximum.accumulate(np.where(known, np.arange(self.samples), -1))
            data = data[np.where(held < 0, known.argmax(), held)]
        missing = self.samples - count
        return Share(Window(t0_ns, self._dt_ns, data, self.info, missing), known, count / self.samples, missing)

    def forget(self, before_ns: int) -> None:
        """Nobody will ask for what was before."""
        chunks = self._chunks
        while chunks and chunks[0][0].t0_ns + chunks[0][0].dt_ns * len(chunks[0][0].data) <= before_ns:
            self._drop_oldest()


class EventTrack:
    """Of an event camera; one thread calls it."""

    def __init__(self, info: SensorInfo, samples: int) -> None:
        """``samples``: length of a window, in microseconds."""
        self.info = info
        self._length_ns = samples * NS_PER_US
        self._chunks: deque[tuple[npt.NDArray[np.int64], Packet]] = deque()
        """Times that do not go back, and their packet."""
        self._held = 0
        """Events in them."""
        self._past = _Past()
        self.end_ns: int | None = None
        """Capture time up to which all is known."""

    @property
    def begin_ns(self) -> int | None:
        """Capture time of the oldest event that is kept, or near it."""
        return int(self._chunks[0][0][0]) if self._chunks else None

    @property
    def late(self) -> int:
        """Events that came when the window to which they belong had been decided, or were too many to keep."""
        return self._past.late

    def push(self, packet: Packet) -> None:
        """Take a packet. Raises BadModel unless it has events."""
        if packet.data.dtype != EVENT:
            raise BadModel(f"a packet of {packet.sensor!r} has {packet.data.dtype} samples, expected events")
        events: Events = packet.data
        if not len(events):
            return
        t_ns = np.maximum.accumulate(events["t_ns"].astype(np.int64))
        if self.end_ns is not None:
            if t_ns[0] < self.end_ns - self._length_ns:
                self._chunks.clear()
                self._held = 0
            else:
                t_ns = np.maximum(t_ns, self.end_ns)
        begin_ns, stop_ns = self._past.span_ns
        self._past.late += int(np.count_nonzero((t_ns >= begin_ns) & (t_ns < stop_ns)))
        self._chunks.append((t_ns, packet))
        self._held += len(t_ns)
        while self._held > MOST_EVENTS and len(self._chunks) > 1:
            self._past.late += self._drop_oldest()
        self.end_ns = int(t_ns[-1])

    def _drop_oldest(self) -> int:
        count = len(self._chunks.popleft()[0])
        self._held -= count
        return count

    def has(self, t0_ns: int) -> bool:
        """Whether all that a window from ``t0_ns`` on can get is there: an event from behind it."""
        return self.end_ns is not None and self.end_ns >= t0_ns + self._length_ns

    def share(self, t0_ns: int, heard_ns: int) -> Share:
        """The events of the window from ``t0_ns`` on. Up to ``heard_ns`` their absence means that nothing happened."""
        end_ns = t0_ns + self._length_ns
        times, parts, lost = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)], 0
        for t_ns, packet in self._chunks:
            first, stop = t_ns.searchsorted([t0_ns, end_ns])
            times.append(t_ns[first:stop])
            # As bytes: numpy copies packed records one by one.
            parts.append(np.ascontiguousarray(packet.data[first:stop]).view(np.uint8))
            lost += packet.lost if t0_ns <= t_ns[0] < end_ns else 0
        self._past.span_ns = t0_ns, end_ns
        events: Events = np.concatenate(parts).view(EVENT)
        none = np.zeros(0, np.bool_)
        if not len(events):
            return Share(None, none, 0.0)
        events["t_ns"] = np.concatenate(times)
        known_ns = min(max(heard_ns, self.end_ns or 0), end_ns) - t0_ns
        coverage = known_ns / self._length_ns * len(events) / (len(events) + lost)
        window = Window(t0_ns, 0, events, self.info, lost, span_ns=self._length_ns)
        return Share(window, none, coverage, lost)

    def forget(self, before_ns: int) -> None:
        """Nobody will ask for what was before."""
        while self._chunks and int(self._chunks[0][0][-1]) < before_ns:
            self._drop_oldest()


def make_track(info: SensorInfo, samples: int) -> SampleTrack | EventTrack:
    """``samples``: as in the ``WindowSpec`` of this sensor."""
    return EventTrack(info, samples) if info.family == "event_camera" else SampleTrack(info, samples)
