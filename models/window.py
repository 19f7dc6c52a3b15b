"""Cut a sensor's packets into windows: by time (motion) or at energy onsets (speech)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from drivers.packet import Packet, SensorInfo
from models.base import BadModel, Window
from models.gap import Gap
from models.onset import Onsets, level_of

ONSET_FRAME_MS = 10.0
"""Energy is judged in frames of this length, on the first difference of the samples (no offset, little rumble)."""
FLOOR_MIN_FS = 2e-4
"""No room is quieter than this fraction of full scale: digital silence must not make every click an onset."""
MAX_FILL_FRACTION = 0.25
"""A gap longer than this part of a window starts the window anew; a shorter one is filled by holding the last value."""

MOST_SAMPLES = 1 << 22
"""Of a window, or from one to the next: memory is taken for them."""
MOST_FRAMES = 100
MOST_RATIO = 1e6


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """How a bundle wants its input cut. ``samples`` is the window's length; ``hop`` applies to mode ``time``.

    Of an event camera ``samples``, ``hop`` and ``pre`` are microseconds, and its event rate is what has a floor.

    Mode ``onset`` starts a window ``pre`` samples before the first of ``frames`` consecutive energy frames that exceed
    ``ratio`` times the noise floor (amplitudes). Before the run it must have been quiet, less than ``sqrt(ratio)``
    times the floor, and the next run is looked for only after the window's end. Where less than ``pre`` samples are
    known, the window starts at the first known one.
    """

    mode: Literal["time", "onset"]
    samples: int
    hop: int = 0
    pre: int = 0
    ratio: float = 4.0
    frames: int = 2

    def check(self) -> None:
        """Raise BadModel in one sentence when these numbers cannot cut anything."""
        if self.mode not in {"time", "onset"}:
            raise BadModel(f"window.mode is {self.mode!r}, expected 'time' or 'onset'")
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise BadModel(f"window.samples is {self.samples}, expected 1 to {MOST_SAMPLES}")
        if self.mode == "time" and not 1 <= self.hop <= MOST_SAMPLES:
            raise BadModel(f"window.hop is {self.hop}, expected 1 to {MOST_SAMPLES} samples in mode 'time'")
        if self.mode == "onset" and not (
            0 <= self.pre < self.samples and 1 < self.ratio <= MOST_RATIO and 1 <= self.frames <= MOST_FRAMES
        ):
            raise BadModel(
                f"window.pre {self.pre}, ratio {self.ratio}, frames {self.frames}: expected pre in "
                f"0..{self.samples - 1}, ratio above 1 up to {MOST_RATIO:g} and frames of 1 to {MOST_FRAMES}"
            )


class Windower:
    """Turns the packets of one sensor into windows; one thread calls it. Packets of any size give the same windows.

    A window's ``data`` is its own copy and stays valid. Memory is allocated once, at the first packet.
    """

    def __init__(self, spec: WindowSpec, info: SensorInfo) -> None:
        """Raises BadModel when ``spec`` is not usable."""
        spec.check()
        self.spec = spec
        self.info = info
        self.restarts = 0
        """How often a gap was too long to fill, so that buffered samples were given up."""
        self.given_up = 0
        """Samples of begun windows given up that way, which no window has shown."""
        self._onsets = Onsets(spec.frames, spec.ratio, FLOOR_MIN_FS) if spec.mode == "onset" else None
        self._frame = max(2, round(info.rate_hz * ONSET_FRAME_MS / 1e3)) if self._onsets else 0
        self._scale = np.asarray(info.scale, np.float64)
        self._reach = spec.pre + self._frame * (spec.frames + 1)
        self._capacity = 2 * (spec.samples + self._reach)
        self._gap = Gap(int(spec.samples * MAX_FILL_FRACTION))
        self._ramp = np.arange(self._capacity, dtype=np.int64)
        self._time_ns = np.zeros(self._capacity, np.int64)
        self._held = np.zeros(self._capacity, np.bool_)
        self._data: npt.NDArray[np.generic] | None = None
        self._start_over()

    def reset(self) -> None:
        """Forget all samples and the noise floor; the counters stay."""
        self._gap.restart()
        self._start_over()
        if self._onsets:
            self._onsets.reset()

    def advance(self, now_ns: int) -> list[Window]:
        """None: samples tell by themselves that time passes."""
        return []

    def push(self, packet: Packet) -> list[Window]:
        """Take a packet; return the windows that it completes, oldest first.

        Raises BadModel when the packet has other channels than the sensor's info says, or carries events.
        """
        channels = len(self.info.channels)
        if packet.dt_ns <= 0 or packet.data.ndim != 2 or packet.data.shape[1] != channels:
            raise BadModel(
                f"a packet of {packet.sensor!r} has shape {packet.data.shape} and dt {packet.dt_ns} ns, "
                f"expected (n, {channels}) samples with a period above 0"
            )
        if self._data is None or self._data.dtype != packet.data.dtype:
            self._data = np.zeros((self._capacity, channels), packet.data.dtype)
            self._start_over()
        self._dt_ns = packet.dt_ns
        windows: list[Window] = []
        gap = self._gap.before(packet)
        gap = gap if self._stop else 0
        if gap is None:
            self.restarts += 1
            if self._starts:
                self.given_up += max(0, self._stop - max(self._starts[0], self._shown))
            self._start_over()
        elif gap:
            last = self._stop - self._base - 1
            times_ns = self._time_ns[last] + packet.dt_ns * (self._ramp[:gap] + 1)
            self._append(np.repeat(self._data[last : last + 1], gap, axis=0), times_ns, True, windows)
        for start in range(0, len(packet.data), self._capacity):
            part = packet.data[start : start + self._capacity]
            times_ns = packet.t0_ns + packet.dt_ns * (self._ramp[: len(part)] + start)
            self._append(part, times_ns, False, windows)
        return windows

    def _start_over(self) -> None:
        """Positions count samples since the last start; position ``_base`` is at index 0 of the buffers."""
        self._base = 0
        self._stop = 0
        self._shown = 0
        self._scanned = 0
        self._starts: list[int] = [0] if self.spec.mode == "time" else []
        if self._onsets:
            self._onsets.restart()

    def _append(
        self, data: npt.NDArray[np.generic], times_ns: npt.NDArray[np.int64], held: bool, windows: list[Window]
    ) -> None:
        while len(data):
            self._make_room()
            index = self._stop - self._base
            count = min(len(data), self._capacity - index)
            self._data_buffer()[index : index + count] = data[:count]
            self._time_ns[index : index + count] = times_ns[:count]
            self._held[index : index + count] = held
            self._stop += count
            data, times_ns = data[count:], times_ns[count:]
            self._cut(windows)

    def _data_buffer(self) -> npt.NDArray[np.generic]:
        if self._data is None:
            raise BadModel("no samples were pushed yet")
        return self._data

    def _make_room(self) -> None:
        """Move what is still needed to the front once the buffer is full; at most half of it is."""
        if self._stop - self._base < self._capacity:
            return
        keep = min(self._starts[0] if self._starts else self._scanned - self._reach, self._stop)
        keep = max(keep, self._base)
        first, count = keep - self._base, self._stop - keep
        for buffer in (self._data_buffer(), self._time_ns, self._held):
            buffer[:count] = buffer[first : first + count].copy()
        self._base = keep

    def _cut(self, windows: list[Window]) -> None:
        if self._onsets:
            self._find_onsets(self._onsets)
        while self._starts and self._starts[0] + self.spec.samples <= self._stop:
            start = self._starts.pop(0)
            windows.append(self._window(start))
            self._shown = start + self.spec.samples
            if self.spec.mode == "time":
                self._starts.append(start + self.spec.hop)

    def _find_onsets(self, onsets: Onsets) -> None:
        frames = (self._stop - self._scanned) // self._frame
        if frames == 0:
            return
        index = self._scanned - self._base
        span = slice(index, index + frames * self._frame)
        cube = self._data_buffer()[span].astype(np.int64).reshape(frames, self._frame, -1)
        step = np.diff(cube, axis=1)
        mean_square = (step * step).sum(axis=1) / (self._frame - 1)
        level = level_of((np.sqrt(mean_square) * self._scale).max(axis=1))
        made_up: npt.NDArray[np.bool_] = self._held[span].reshape(frames, self._frame).max(axis=1)
        for i in onsets.scan(level, made_up):
            onset = self._scanned + int(i) * self._frame
            last_end = self._starts[-1] + self.spec.samples if self._starts else self._shown
            if onset >= last_end:
                self._starts.append(max(onset - self.spec.pre, 0))
        self._scanned += frames * self._frame

    def _window(self, start: int) -> Window:
        part = slice(start - self._base, start - self._base + self.spec.samples)
        return Window(
            t0_ns=int(self._time_ns[part.start]),
            dt_ns=self._dt_ns,
            data=np.ascontiguousarray(self._data_buffer()[part]).copy(),
            info=self.info,
            lost=int(np.count_nonzero(self._held[part])),
        )
