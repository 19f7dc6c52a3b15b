"""CEVA BNO080, BNO085, BNO086 in UART-RVC mode: acceleration and orientation over a serial port.

19-byte frames, little-endian: ``AA AA index yaw pitch roll ax ay az 3 reserved SUM``, 100 per second at 115 200 baud,
no commands; the mode is strapped at the chip (PS0 high, PS1 low). Source: BNO08X data sheet, section UART-RVC.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from drivers.base import DriverConfig
from drivers.lib.clock import sent_ns
from drivers.lib.framing import FrameFormat, FrameScanner, Offsets, sum8
from drivers.lib.serial_sensor import SerialConfig, SerialSensor
from drivers.lib.timeline import Rows, Timeline
from drivers.lib.watch import STUCK_S, Still
from drivers.packet import SensorInfo

FRAME_BYTES = 19
FORMAT = FrameFormat(header=((0xAA, 0xAA), (0xAA, 0xAA)), length=FRAME_BYTES, checksum=sum8(2, FRAME_BYTES - 1))
INDEX_MODULUS = 256
RATE_HZ = 100.0
LIMITS = np.array([18000, 9000, 18000])
"""Yaw, pitch and roll lie within these, in 0.01 deg; one damaged frame in 256 passes the checksum and shows here."""
COLUMNS = [3, 4, 5, 0, 1, 2]
"""The wire has the angles first."""


class Bno08xRvcConfig(SerialConfig):
    """Only the port: baud rate and sample rate are fixed in the chip."""

    port: str = Field(min_length=1)
    baud: Literal[115200] = 115200
    rate_hz: Literal[100] = 100


class RvcParser:
    """Bytes to rows: ax ay az in mg, yaw pitch roll in 0.01 deg, int16; the ticks are the frame index."""

    row_bytes = FRAME_BYTES

    def __init__(self, baud: int) -> None:
        self.scanner = FrameScanner(FORMAT)
        self._baud = baud
        self._frames = 0
        self._impossible = 0

    def tally(self) -> Offsets:
        """(4,) totals so far: valid frames, bad checksums, skipped bytes, frames with an impossible angle."""
        return np.array([self._frames, self.scanner.bad_checksums, self.scanner.skipped_bytes, self._impossible])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """Take bytes that were there at ``arrival_ns``; return the rows that they complete."""
        frames = self.scanner.feed(chunk)
        words = np.ascontiguousarray(frames.data[:, 3:15]).view("<i2").astype(np.int16)
        possible = (np.abs(words[:, :3].astype(np.int32)) <= LIMITS).all(axis=1)
        self._frames += len(words)
        self._impossible += int(np.count_nonzero(~possible))
        left_ns = sent_ns(arrival_ns, self.scanner.position - frames.ends + FRAME_BYTES, self._baud)
        index = frames.data[:, 2].astype(np.int64)
        count = int(np.count_nonzero(possible))
        return Rows(words[possible][:, COLUMNS], index[possible], left_ns[possible], np.zeros(count, np.int64))


class Bno08xRvc(SerialSensor[Bno08xRvcConfig]):
    """One sensor. Rows missing in the frame index are counted in ``Packet.lost``."""

    Config: ClassVar[type[DriverConfig]] = Bno08xRvcConfig
    product = "BNO08x in UART-RVC mode"
    bauds = (115200,)

    def info(self) -> SensorInfo:
        return SensorInfo(
            family="imu",
            channels=("ax", "ay", "az", "yaw", "pitch", "roll"),
            units=("g",) * 3 + ("deg",) * 3,
            scale=(0.001,) * 3 + (0.01,) * 3,
            rate_hz=RATE_HZ,
        )

    def new_parser(self) -> RvcParser:
        self._counter = Still(
            "stuck_counter",
            f"the frame index has not changed for {STUCK_S} s: the sensor repeats itself, reset it",
            RATE_HZ,
            self.counters,
        )
        self._acceleration = Still(
            "stuck_values",
            f"acceleration has not changed by one step for {STUCK_S} s: the sensor is dead, reset it",
            RATE_HZ,
            self.counters,
        )
        return RvcParser(self.cfg.baud)

    def _new_timeline(self) -> Timeline:
        return Timeline(RATE_HZ, tick_hz=RATE_HZ, modulus=INDEX_MODULUS)

    def _judge(self, rows: Rows) -> None:
        self._counter.update(rows.ticks[:, None])
        self._acceleration.update(rows.values[:, :3])

    def _wrong_baud(self) -> str:
        return f"no {self.product}, which always talks at {self.bauds[0]} baud; strap PS0 high and PS1 low"


DRIVER = Bno08xRvc
