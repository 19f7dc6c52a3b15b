"""Notices what no single frame shows: silence, bytes without sense, and a sensor that runs at another rate."""

from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.lib.clock import NS_PER_S
from drivers.packet import SensorCounters

SILENCE_NS = NS_PER_S
NO_FRAMES_NS = 5 * NS_PER_S
RATE_CHECK_NS = 5 * NS_PER_S
RATE_TOLERANCE = 0.1
STUCK_S = 5
NOISE_BYTES = 8
"""Fewer bytes than this without a frame are a wire that picks something up, not a sensor that talks."""


class Watch:
    """Keeps ``silent_s`` and the notes ``no_frames``, ``no_rows`` and ``rate`` of one open serial sensor."""

    def __init__(
        self,
        where: str,
        rate_hz: float | None,
        counters: SensorCounters,
        now_ns: int,
        needed: str = "acceleration and angular rate",
    ) -> None:
        """``where`` names port and baud rate in sentences; ``rate_hz`` is what the configuration promises,
        None for a sensor that sends as much as happens.

        ``needed``: what the sensor must be set to send.
        """
        self._needed = needed
        self._where = where
        self._rate_hz = rate_hz
        self._counters = counters
        self._silent_before_s = counters.silent_s
        self._frame_ns = self._row_ns = self._rate_ns = now_ns
        self._rate_rows = 0
        self._lost_bytes = 0

    def update(self, frames: int, rows: int, received_bytes: int, now_ns: int) -> str | None:
        """After every read: valid frames, rows made of them, and bytes that it gave.

        Returns the start of a sentence when bytes have come for 5 s and none of them made a frame, else None.
        """
        # A pause is silence, not a slow sensor: the rate is measured anew behind it.
        paused = now_ns - self._row_ns >= SILENCE_NS
        if paused:
            self._rate_ns, self._rate_rows = now_ns, 0
        if rows:
            self._row_ns = now_ns
            self._counters.notes.pop("no_rows", None)
        elif now_ns - self._row_ns >= NO_FRAMES_NS and now_ns - self._frame_ns < NO_FRAMES_NS:
            self._counters.notes["no_rows"] = (
                f"valid frames arrive on {self._where}, but not the ones that are needed: "
                f"switch the output of {self._needed} on in the sensor"
            )
        self._rate(0 if paused else rows, now_ns)
        return self._silence(frames, received_bytes, now_ns)

    def _rate(self, rows: int, now_ns: int) -> None:
        if self._rate_hz is None:
            return
        self._rate_rows += rows
        elapsed_ns = now_ns - self._rate_ns
        if elapsed_ns < RATE_CHECK_NS:
            return
        rate_hz = self._rate_rows * NS_PER_S / elapsed_ns
        self._rate_ns, self._rate_rows = now_ns, 0
        if rate_hz > 0 and abs(rate_hz / self._rate_hz - 1) > RATE_TOLERANCE:
            self._counters.notes["rate"] = (
                f"{rate_hz:.1f} rows/s arrive on {self._where}, rate_hz is {self._rate_hz:g}: set the sensor to that "
                "rate, and to a baud rate that carries every frame type it sends"
            )
        else:
            self._counters.notes.pop("rate", None)

    def _silence(self, frames: int, received_bytes: int, now_ns: int) -> str | None:
        if frames:
            self._frame_ns = now_ns
            self._silent_before_s = self._counters.silent_s
            self._lost_bytes = 0
            self._counters.notes.pop("no_frames", None)
            return None
        self._lost_bytes += received_bytes
        silent_ns = now_ns - self._frame_ns
        if silent_ns >= SILENCE_NS:
            self._counters.silent_s = self._silent_before_s + silent_ns / NS_PER_S
        if silent_ns < NO_FRAMES_NS:
            return None
        sentence = f"no valid frame in {NO_FRAMES_NS // NS_PER_S} s on {self._where}"
        if self._lost_bytes < NOISE_BYTES:
            self._counters.notes["no_frames"] = f"{sentence}: nothing arrives, check power and wiring"
            return None
        sentence += f", although {self._lost_bytes} bytes arrived"
        self._counters.notes["no_frames"] = sentence
        return sentence


class Still:
    """Keeps one note while values do not change by one step for 5 s: a live sensor dithers, a live counter counts."""

    def __init__(self, note: str, sentence: str, rate_hz: float, counters: SensorCounters) -> None:
        """``note`` and ``sentence``: name and text of the note; ``rate_hz``: rows per second."""
        self._note = note
        self._sentence = sentence
        self._rows = max(2, round(STUCK_S * rate_hz))
        self._counters = counters
        self._last: npt.NDArray[Any] | None = None
        self._still = 0

    def update(self, values: npt.NDArray[Any]) -> None:
        """The next (n, k) values, n >= 1."""
        same = np.ones(len(values), np.bool_)
        same[1:] = (values[1:] == values[:-1]).all(axis=1)
        same[0] = self._last is not None and bool((values[0] == self._last).all())
        moved = np.flatnonzero(~same)
        self._still = len(values) - 1 - int(moved[-1]) if len(moved) else self._still + len(values)
        self._last = values[-1].copy()
        if self._still >= self._rows:
            self._counters.notes[self._note] = self._sentence
        else:
            self._counters.notes.pop(self._note, None)
