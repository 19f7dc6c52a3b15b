"""A WitMotion sensor on a pseudo-terminal: real frames at real pace, and the faults that real ones have."""

import math
import os
import pty
import threading
import time
import tty
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

NS_PER_S = 1_000_000_000
FRAME_BYTES = 11
BITS_PER_BYTE = 10
KEPT_SEND_TIMES = 65_536
PENDING_FAULTS = 1024
TEMPERATURE = 2500
"""25.00 degC, carried by the acceleration, rate and angle frames."""


def encode(rows: npt.NDArray[np.int16], first: int, rate_hz: float, *, timed: bool, angles: bool) -> list[bytes]:
    """Frames of (n, 6) int16 rows ``first ..`` as one byte string per row: [0x50] 0x51 0x52 [0x53].

    The sensor's clock is at 00:00:00.000 when row 0 is taken, and its date was never set.
    """
    count = len(rows)
    words = np.zeros((count, 4), "<i2")
    words[:, 3] = TEMPERATURE
    parts = []
    if timed:
        ms = ((np.arange(first, first + count) * 1000) / rate_hz).astype(np.int64) % 86_400_000
        clock = np.zeros((count, 8), np.uint8)
        for column, unit in ((3, ms // 3_600_000), (4, ms // 60_000 % 60), (5, ms // 1000 % 60)):
            clock[:, column] = unit
        clock[:, 6:] = (ms % 1000).astype("<u2").reshape(-1, 1).view(np.uint8)
        parts.append(_frames(0x50, clock))
    for kind, columns in ((0x51, rows[:, :3]), (0x52, rows[:, 3:])):
        words[:, :3] = columns
        parts.append(_frames(kind, words.view(np.uint8)))
    if angles:
        words[:, :3] = 0
        parts.append(_frames(0x53, words.view(np.uint8)))
    cycles = np.concatenate(parts, axis=1)
    return [cycle.tobytes() for cycle in cycles]


def _frames(kind: int, payload: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    frames = np.empty((len(payload), FRAME_BYTES), np.uint8)
    frames[:, 0], frames[:, 1], frames[:, 2:10] = 0x55, kind, payload
    frames[:, 10] = frames[:, :10].sum(axis=1, dtype=np.uint8)
    return frames


class WitmotionEmulator:
    """Plays rows again and again while the context is open; ``with WitmotionEmulator(...) as sensor: sensor.link``.

    Row k is measured at start + k / rate, whatever happened before (no drift), and delivered when its last byte would
    have passed the line. A row that nobody reads fast enough, or that falls into silence or an unplugged time, is
    gone, as on a wire. All methods may be called from any thread.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.int16],
        rate_hz: float,
        link: Path,
        *,
        baud: int = 115200,
        timed: bool = True,
        angles: bool = True,
    ) -> None:
        """``rows``: (n, 6) int16. ``link``: symlink that stands for /dev/serial/by-id/... while plugged in.

        Raises ValueError when the frames do not fit through ``baud`` (8N1).
        """
        frames = 2 + timed + angles
        row_bits = frames * FRAME_BYTES * BITS_PER_BYTE
        needed = row_bits * rate_hz
        if needed > baud:
            raise ValueError(f"{frames} frames at {rate_hz:g} Hz need {needed:.0f} baud, the line has {baud}")
        if rows.ndim != 2 or rows.shape[1] != 6 or rows.dtype != np.int16 or not len(rows):
            raise ValueError(f"rows are {rows.dtype} {rows.shape}, expected int16 (n, 6) with n >= 1")
        self.link = link
        self.rate_hz = rate_hz
        self._line_ns = row_bits * NS_PER_S // baud
        self._rows = rows
        self._timed, self._angles = timed, angles
        self._changed = threading.Condition()
        self._start_ns = 0
        self._next_row = 0
        self._sent: deque[tuple[int, int]] = deque(maxlen=KEPT_SEND_TIMES)
        self._sent_rows = 0
        self.dropped_rows = 0
        """Rows that did not fit into the terminal because nobody read it."""
        self._master: int | None = None
        self._slave: int | None = None
        self._silent = False
        self._faults: deque[Callable[[bytes], bytes]] = deque(maxlen=PENDING_FAULTS)
        self._stopping = False
        self._thread = threading.Thread(target=self._play, name="witmotion-emulator")

    def __enter__(self) -> "WitmotionEmulator":
        self.plug()
        self._start_ns = time.monotonic_ns()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        self.unplug()

    @property
    def sent_rows(self) -> int:
        """Rows that went out so far; rows lost to silence or unplugging do not count."""
        with self._changed:
            return self._sent_rows

    def measured_at_ns(self, row: int) -> int:
        """CLOCK_MONOTONIC ns at which row ``row`` (from 0, since the start) is measured, sent or not."""
        return self._start_ns + round(row * NS_PER_S / self.rate_hz)

    def sent_at_ns(self, row: int) -> int:
        """CLOCK_MONOTONIC ns just before row ``row`` (from 0) went out; KeyError if it did not, or too long ago."""
        with self._changed:
            for index, at_ns in reversed(self._sent):
                if index == row:
                    return at_ns
        raise KeyError(row)

    def row(self, index: int) -> npt.NDArray[np.int16]:
        """The six values of row ``index`` since the start."""
        values: npt.NDArray[np.int16] = self._rows[index % len(self._rows)]
        return values

    def wait_sent(self, rows: int, timeout_s: float) -> bool:
        """Wait until ``sent_rows`` is at least ``rows``."""
        with self._changed:
            return self._changed.wait_for(lambda: self._sent_rows >= rows, timeout_s)

    def corrupt(self) -> None:
        """One bit of the next row's acceleration flips on the wire."""
        position = (FRAME_BYTES if self._timed else 0) + 4
        self._inject(lambda row: row[:position] + bytes([row[position] ^ 0x10]) + row[position + 1 :])

    def drop_bytes(self, count: int) -> None:
        """The next row loses ``count`` bytes from its fourth byte on."""
        self._inject(lambda row: row[:3] + row[3 + count :])

    def garbage(self, noise: bytes) -> None:
        """``noise`` comes before the next row."""
        self._inject(lambda row: noise + row)

    def send_raw(self, noise: bytes) -> None:
        """Put bytes on the wire now, whatever the sensor does (another baud rate, another device, a bad cable)."""
        with self._changed:
            self._write(noise)

    def silence(self, silent: bool) -> None:
        """Send nothing while true; the sensor's clock runs on and its rows are lost."""
        with self._changed:
            self._silent = silent

    def unplug(self) -> None:
        """The cable comes out: readers get an end of file, the link is gone."""
        with self._changed:
            if self._master is None or self._slave is None:
                return
            self.link.unlink(missing_ok=True)
            os.close(self._master)
            os.close(self._slave)
            self._master = self._slave = None

    def plug(self) -> None:
        """The cable goes in (again): the same link, perhaps another terminal behind it."""
        with self._changed:
            if self._master is not None:
                return
            self._master, self._slave = pty.openpty()
            # Our own descriptor of the reader's side keeps the raw mode when a reader closes it.
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            self.link.symlink_to(os.ttyname(self._slave))

    def _inject(self, fault: Callable[[bytes], bytes]) -> None:
        with self._changed:
            self._faults.append(fault)

    def _play(self) -> None:
        with self._changed:
            while not self._stopping:
                now_ns = time.monotonic_ns()
                due = math.floor((now_ns - self._line_ns - self._start_ns) * self.rate_hz / NS_PER_S) + 1
                if due > self._next_row:
                    self._send(self._next_row, due - self._next_row)
                    self._next_row = due
                    self._changed.notify_all()
                next_ns = self.measured_at_ns(self._next_row) + self._line_ns
                self._changed.wait(max(0, next_ns - time.monotonic_ns()) / NS_PER_S)

    def _send(self, first: int, count: int) -> None:
        if self._master is None or self._silent:
            return
        rows = self._rows[np.arange(first, first + count) % len(self._rows)]
        for index, row in enumerate(encode(rows, first, self.rate_hz, timed=self._timed, angles=self._angles), first):
            wire = self._faults.popleft()(row) if self._faults else row
            self._sent.append((index, time.monotonic_ns()))
            if self._write(wire):
                self._sent_rows += 1
            else:
                self.dropped_rows += 1

    def _write(self, wire: bytes) -> bool:
        """Whether all of it went out; a full terminal loses the rest, like a UART that nobody empties."""
        if self._master is None:
            return False
        try:
            return os.write(self._master, wire) == len(wire)
        except BlockingIOError:
            return False
