"""Cut an event camera's packets into windows of capture time: one after the other, or where activity begins."""

from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.packet import EVENT, Packet, SensorInfo
from models.base import BadModel, Window
from models.onset import Onsets, level_of
from models.window import ONSET_FRAME_MS, Windower, WindowSpec

FRAME_NS = round(ONSET_FRAME_MS * 1e6)
"""Event rates are judged in frames of this length, which begin at whole multiples of it."""
FLOOR_MIN_EVENTS = 8.0
"""Of a frame: no scene is quieter, so that not every speck of noise is an onset."""
MAX_BACK_NS = 100_000_000
"""An event may be so much older than what is known already; it counts as of now. By more it is another time."""
MOST_EVENTS = 1 << 22
"""Of a window: beyond, the oldest are given up and count as lost."""
NS_PER_US = 1000

Events = npt.NDArray[Any]


class EventWindower:
    """Turns the packets of one event camera into windows; one thread calls it. Packets of any size give the same.

    A window has the events of ``samples`` microseconds, perhaps none; its ``data`` is its own copy. It is complete when
    an event behind its end, or ``advance``, tells that its time is over. In mode ``time`` the first window begins with
    the first event, and so does the first after a silence longer than a window. Mode ``onset`` is that of
    ``WindowSpec``: what exceeds the floor is the number of events in frames of 10 ms.
    """

    def __init__(self, spec: WindowSpec, info: SensorInfo) -> None:
        """Raises BadModel when ``spec`` is not usable or the sensor is none that sends events."""
        spec.check()
        if info.family != "event_camera":
            raise BadModel(f"windows of events are of an event camera, the sensor is {info.family}")
        self.spec = spec
        self.info = info
        self.restarts = 0
        """How often time leapt back, so that what was kept was given up."""
        self.given_up = 0
        """Events of begun windows given up that way, which no window has shown."""
        self._length_ns = spec.samples * NS_PER_US
        self._onsets = Onsets(spec.frames, spec.ratio, FLOOR_MIN_EVENTS) if spec.mode == "onset" else None
        self._reach_ns = spec.pre * NS_PER_US + FRAME_NS * (spec.frames + 1)
        self._next_seq: int | None = None
        self._start_over()

    def reset(self) -> None:
        """Forget all events and the floor; the counters stay."""
        self._next_seq = None
        self._start_over()
        if self._onsets:
            self._onsets.reset()

    def _start_over(self) -> None:
        self._begin_ns = 0
        """Since when all is known."""
        self._now_ns: int | None = None
        """Up to when all is known."""
        self._last_ns = 0
        """Of the newest event."""
        self._shown_ns = 0
        self._starts: list[int] = []
        self._chunks: list[tuple[npt.NDArray[np.int64], Events]] = []
        self._held = 0
        """Events in the chunks."""
        self._losses: list[tuple[int, int]] = []
        """When, and how many."""
        self._frame = 0
        """The first that was not judged yet, and how many events it has so far."""
        self._in_frame = 0
        if self._onsets:
            self._onsets.restart()

    def push(self, packet: Packet) -> list[Window]:
        """Take a packet; return the windows that it completes, oldest first. Raises BadModel unless it has events."""
        events: Events = packet.data
        if events.dtype != EVENT:
            raise BadModel(f"a packet of {packet.sensor!r} has {events.dtype} samples, expected events")
        skipped = 0 if self._next_seq is None else max(0, packet.seq - self._next_seq)
        self._next_seq = packet.seq + 1
        t_ns = np.maximum.accumulate(events["t_ns"].astype(np.int64))
        if len(t_ns) and self._now_ns is not None and t_ns[0] < self._now_ns - MAX_BACK_NS:
            self.restarts += 1
            self.given_up += self._unshown()
            self._start_over()
        if self._now_ns is not None:
            t_ns = np.maximum(t_ns, self._now_ns)
        if packet.lost or skipped:
            when_ns = int(t_ns[0]) if len(t_ns) else self._now_ns or packet.t0_ns
            self._losses.append((when_ns, max(packet.lost, skipped)))  # a packet that never came had an event or more
        windows: list[Window] = []
        silences = np.flatnonzero(np.diff(t_ns) > self._length_ns) + 1
        for first, stop in zip([0, *silences], [*silences, len(t_ns)], strict=True):
            if stop > first:
                self._enter(t_ns[first:stop], events[first:stop], windows)
        return windows

    def advance(self, now_ns: int) -> list[Window]:
        """The windows that are complete because nothing from before ``now_ns`` is still to come."""
        windows: list[Window] = []
        self._pass(now_ns, windows)
        return windows

    def _enter(self, t_ns: npt.NDArray[np.int64], events: Events, windows: list[Window]) -> None:
        """Events without a silence longer than a window between them."""
        first_ns, last_ns = int(t_ns[0]), int(t_ns[-1])
        self._pass(first_ns, windows)
        if not self._onsets and (not self._starts or first_ns - self._last_ns > self._length_ns):
            self._starts = [first_ns]
        self._chunks.append((t_ns, events))
        self._held += len(t_ns)
        while self._held > MOST_EVENTS and len(self._chunks) > 1:
            oldest, _ = self._chunks.pop(0)
            self._held -= len(oldest)
            self._losses.append((int(oldest[-1]), len(oldest)))
        self._last_ns = self._now_ns = last_ns
        if self._onsets:
            frames = t_ns // FRAME_NS
            self._judge(self._onsets, np.bincount(frames[frames >= self._frame] - self._frame), last_ns // FRAME_NS)
        self._cut(windows)

    def _pass(self, now_ns: int, windows: list[Window]) -> None:
        """Time goes on to ``now_ns`` without an event."""
        if self._now_ns is None:
            self._begin_ns = self._now_ns = now_ns
            self._frame = -(-now_ns // FRAME_NS)
        if now_ns <= self._now_ns:
            return
        self._now_ns = now_ns
        if self._onsets:
            self._judge(self._onsets, np.zeros(0, np.int64), now_ns // FRAME_NS)
        self._cut(windows)

    def _judge(self, onsets: Onsets, counts: npt.NDArray[np.int64], stop: int) -> None:
        """Judge the frames before ``stop``; ``counts`` are new events from frame ``self._frame`` on."""
        if stop < self._frame:
            return
        # Beyond the newest events as many silent frames as change anything.
        whole = min(stop - self._frame, max(len(counts), 1) + self.spec.frames)
        seen = np.zeros(max(whole, len(counts)) + 1, np.int64)
        seen[: len(counts)] = counts
        seen[0] += self._in_frame
        if whole:
            for i in onsets.scan(level_of(seen[:whole].astype(np.float64)), np.zeros(whole, np.bool_)):
                begin_ns = (self._frame + int(i)) * FRAME_NS
                free_ns = self._starts[-1] + self._length_ns if self._starts else self._shown_ns
                if begin_ns >= free_ns:
                    self._starts.append(max(begin_ns - self.spec.pre * NS_PER_US, self._begin_ns))
        self._in_frame = int(seen[whole]) if whole == stop - self._frame else 0
        self._frame = stop

    def _cut(self, windows: list[Window]) -> None:
        now_ns = self._now_ns or 0
        while self._starts and self._starts[0] + self._length_ns <= now_ns:
            start_ns = self._starts.pop(0)
            if not self._onsets:
                if start_ns > self._last_ns:
                    break  # silence since longer than a window: the next one begins with the next event
                self._starts.append(start_ns + self.spec.hop * NS_PER_US)
            windows.append(self._window(start_ns))
            self._shown_ns = start_ns + self._length_ns
        needed_ns = self._starts[0] if self._starts else now_ns - self._reach_ns
        while self._chunks and self._chunks[0][0][-1] < needed_ns:
            self._held -= len(self._chunks.pop(0)[0])
        self._losses = [loss for loss in self._losses if loss[0] >= needed_ns]

    def _window(self, start_ns: int) -> Window:
        end_ns = start_ns + self._length_ns
        times, parts = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
        for t_ns, events in self._chunks:
            first, stop = t_ns.searchsorted([start_ns, end_ns])
            times.append(t_ns[first:stop])
            # As bytes: numpy copies packed records one by one.
            parts.append(np.ascontiguousarray(events[first:stop]).view(np.uint8))
        data = np.concatenate(parts).view(EVENT)
        data["t_ns"] = np.concatenate(times)
        lost = sum(count for when_ns, count in self._losses if start_ns <= when_ns < end_ns)
        return Window(start_ns, 0, data, self.info, lost, span_ns=self._length_ns)

    def _unshown(self) -> int:
        """Events of begun windows that no window has shown."""
        if not self._starts:
            return 0
        since_ns = max(self._starts[0], self._shown_ns)
        return sum(len(t_ns) - int(t_ns.searchsorted(since_ns)) for t_ns, _ in self._chunks)


def make_windower(spec: WindowSpec, info: SensorInfo) -> Windower | EventWindower:
    """What cuts the packets of this sensor. Raises BadModel when ``spec`` is not usable."""
    return EventWindower(spec, info) if info.family == "event_camera" else Windower(spec, info)


def empty_window(spec: WindowSpec, info: SensorInfo) -> Window:
    """One of silence, to warm up with."""
    if info.family == "event_camera":
        return Window(0, 0, np.zeros(0, EVENT), info, span_ns=spec.samples * NS_PER_US)
    return Window(0, 1, np.zeros((spec.samples, len(info.channels)), np.int16), info)
