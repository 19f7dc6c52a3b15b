"""Nooploop TOFSense, TOFSense-F and -P (also sold by DFRobot and Waveshare): laser rangers that send by themselves.

``57 00 FF ID T T T T D D D S A A P SUM``, little-endian: system time in ms, distance in mm, its status, signal
strength, precision in cm; SUM is the low byte of the sum of the 15 bytes before it. What a status means differs by
model, so it is a channel. Source: Nooploop, TOFSense-F User Manual V1.2, 7.2.1 (NLink_TOFSense_Frame0).
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from drivers.base import DriverConfig
from drivers.lib.framing import U8, FrameFormat, Offsets, sum8
from drivers.lib.ranging import RangeParser, StillTarget, Values, within
from drivers.lib.serial_sensor import SerialConfig, SerialSensor
from drivers.lib.timeline import Rows, Timeline
from drivers.packet import SensorInfo

FORMAT = FrameFormat(header=((0x57, 0x57), (0x00, 0x00)), length=16, checksum=sum8(0, 15))
TICK_HZ = 1000
MOST_MM = 25_000
"""No model reaches further."""


class TofsenseConfig(SerialConfig):
    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=921600, ge=4800, le=3_000_000)
    rate_hz: float = Field(default=50, ge=1, le=350)


def decode(frames: U8) -> Values:
    """(n, 3) of (n, 16) bytes: mm, status, strength."""
    byte = frames.astype(np.int32)
    distance_mm = byte[:, 8] | byte[:, 9] << 8 | byte[:, 10] << 16
    values: Values = np.stack([distance_mm, byte[:, 11], byte[:, 12] | byte[:, 13] << 8], axis=1)
    return values


def system_ms(frames: U8) -> Offsets:
    """(n,) the sensor's own time."""
    ticks: Offsets = np.ascontiguousarray(frames[:, 4:8]).view("<u4").ravel().astype(np.int64)
    return ticks


class Tofsense(SerialSensor[TofsenseConfig]):
    """Distance (no target is 0), status and strength. Times are those of the sensor's clock."""

    Config: ClassVar[type[DriverConfig]] = TofsenseConfig

    product = "TOFSense in active output mode"
    bauds = (921600, 115200, 230400, 460800)
    needed = "distance"

    def info(self) -> SensorInfo:
        channels = ("distance", "status", "strength")
        return SensorInfo("ultrasonic", channels, ("mm", "1", "1"), (1.0, 1.0, 1.0), self.cfg.rate_hz)

    def new_parser(self) -> RangeParser:
        self._still = StillTarget(self.cfg.rate_hz, self.counters)
        return RangeParser(FORMAT, self.cfg.baud, decode, within(1, MOST_MM), system_ms)

    def _new_timeline(self) -> Timeline:
        return Timeline(self.cfg.rate_hz, TICK_HZ, modulus=1 << 32)

    def _judge(self, rows: Rows) -> None:
        self._still.update(rows.values)


DRIVER = Tofsense
