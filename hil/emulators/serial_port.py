"""A sensor on a pseudo-terminal: its own pace, a port that can be unplugged, and the faults that real wires have."""

import math
import os
import pty
import threading
import time
import tty
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

NS_PER_S = 1_000_000_000
BITS_PER_BYTE = 10
KEPT_SEND_TIMES = 65_536
PENDING_FAULTS = 1024
REQUEST_BYTES = 4096
WRITE_BYTES = 65_536
"""More than a terminal takes at once."""
LISTEN_S = 0.002
"""A device that answers looks for requests this often."""

E = TypeVar("E", bound="SerialEmulator")


class SerialEmulator(ABC):
    """Plays rows while the context is open; ``with SomeEmulator(...) as sensor: sensor.link``.

    Row k is measured at start + k / rate, whatever happened before (no drift), and delivered when its last byte would
    have passed the line. A row that nobody reads fast enough, or that falls into silence or an unplugged time, is
    gone, as on a wire. All methods may be called from any thread.
    """

    listens = False
    """True for a device that takes commands: what comes is handed to ``answer``."""
    held_bytes = 0
    """With hardware flow control: so much waits in the device and the host's port while the reader is busy."""

    def __init__(self, link: Path, rate_hz: float, baud: int, row_bytes: int) -> None:
        """``link``: symlink that stands for /dev/serial/by-id/... while plugged in. ``row_bytes``: sent per row.

        Raises ValueError when the rows do not fit through ``baud`` (8N1).
        """
        needed = row_bytes * BITS_PER_BYTE * rate_hz
        if needed > baud:
            raise ValueError(f"{self._load(row_bytes)} at {rate_hz:g} Hz need {needed:.0f} baud, the line has {baud}")
        self.link = link
        self.rate_hz = rate_hz
        self._line_ns = row_bytes * BITS_PER_BYTE * NS_PER_S // baud
        self._changed = threading.Condition()
        self._start_ns = 0
        self._next_row = 0
        self._sent: deque[tuple[int, int]] = deque(maxlen=KEPT_SEND_TIMES)
        self._sent_rows = 0
        self.dropped_rows = 0
        """Rows that did not fit into the terminal because nobody read it."""
        self._master: int | None = None
        self._slave: int | None = None
        self._held = bytearray()
        self._excused_bytes = 0
        """Of those: sent late and all at once because this process had no core. A sensor does not do that."""
        self._silent = False
        self._faults: deque[Callable[[bytes], bytes]] = deque(maxlen=PENDING_FAULTS)
        self._stopping = False
        self._thread = threading.Thread(target=self._play, name=type(self).__name__)

    @abstractmethod
    def encode(self, first: int, count: int) -> list[bytes]:
        """What the device puts on the wire for rows ``first .. first + count - 1`` since the start, a piece per row."""

    def answer(self, request: bytes) -> bytes:
        """What the device replies at once to bytes from the host (any part of a command); it may change its state."""
        return b""

    def _load(self, row_bytes: int) -> str:
        return f"{row_bytes} bytes"

    def __enter__(self: E) -> E:
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

    def wait_sent(self, rows: int, timeout_s: float) -> bool:
        """Wait until ``sent_rows`` is at least ``rows``."""
        with self._changed:
            return self._changed.wait_for(lambda: self._sent_rows >= rows, timeout_s)

    def flip_bit(self, position: int, bit: int = 4) -> None:
        """One bit of byte ``position`` of the next row flips on the wire."""
        self.fault(lambda row: row[:position] + bytes([row[position] ^ 1 << bit]) + row[position + 1 :])

    def drop_bytes(self, count: int) -> None:
        """The next row loses ``count`` bytes from its fourth byte on."""
        self.fault(lambda row: row[:3] + row[3 + count :])

    def garbage(self, noise: bytes) -> None:
        """``noise`` comes before the next row."""
        self.fault(lambda row: noise + row)

    def fault(self, change: Callable[[bytes], bytes]) -> None:
        """The wire makes ``change`` of the next row; faults wait in line, one for each row."""
        with self._changed:
            self._faults.append(change)

    def send_raw(self, noise: bytes) -> None:
        """Put bytes on the wire now, whatever the sensor does (another baud rate, another device, a bad cable)."""
        with self._changed:
            self._write(noise)

    def silence(self, silent: bool) -> None:
        """Send nothing while true; the sensor's clock runs on and its rows are lost."""
        with self._changed:
            self._advance()
            self._silent = silent

    def unplug(self) -> None:
        """The cable comes out: readers get an end of file, the link is gone."""
        with self._changed:
            if self._master is None or self._slave is None:
                return
            self._advance()
            self.link.unlink(missing_ok=True)
            os.close(self._master)
            os.close(self._slave)
            self._master = self._slave = None
            self._held.clear()

    def plug(self) -> None:
        """The cable goes in (again): the same link, perhaps another terminal behind it."""
        with self._changed:
            if self._master is not None:
                return
            self._advance()
            self._master, self._slave = pty.openpty()
            # Our own descriptor of the reader's side keeps the raw mode when a reader closes it.
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            self.link.symlink_to(os.ttyname(self._slave))

    def _play(self) -> None:
        with self._changed:
            while not self._stopping:
                self._advance()
                if self._held:
                    self._write(b"")
                if self.listens:
                    self._listen()
                next_ns = self.measured_at_ns(self._next_row) + self._line_ns
                wait_s = max(0, next_ns - time.monotonic_ns()) / NS_PER_S
                self._changed.wait(min(wait_s, LISTEN_S) if self.listens or self._held else wait_s)

    def _advance(self) -> None:
        """Send, or lose, what is due by now; before anything changes too, so that a late thread loses no other rows."""
        if not self._start_ns:
            return
        passed_ns = time.monotonic_ns() - self._line_ns - self._start_ns
        due = math.floor(passed_ns * self.rate_hz / NS_PER_S) + 1
        if due > self._next_row:
            self._send(self._next_row, due - self._next_row)
            self._next_row = due
            self._changed.notify_all()

    def _listen(self) -> None:
        if self._master is None:
            return
        try:
            request = os.read(self._master, REQUEST_BYTES)
        except BlockingIOError:
            return
        reply = self.answer(request)
        if not self._silent:
            self._write(reply)

    def _send(self, first: int, count: int) -> None:
        if self._master is None or self._silent:
            return
        for index, row in enumerate(self.encode(first, count), first):
            if index > first:
                self._excused_bytes += len(row)
            wire = self._faults.popleft()(row) if self._faults else row
            self._sent.append((index, time.monotonic_ns()))
            if self._write(wire):
                self._sent_rows += 1
            else:
                self.dropped_rows += 1

    def _write(self, wire: bytes) -> bool:
        """Whether all of it went out or may wait; a full terminal loses the rest, like a UART that nobody empties."""
        if self._master is None:
            return False
        self._held += wire
        with suppress(BlockingIOError):
            del self._held[: os.write(self._master, self._held[:WRITE_BYTES])]
        self._excused_bytes = min(self._excused_bytes, len(self._held))
        room = self.held_bytes + self._excused_bytes
        fits = len(self._held) <= room
        del self._held[room:]
        return fits


class RowsEmulator(SerialEmulator):
    """A sensor whose samples are the rows of a table, again and again."""

    def __init__(self, rows: npt.NDArray[Any], link: Path, rate_hz: float, baud: int, row_bytes: int) -> None:
        """``rows``: (n, channels), n >= 1, what the sensor measures. The rest as in ``SerialEmulator``."""
        super().__init__(link, rate_hz, baud, row_bytes)
        self.rows = rows

    def row(self, index: int) -> npt.NDArray[Any]:
        """The values of row ``index`` since the start."""
        values: npt.NDArray[Any] = self.rows[index % len(self.rows)]
        return values

    def played(self, first: int, count: int) -> npt.NDArray[Any]:
        """(count, channels) rows ``first ..`` since the start."""
        played: npt.NDArray[Any] = self.rows[np.arange(first, first + count) % len(self.rows)]
        return played
