"""WitMotion WT901, JY901, HWT90x, BWT61: acceleration and angular rate over a serial port.

11-byte frames ``55 TT d0..d7 SUM``; a cycle of the sensor sends its frames in ascending order of TT: 0x50 time (where
switched on), 0x51 acceleration, 0x52 angular rate, others. Source: WIT standard communication protocol.
"""

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from drivers.base import DriverConfig
from drivers.lib.clock import sent_ns
from drivers.lib.framing import FrameFormat, FrameScanner, Offsets, steps_from, sum8
from drivers.lib.serial_sensor import SerialConfig, SerialSensor
from drivers.lib.timeline import Rows, Timeline
from drivers.lib.watch import STUCK_S, Still
from drivers.packet import SensorInfo

FRAME_BYTES = 11
TIME, ACCELERATION, ANGULAR_RATE = 0x50, 0x51, 0x52
FORMAT = FrameFormat(header=((0x55, 0x55), (0x50, 0x5F)), length=FRAME_BYTES, checksum=sum8(0, FRAME_BYTES - 1))
BAUDS = (9600, 115200, 921600, 230400, 460800, 57600, 38400, 19200, 4800)
"""What the sensors can be set to, factory settings of the models first."""
DAY_MS = 86_400_000

SATURATED = 32767
"""A value at the end of the scale (16 g, 2000 deg/s) is out of the sensor's range; it is kept, and counted."""


class WitmotionConfig(SerialConfig):
    """Port, and what the sensor was set to with the vendor's tool (the driver never writes to the sensor)."""

    port: str = Field(min_length=1)
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

    @property
    def row_bytes(self) -> int:
        return self.cycle_bytes or 2 * FRAME_BYTES

    def tally(self) -> Offsets:
        """(4,) totals so far: valid frames, bad checksums, skipped bytes, impossible times of day."""
        frames = self._frames_before + len(self._data)
        return np.array([frames, self.scanner.bad_checksums, self.scanner.skipped_bytes, self.bad_times])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """Take bytes that were there at ``arrival_ns``; return the rows that they complete."""
        frames = self.scanner.feed(chunk)
        data = np.concatenate([self._data, frames.data])
        ends = np.concatenate([self._ends, frames.ends])
        kind = data[:, 1]
        touches = steps_from(-1, ends) == FRAME_BYTES
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


class Witmotion(SerialSensor[WitmotionConfig]):
    """One sensor. Rows lost to damage, gaps in the sensor's time or silence are counted in ``Packet.lost``."""

    Config: ClassVar[type[DriverConfig]] = WitmotionConfig

    product = "WitMotion sensor"
    bauds = BAUDS

    def info(self) -> SensorInfo:
        return SensorInfo(
            family="imu",
            channels=("ax", "ay", "az", "gx", "gy", "gz"),
            units=("g",) * 3 + ("deg/s",) * 3,
            scale=(16 / 32768,) * 3 + (2000 / 32768,) * 3,
            rate_hz=self.cfg.rate_hz,
        )

    def new_parser(self) -> RowJoiner:
        self._gyro = Still(
            "stuck_gyro",
            f"angular rate has not changed by one step for {STUCK_S} s: the gyroscope is dead",
            self.cfg.rate_hz,
            self.counters,
        )
        return RowJoiner(self.cfg.baud)

    def _new_timeline(self) -> Timeline:
        return Timeline(self.cfg.rate_hz, tick_hz=1000, modulus=DAY_MS)

    def _judge(self, rows: Rows) -> None:
        """Counts saturated rows, and notes a gyroscope that is dead: a live one always dithers by its last bit."""
        self.counters.out_of_range += int((np.abs(rows.values.astype(np.int32)) >= SATURATED).any(axis=1).sum())
        self._gyro.update(rows.values[:, 3:])


DRIVER = Witmotion
