"""WitMotion WT901, JY901, HWT90x, BWT61: acceleration and angular rate over a serial port.

11-byte frames ``55 TT d0..d7 SUM``; a cycle of the sensor sends its frames in ascending order of TT: 0x50 time (where
switched on), 0x51 acceleration, 0x52 angular rate, others. Source: WIT standard communication protocol.
"""

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from drivers.base import Disconnected, Driver, DriverConfig, Unavailable
from drivers.lib.clock import NS_PER_S, DeviceClock, sent_ns
from drivers.lib.framing import FrameFormat, FrameScanner, Offsets, sum8
from drivers.lib.serial_link import SerialLink
from drivers.lib.watch import Watch
from drivers.packet import Packet, SensorInfo

FRAME_BYTES = 11
TIME, ACCELERATION, ANGULAR_RATE = 0x50, 0x51, 0x52
FORMAT = FrameFormat(header=((0x55, 0x55), (0x50, 0x5F)), length=FRAME_BYTES, checksum=sum8(0, FRAME_BYTES - 1))
BAUDS = (9600, 115200, 921600, 230400, 460800, 57600, 38400, 19200, 4800)
"""What the sensors can be set to, factory settings of the models first."""
DAY_MS = 86_400_000

BATCH_NS = 50_000_000
"""A packet gathers this much where the time-out allows."""
GAP_NS = 500_000_000
"""Without a device clock, a pause this long is a loss and not a late delivery."""
CLOCK_SLACK_NS = 1_000_000_000
"""The sensor's clock may claim this much more lost time than the host saw pass."""
STUCK_S = 5
SATURATED = 32767
"""A value at the end of the scale (16 g, 2000 deg/s) is out of the sensor's range; it is kept, and counted."""


class WitmotionConfig(DriverConfig):
    """Port, and what the sensor was set to with the vendor's tool (the driver never writes to the sensor)."""

    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=115200, ge=4800, le=921600)
    rate_hz: float = Field(default=50, ge=0.1, le=1000)

    @model_validator(mode="after")
    def _fits_the_line(self) -> "WitmotionConfig":
        needed = 2 * FRAME_BYTES * 10 * self.rate_hz
        if needed > self.baud:
            raise ValueError(
                f"acceleration and angular rate at {self.rate_hz:g} Hz need {needed:.0f} baud, the port has {self.baud}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Rows:
    """Complete cycles of the sensor, one array element each."""

    values: npt.NDArray[np.int16]
    """(n, 6): ax ay az gx gy gz."""
    device_ms: Offsets
    """(n,) time of day of the sensor's clock; -1 where the cycle had no usable time frame."""
    left_ns: Offsets
    """(n,) CLOCK_MONOTONIC at which the cycle's first byte left the sensor, late by the delivery."""
    missing: Offsets
    """(n,) cycles that the damage in the byte stream before this one has cost."""


class RowJoiner:
    """Bytes to rows: frames 0x51 and 0x52 make a row only when they touch, so two cycles are never mixed."""

    def __init__(self, baud: int) -> None:
        self.scanner = FrameScanner(FORMAT)
        self.bad_times = 0
        """Time frames with an impossible time of day. (An impossible date is normal: the clock was never set.)"""
        self._baud = baud
        self._data = np.zeros((0, FRAME_BYTES), np.uint8)
        self._ends = np.zeros(0, np.int64)
        self._frames_before = 0
        self._rows_before = 0
        self._last_row: tuple[int, int, int] | None = None
        self.cycle_bytes = 0
        """Bytes from one row to the next in an undamaged stream; 0 while unknown."""

    def tally(self) -> Offsets:
        """Totals so far: valid frames, bad checksums, skipped bytes, impossible times of day."""
        frames = self._frames_before + len(self._data)
        return np.array([frames, self.scanner.bad_checksums, self.scanner.skipped_bytes, self.bad_times])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """Take bytes that were there at ``arrival_ns``; return the rows that they complete."""
        frames = self.scanner.feed(chunk)
        data = np.concatenate([self._data, frames.data])
        ends = np.concatenate([self._ends, frames.ends])
        kind = data[:, 1]
        touches = np.diff(ends, prepend=-1) == FRAME_BYTES
        is_acc = kind == ACCELERATION
        acc = np.flatnonzero(is_acc[:-1] & (kind[1:] == ANGULAR_RATE) & touches[1:])
        timed = (acc > 0) & (kind[acc - 1] == TIME) & touches[acc]

        words = np.ascontiguousarray(data[:, 2:10]).view("<i2").astype(np.int16)
        values = np.concatenate([words[acc, :3], words[acc + 1, :3]], axis=1)
        device_ms = np.full(len(acc), -1, np.int64)
        device_ms[timed] = self._time_of_day_ms(data[acc[timed] - 1])
        first_byte = ends[acc] - FRAME_BYTES * np.where(timed, 2, 1)
        left_ns = sent_ns(arrival_ns, self.scanner.position - first_byte, self._baud)
        # Of the cycle in which we began to listen, a time frame may lie before our first byte.
        first = 1 if self._last_row is None and len(acc) and not timed[0] else 0
        missing = self._missing(acc, ends, np.cumsum(is_acc))

        keep = _unfinished(kind, touches)
        self._frames_before += len(data) - keep
        self._rows_before += int(np.count_nonzero(is_acc)) - int(np.count_nonzero(is_acc[len(data) - keep :]))
        self._data, self._ends = data[len(data) - keep :].copy(), ends[len(data) - keep :].copy()
        return Rows(values[first:], device_ms[first:], left_ns[first:], missing[first:])

    def _time_of_day_ms(self, frames: npt.NDArray[np.uint8]) -> Offsets:
        hour, minute, second, low, high = (frames[:, i].astype(np.int64) for i in range(5, 10))
        millisecond = low + 256 * high
        possible = (hour < 24) & (minute < 60) & (second < 60) & (millisecond < 1000)
        self.bad_times += int(np.count_nonzero(~possible))
        time_ms: Offsets = np.where(possible, ((hour * 60 + minute) * 60 + second) * 1000 + millisecond, -1)
        return time_ms

    def _missing(self, acc: npt.NDArray[np.intp], ends: Offsets, acc_seen: Offsets) -> Offsets:
        """Cycles lost before each row: acceleration frames without their partner, or the space that damage took."""
        if not len(acc):
            return np.zeros(0, np.int64)
        damage = ends[acc] - FRAME_BYTES * (self._frames_before + acc + 1)
        marks = np.stack([ends[acc], damage, self._rows_before + acc_seen[acc]], axis=1)
        # What was damaged before the first row was no row of ours: the stream began in the middle of it.
        before = marks[0] - (0, 0, 1) if self._last_row is None else np.array(self._last_row)
        distance, damage, orphans = np.diff(marks, axis=0, prepend=before[None]).T - np.array([[0], [0], [1]])
        clean = distance[(damage == 0) & (orphans == 0) & (distance > 0)]
        if len(clean):
            self.cycle_bytes = int(clean[-1])
        self._last_row = int(marks[-1, 0]), int(marks[-1, 1]), int(marks[-1, 2])
        by_space = np.rint(distance / self.cycle_bytes).astype(np.int64) - 1 if self.cycle_bytes else np.ones(1)
        lost: Offsets = np.maximum(orphans, np.where(damage > 0, by_space, 0))
        return lost


def _unfinished(kind: npt.NDArray[np.uint8], touches: npt.NDArray[np.bool_]) -> int:
    """How many frames at the end may belong to a row that is still arriving."""
    if not len(kind) or kind[-1] not in (TIME, ACCELERATION):
        return 0
    return 2 if len(kind) > 1 and kind[-1] == ACCELERATION and kind[-2] == TIME and touches[-1] else 1


class Timeline:
    """Gives every row its capture time and the number of rows lost just before it."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._period_ms = 1000 / rate_hz
        self._clock: DeviceClock | None = None
        self._timed = False
        self._count = 0
        self._rows_per_check = max(10, round(rate_hz))
        self._late_ns = np.zeros(0)
        self._last_ms = 0.0
        self._last_left_ns = 0

    def place(self, rows: Rows) -> tuple[Offsets, Offsets]:
        """Capture times (n,) and losses (n,) of n >= 1 rows: by the sensor's clock if it sends it, else by count."""
        if self._clock is None:
            self._timed = bool((rows.device_ms >= 0).any())
            self._clock = DeviceClock(1000, DAY_MS) if self._timed else DeviceClock(self._rate_hz)
            first = int(np.argmax(rows.device_ms >= 0))
            self._last_ms = float(rows.device_ms[first]) - (first + 1) * self._period_ms
            self._last_left_ns = int(rows.left_ns[0])
        if self._timed:
            ticks, lost = self._by_device_time(rows)
        else:
            ticks, lost = self._by_count(rows, self._clock)
        self._last_left_ns = int(rows.left_ns[-1])
        return self._clock.update(ticks, rows.left_ns), lost

    def _by_device_time(self, rows: Rows) -> tuple[Offsets, Offsets]:
        """A cycle without a usable time frame is taken to follow its predecessor without a loss."""
        known = np.concatenate([[True], rows.device_ms >= 0])
        device_ms = np.concatenate([[self._last_ms], rows.device_ms])
        index = np.arange(len(known))
        source = np.maximum.accumulate(np.where(known, index, 0))
        device_ms = (device_ms[source] + (index - source) * self._period_ms) % DAY_MS
        step_ms = (np.diff(device_ms) + DAY_MS / 2) % DAY_MS - DAY_MS / 2
        self._last_ms = float(device_ms[-1])
        lost = np.rint(step_ms / self._period_ms).astype(np.int64) - 1
        # A clock that is being set jumps: beyond what the host saw pass, the host's own time is the better witness.
        elapsed_ns = np.diff(rows.left_ns, prepend=self._last_left_ns)
        by_host = np.rint(elapsed_ns * self._rate_hz / NS_PER_S).astype(np.int64) - 1
        jumped = step_ms * (NS_PER_S // 1000) > elapsed_ns + CLOCK_SLACK_NS
        lost = np.maximum(np.where(jumped, by_host, lost), 0)
        return np.rint(device_ms[1:]).astype(np.int64), lost

    def _by_count(self, rows: Rows, clock: DeviceClock) -> tuple[Offsets, Offsets]:
        """Losses from damage and pauses at once; those that left no trace when all rows have come late for a second."""
        lost: Offsets = rows.missing.copy()
        if self._count and int(rows.left_ns[0]) - self._last_left_ns > GAP_NS:
            # The newest row of a late delivery is on time; after a loss it is not.
            elapsed = round((int(rows.left_ns[-1]) - self._last_left_ns) * self._rate_hz / NS_PER_S)
            lost[0] += max(0, elapsed - int((1 + lost).sum()))
        late_ns = clock.late_ns(self._count + np.cumsum(1 + lost), rows.left_ns)
        self._late_ns = np.concatenate([self._late_ns, late_ns])[-self._rows_per_check :]
        slipped = int(self._late_ns.min() * self._rate_hz / NS_PER_S + 0.25)
        if slipped > 0 and len(self._late_ns) == self._rows_per_check:
            lost[0] += slipped
            self._late_ns = self._late_ns[:0]
        ticks: Offsets = self._count + np.cumsum(1 + lost)
        self._count = int(ticks[-1])
        return ticks, lost


class Witmotion(Driver[WitmotionConfig]):
    """One sensor. Rows lost to damage, gaps in the sensor's time or silence are counted in ``Packet.lost``."""

    Config: ClassVar[type[DriverConfig]] = WitmotionConfig

    def __init__(self, name: str, cfg: WitmotionConfig) -> None:
        super().__init__(name, cfg)
        self._link = SerialLink(cfg.port, cfg.baud)
        self._batch_rows = max(1, round(cfg.rate_hz * BATCH_NS / NS_PER_S))
        self._start(0)

    def info(self) -> SensorInfo:
        return SensorInfo(
            family="imu",
            channels=("ax", "ay", "az", "gx", "gy", "gz"),
            units=("g",) * 3 + ("deg/s",) * 3,
            scale=(16 / 32768,) * 3 + (2000 / 32768,) * 3,
            rate_hz=self.cfg.rate_hz,
        )

    def open(self) -> None:
        self._link.open()
        self._start(time.monotonic_ns())

    def read(self, timeout: float) -> Packet | None:
        """Rows of about 50 ms where ``timeout`` allows. Raises Unavailable when bytes come but never a valid frame."""
        deadline_ns = time.monotonic_ns() + int(timeout * NS_PER_S)
        while not self._enough():
            last_try = time.monotonic_ns() >= deadline_ns
            self._take(*self._gather(deadline_ns))
            if last_try:
                break
        return self._packet()

    def close(self) -> None:
        self._link.close()

    def _start(self, now_ns: int) -> None:
        self._joiner = RowJoiner(self.cfg.baud)
        self._timeline = Timeline(self.cfg.rate_hz)
        self._watch = Watch(f"{self.cfg.port} at {self.cfg.baud} baud", self.cfg.rate_hz, self.counters, now_ns)
        self._gyro = np.zeros((0, 3), np.int16)
        self._still_rows = 0
        self._seq = 0
        self._values = np.zeros((0, 6), np.int16)
        self._t_ns = np.zeros(0, np.int64)
        self._lost = np.zeros(0, np.int64)

    def _gather(self, deadline_ns: int) -> tuple[bytes, int]:
        """Bytes for one packet and the arrival of the last of them; decoding each row alone would cost more."""
        wanted = (self._batch_rows - len(self._values)) * (self._joiner.cycle_bytes or 2 * FRAME_BYTES)
        received, arrival_ns = self._link.read((deadline_ns - time.monotonic_ns()) / NS_PER_S)
        end_ns = min(deadline_ns, arrival_ns + BATCH_NS)
        while received and len(received) < wanted and (left_ns := end_ns - time.monotonic_ns()) > 0:
            try:
                more, at_ns = self._link.read(left_ns / NS_PER_S)
            except Disconnected:
                # What came before is still good; the next read meets the same end.
                break
            if more:
                received, arrival_ns = received + more, at_ns
        return received, arrival_ns

    def _enough(self) -> bool:
        return len(self._values) >= self._batch_rows or bool(self._lost[1:].any())

    def _take(self, chunk: bytes, now_ns: int) -> None:
        joiner, counters = self._joiner, self.counters
        before = joiner.tally()
        rows = joiner.feed(chunk, now_ns)
        frames, bad_checksums, skipped_bytes, bad_times = joiner.tally() - before
        counters.bad_checksum += int(bad_checksums)
        counters.resync_bytes += int(skipped_bytes)
        counters.out_of_range += int(bad_times)
        if len(rows.values):
            t_ns, lost = self._timeline.place(rows)
            self._values = np.concatenate([self._values, rows.values])
            self._t_ns = np.concatenate([self._t_ns, t_ns])
            self._lost = np.concatenate([self._lost, lost])
            counters.lost += int(lost.sum())
            self._judge(rows.values)
        silence = self._watch.update(int(frames), len(rows.values), len(chunk), now_ns)
        if silence:
            others = ", ".join(str(baud) for baud in BAUDS if baud != self.cfg.baud)
            raise Unavailable(f"{silence}: no WitMotion sensor, or it talks at another rate; try baud = {others}")

    def _judge(self, values: npt.NDArray[np.int16]) -> None:
        """Counts saturated rows, and notes a gyroscope that is dead: a live one always dithers by its last bit."""
        self.counters.out_of_range += int((np.abs(values.astype(np.int32)) >= SATURATED).any(axis=1).sum())
        gyro = np.concatenate([self._gyro, values[:, 3:]])
        self._gyro = gyro[-1:]
        self._still_rows = self._still_rows + len(values) if (gyro == gyro[0]).all() else 0
        if self._still_rows >= STUCK_S * self.cfg.rate_hz:
            sentence = f"angular rate has not changed by one step for {STUCK_S} s: the gyroscope is dead"
            self.counters.notes["stuck_gyro"] = sentence
        else:
            self.counters.notes.pop("stuck_gyro", None)

    def _packet(self) -> Packet | None:
        if not len(self._values):
            return None
        gaps = np.flatnonzero(self._lost[1:])
        cut = int(gaps[0]) + 1 if len(gaps) else len(self._values)
        packet = Packet(
            sensor=self.name,
            seq=self._seq,
            t0_ns=int(self._t_ns[0]),
            dt_ns=round(NS_PER_S / self.cfg.rate_hz),
            data=self._values[:cut].copy(),
            lost=int(self._lost[0]),
        )
        self._seq += 1
        self._values, self._t_ns, self._lost = self._values[cut:], self._t_ns[cut:], self._lost[cut:]
        return packet


DRIVER = Witmotion
