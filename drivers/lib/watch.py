"""Notices what no single frame shows: silence, bytes without sense, and a sensor that runs at another rate."""

from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.lib.clock import NS_PER_S
from drivers.packet import SensorCounters

SILENCE_NS = NS_PER_S
NO_FRAMES_NS = 5 * NS_PER_S
RATE_CHECK_NS = 5 * NS_PER_S
RATE_CHECK_ROWS = 20
"""Fewer rows do not tell a rate to a tenth."""
RATE_TOLERANCE = 0.1
SILENT_ROWS = 3
"""A sensor of less than 3 Hz is silent when so many rows are overdue."""
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
        period_ns = 0 if rate_hz is None else round(NS_PER_S / rate_hz)
        self._silence_ns = max(SILENCE_NS, SILENT_ROWS * period_ns)
        self._no_frames_ns = max(NO_FRAMES_NS, SILENT_ROWS * period_ns)
        self._rate_check_ns = max(RATE_CHECK_NS, RATE_CHECK_ROWS * period_ns)
        self._counters = counters
        self._silent_before_s = counters.silent_s
        self._frame_ns = self._row_ns = self._rate_ns = self._byte_ns = now_ns
        self._rate_rows = 0
        self._lost_bytes = 0

    def update(self, frames: int, rows: int, received_bytes: int, now_ns: int) -> str | None:
        """After every read: valid frames, rows made of them, and bytes that it gave.

        Returns the start of a sentence when bytes have come for 5 s, or for three rows' time if that is longer, and
        none of them made a frame; else None.
        """
        # A pause is silence, not a slow sensor: the rate is measured anew behind it.
        paused = now_ns - self._row_ns >= self._silence_ns
        if paused:
            self._rate_ns, self._rate_rows = now_ns, 0
        if rows:
            self._row_ns = now_ns
            self._counters.notes.pop("no_rows", None)
        elif now_ns - self._row_ns >= self._no_frames_ns > now_ns - self._frame_ns:
            self._counters.notes["no_rows"] = (
                f"valid frames arrive on {self._where}, but not the ones that are needed, with {self._needed}: "
                "switch these on in the sensor, or configure what it sends"
            )
        self._rate(0 if paused else rows, now_ns)
        return self._silence(frames, received_bytes, now_ns)

    def _rate(self, rows: int, now_ns: int) -> None:
        if self._rate_hz is None:
            return
        self._rate_rows += rows
        elapsed_ns = now_ns - self._rate_ns
        if elapsed_ns < self._rate_check_ns:
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
        if received_bytes:
            self._lost_bytes, self._byte_ns = self._lost_bytes + received_bytes, now_ns
        silent_ns = now_ns - self._frame_ns
        if silent_ns >= self._silence_ns:
            self._counters.silent_s = self._silent_before_s + silent_ns / NS_PER_S
        if silent_ns < self._no_frames_ns:
            return None
        sentence = f"no valid frame in {self._no_frames_ns / NS_PER_S:g} s on {self._where}"
        # A sensor that lost its power in the middle of a frame has left bytes too, but it does not talk.
        if self._lost_bytes < NOISE_BYTES or now_ns - self._byte_ns > self._no_frames_ns // 2:
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
        self._still = self._rows_alike(values)
        self._last = values[-1].copy()
        if self._still >= self._rows:
            self._counters.notes[self._note] = self._sentence
        else:
            self._counters.notes.pop(self._note, None)

    def _rows_alike(self, values: npt.NDArray[Any]) -> int:
        """How many rows before the last one are like it, without a change between them."""
        if len(values) > 1 and (values[-1] != values[-2]).any():
            return 0  # as of every sensor that lives, which need not cost much
        if len(values) == 1:
            return self._still + 1 if self._last is not None and bool((values[0] == self._last).all()) else 0
        same = np.ones(len(values), np.bool_)
        same[1:] = (values[1:] == values[:-1]).all(axis=1)
        same[0] = self._last is not None and bool((values[0] == self._last).all())
        moved = np.flatnonzero(~same)
        return len(values) - 1 - int(moved[-1]) if len(moved) else self._still + len(values)
