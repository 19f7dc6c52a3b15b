"""A sensor that streams over a serial port: reading, gathering, counting, watching and batching, once for all.

A driver adds its parser (bytes to rows), its configuration and what its integers mean.
"""

import time
from abc import abstractmethod
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from drivers.base import Disconnected, Driver, DriverConfig, DriverError, Unavailable
from drivers.lib.clock import NS_PER_S
from drivers.lib.framing import Offsets
from drivers.lib.serial_link import SerialLink
from drivers.lib.timeline import Rows, Timeline
from drivers.lib.watch import Watch
from drivers.packet import Packet

BATCH_NS = 50_000_000
"""A packet gathers this much where the time-out allows."""
AWAITED_ROWS = 2
"""Only the last rows of a packet wake the thread; the arrival of the very last one is what times are made of."""


PAUSE_NS = 250_000_000
"""After so long without a byte, something may have kept the host busy, and more may wait than one read gives."""
DRAIN_NS = 20_000_000
"""What waits in the kernel has come within this, and most USB converters have delivered what they hold."""
MOST_WAITING_BYTES = 1 << 18
"""More than any kernel keeps for a port."""


class SerialConfig(DriverConfig):
    """What every serial sensor is told; each driver narrows the values down and gives its defaults."""

    port: str
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int
    rate_hz: float


class Parser(Protocol):
    """Bytes to rows. Takes any bytes, in pieces of any size, with the same result; its memory is bounded."""

    @property
    def row_bytes(self) -> int:
        """Bytes from one row to the next as far as known, at least 1."""

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """Take bytes that were there at ``arrival_ns``; return the rows that they complete (perhaps none)."""

    def tally(self) -> Offsets:
        """(4,) totals so far: valid frames, bad checksums, skipped bytes, values out of range."""


S = TypeVar("S", bound=SerialConfig)


class SerialSensor(Driver[S]):
    """Base of the drivers; packets never span a loss."""

    product: ClassVar[str]
    """What a person calls the device, for example ``WitMotion sensor``."""
    bauds: ClassVar[tuple[int, ...]]
    """What the device can be set to, factory settings first."""
    needed: str = "acceleration and angular rate"
    """What the device must send for a row, in words."""

    def __init__(self, name: str, cfg: S) -> None:
        super().__init__(name, cfg)
        self._link = SerialLink(cfg.port, cfg.baud)
        self._batch_rows = max(1, round(cfg.rate_hz * BATCH_NS / NS_PER_S))
        self._batch = Batch(name, cfg.rate_hz, self._batch_rows)
        self._where = f"{cfg.port} at {cfg.baud} baud"
        self._heard_ns = 0
        self._parser: Parser

    @property
    def place(self) -> str | None:
        return self._link.place

    @abstractmethod
    def new_parser(self) -> Parser:
        """A parser for a new stream. Raises Misconfigured where a package that it needs is not installed."""

    def _new_timeline(self) -> Timeline:
        return Timeline(self.cfg.rate_hz)

    def _greet(self) -> None:
        """Set the device up through ``self._link``, which is open. Raises Unavailable or Misconfigured."""

    def _judge(self, rows: Rows) -> None:
        """Note what is wrong with values that are valid; called with at least one row, after they were counted."""

    def open(self) -> None:
        self._parser = self.new_parser()
        self._link.open()
        try:
            self._greet()
        except DriverError:
            self._link.close()
            raise
        now_ns = self._heard_ns = time.monotonic_ns()
        self._timeline = self._new_timeline()
        self._watch = Watch(self._where, self.cfg.rate_hz, self.counters, now_ns, self.needed)
        self._batch = Batch(self.name, self.cfg.rate_hz, self._batch_rows)

    def read(self, timeout: float) -> Packet | None:
        """Rows of about 50 ms where ``timeout`` allows. Raises Unavailable when bytes come but never a valid frame."""
        deadline_ns = time.monotonic_ns() + int(timeout * NS_PER_S)
        while not self._batch.ready():
            last_try = time.monotonic_ns() >= deadline_ns
            self._take(*self._gather(deadline_ns))
            if last_try:
                break
        return self._batch.packet()

    def close(self) -> None:
        self._link.close()

    def _gather(self, deadline_ns: int) -> tuple[bytes, int]:
        """Bytes for one packet and the arrival of the last of them; decoding each row alone would cost more."""
        rows = self._batch_rows - len(self._batch)
        wanted = rows * self._parser.row_bytes
        begin_ns = time.monotonic_ns()
        received, arrival_ns = self._hear(0)
        missing_rows = rows - len(received) // self._parser.row_bytes
        rest_ns = round((missing_rows - AWAITED_ROWS) * NS_PER_S / self.cfg.rate_hz)
        self._link.rest((min(begin_ns + rest_ns, deadline_ns) - time.monotonic_ns()) / NS_PER_S)
        if not received:
            received, arrival_ns = self._hear((deadline_ns - time.monotonic_ns()) / NS_PER_S)
        end_ns = min(deadline_ns, arrival_ns + BATCH_NS)
        while received and len(received) < wanted and (left_ns := end_ns - time.monotonic_ns()) > 0:
            try:
                more, at_ns = self._hear(left_ns / NS_PER_S)
            except Disconnected:
                # What came before is still good; the next read meets the same end.
                break
            if more:
                received, arrival_ns = received + more, at_ns
        return received, arrival_ns

    def _hear(self, timeout: float) -> tuple[bytes, int]:
        """As ``SerialLink.read``; after a pause, all that waits: only then the newest byte has just come."""
        received, arrival_ns = self._link.read(timeout)
        paused = bool(received) and arrival_ns - self._heard_ns > PAUSE_NS
        while paused:
            begin_ns = time.monotonic_ns()
            try:
                while (left_ns := begin_ns + DRAIN_NS - time.monotonic_ns()) > 0:
                    more, at_ns = self._link.read(left_ns / NS_PER_S)
                    if more:
                        received, arrival_ns = received + more, at_ns
            except Disconnected:
                break
            # Kept busy again in between: then more may wait again.
            paused = time.monotonic_ns() - begin_ns > 2 * DRAIN_NS and len(received) < MOST_WAITING_BYTES
        if received:
            self._heard_ns = arrival_ns
        return received, arrival_ns

    def _take(self, chunk: bytes, now_ns: int) -> None:
        before = self._parser.tally()
        rows = self._parser.feed(chunk, now_ns)
        frames, bad_checksums, skipped_bytes, out_of_range = (self._parser.tally() - before).tolist()
        self.counters.bad_checksum += bad_checksums
        self.counters.resync_bytes += skipped_bytes
        self.counters.out_of_range += out_of_range
        if len(rows.values):
            t_ns, lost = self._timeline.place(rows)
            self._batch.add(rows.values, t_ns, lost)
            self.counters.lost += int(lost.sum())
            self._judge(rows)
        silence = self._watch.update(frames, len(rows.values), len(chunk), now_ns)
        if silence:
            raise Unavailable(f"{silence}: {self._wrong_baud()}")

    def _wrong_baud(self) -> str:
        others = ", ".join(str(baud) for baud in self.bauds if baud != self.cfg.baud)
        rates = f", or it talks at another rate (baud = {others})" if others else ""
        return f"no {self.product}{rates}; find out with: axond sensors probe {self.cfg.port}"


class Batch:
    """Rows in, packets out: a packet is what has gathered up to the next loss."""

    def __init__(self, sensor: str, rate_hz: float, rows: int) -> None:
        """``rows``: as many are worth a packet."""
        self._sensor = sensor
        self._dt_ns = round(NS_PER_S / rate_hz)
        self._rows = rows
        self._seq = 0
        self._values: npt.NDArray[Any] | None = None
        self._t_ns = np.zeros(0, np.int64)
        self._lost = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._t_ns)

    def ready(self) -> bool:
        """Whether the next packet cannot grow, or need not."""
        return len(self) >= self._rows or bool(self._lost[1:].any())

    def add(self, values: npt.NDArray[Any], t_ns: Offsets, lost: Offsets) -> None:
        """(n, channels), their capture times, and the samples missing before each."""
        self._values = values if self._values is None else np.concatenate([self._values, values])
        self._t_ns = np.concatenate([self._t_ns, t_ns])
        self._lost = np.concatenate([self._lost, lost])

    def packet(self) -> Packet | None:
        """Everything up to the first loss behind its beginning, or None."""
        if self._values is None or not len(self):
            return None
        gaps = np.flatnonzero(self._lost[1:])
        cut = int(gaps[0]) + 1 if len(gaps) else len(self)
        packet = Packet(
            sensor=self._sensor,
            seq=self._seq,
            t0_ns=int(self._t_ns[0]),
            dt_ns=self._dt_ns,
            data=self._values[:cut].copy(),
            lost=int(self._lost[0]),
        )
        self._seq += 1
        self._values, self._t_ns, self._lost = self._values[cut:], self._t_ns[cut:], self._lost[cut:]
        return packet
