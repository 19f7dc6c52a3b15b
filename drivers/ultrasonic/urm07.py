"""DFRobot URM06 and URM07 (UART): asked with ``55 AA addr 00 02 SUM``, it answers ``55 AA addr 02 02 H L SUM``, mm.

SUM is the low byte of the sum of all before it. Source: DFRobot wiki SEN0149 to SEN0153.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator

from drivers.base import DriverConfig
from drivers.lib.framing import U8, FrameFormat, sum8
from drivers.lib.polled_sensor import FramedAnswers, PolledSensor
from drivers.lib.ranging import RangeParser, StillTarget, Values, within
from drivers.lib.serial_sensor import SerialConfig
from drivers.lib.timeline import Rows
from drivers.packet import SensorInfo

READ_DISTANCE = 0x02
ANSWER_BYTES = 8


class Urm07Config(SerialConfig):
    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=19200, ge=1200, le=115200)
    address: int = Field(default=0x11, ge=0, le=255)
    rate_hz: float = Field(default=10, ge=0.1, le=20)
    """How often it is asked."""
    min_mm: int = Field(default=200, ge=1, le=65534)
    max_mm: int = Field(default=6000, ge=1, le=65534)
    """Distances outside are no target; URM07 200 to 1500 mm, URM06 200 to 6000 mm or more."""

    @model_validator(mode="after")
    def _is_a_range(self) -> "Urm07Config":
        if self.min_mm > self.max_mm:
            raise ValueError(f"no distance lies between min_mm = {self.min_mm} and max_mm = {self.max_mm}")
        return self


def question(address: int) -> bytes:
    """The command that asks for one distance."""
    command = bytes([0x55, 0xAA, address, 0x00, READ_DISTANCE])
    return command + bytes([sum(command) & 0xFF])


def frame_format(address: int) -> FrameFormat:
    header = (0x55, 0xAA, address, 0x02, READ_DISTANCE)
    return FrameFormat(tuple((byte, byte) for byte in header), ANSWER_BYTES, sum8(0, ANSWER_BYTES - 1))


def decode(frames: U8) -> Values:
    """(n, 1) mm, whatever they are."""
    values: Values = frames[:, 5:6].astype(np.int32) * 256 + frames[:, 6:7]
    return values


class Urm07(PolledSensor[Urm07Config]):
    """One distance per question in mm; no target is 0. Times are those of the questions."""

    Config: ClassVar[type[DriverConfig]] = Urm07Config

    product = "URM06 or URM07 with this address"
    bauds = (19200, 9600, 115200, 38400, 57600)
    needed = "distance"

    def info(self) -> SensorInfo:
        return SensorInfo("ultrasonic", ("distance",), ("mm",), (1.0,), self.cfg.rate_hz)

    def new_parser(self) -> FramedAnswers:
        self._still = StillTarget(self.cfg.rate_hz, self.counters)
        address = self.cfg.address
        frames = RangeParser(frame_format(address), self.cfg.baud, decode, within(self.cfg.min_mm, self.cfg.max_mm))
        return FramedAnswers(frames, question(address))

    def _judge(self, rows: Rows) -> None:
        self._still.update(rows.values)


DRIVER = Urm07
