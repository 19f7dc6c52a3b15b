"""Benewake TFmini, TFmini-S, TFmini Plus, TF-Luna and TF02: small lidars that do the job of an ultrasonic sensor.

``59 59 distL distH ampL ampH b6 b7 SUM``, SUM is the low byte of the sum of the eight bytes before it. Some units send
sums that are off by one in bursts: bit errors in the data, rejected. Source: Benewake data sheets of these products.
"""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from drivers.base import DriverConfig
from drivers.lib.framing import U8, FrameFormat, sum8
from drivers.lib.ranging import RangeParser, StillTarget, Values
from drivers.lib.serial_sensor import SerialConfig, SerialSensor
from drivers.lib.timeline import Rows
from drivers.packet import SensorInfo

FORMAT = FrameFormat(header=((0x59, 0x59), (0x59, 0x59)), length=9, checksum=sum8(0, 8))

Model = Literal["tfmini_s", "tfmini", "tf02"]
LEAST_STRENGTH = 100
SATURATED_STRENGTH = 65535
MOST_CM = 4500
"""Above are the error codes 65532, 65534, 65535, and what no model reaches."""
TEMPERATURE_OFFSET = 256 * 8


class TfminiConfig(SerialConfig):
    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=115200, ge=9600, le=921600)
    model: Model = "tfmini_s"
    """``tfmini_s`` also for TFmini Plus and TF-Luna."""
    rate_hz: float = Field(default=100, ge=1, le=1000)


def decode_s(frames: U8) -> Values:
    """(n, 3): cm, strength, temperature in 1/8 degC."""
    values: Values = np.ascontiguousarray(frames[:, 2:8]).view("<u2").astype(np.int32)
    values[:, 2] -= TEMPERATURE_OFFSET
    return values


def decode_plain(frames: U8) -> Values:
    """(n, 3): cm, strength, and byte 6: the mode of the old TFmini, the reliability of TF02."""
    values = decode_s(frames)
    values[:, 2] = frames[:, 6]
    return values


def is_target(values: Values) -> npt.NDArray[np.bool_]:
    """Too weak, saturated, and error codes are no distances."""
    distance_cm, strength = values[:, 0], values[:, 1]
    seen: npt.NDArray[np.bool_] = (strength >= LEAST_STRENGTH) & (strength < SATURATED_STRENGTH)
    return seen & (distance_cm > 0) & (distance_cm <= MOST_CM)


class Tfmini(SerialSensor[TfminiConfig]):
    """Distance (no target is 0), strength, and a third channel by model."""

    Config: ClassVar[type[DriverConfig]] = TfminiConfig

    product = "TFmini, TF-Luna or TF02"
    bauds = (115200, 9600, 921600, 230400, 57600, 460800)
    needed = "distance in the standard 9-byte format"

    def info(self) -> SensorInfo:
        third, unit, scale = {
            "tfmini_s": ("temperature", "degC", 1 / 8),
            "tfmini": ("mode", "1", 1.0),
            "tf02": ("reliability", "1", 1.0),
        }[self.cfg.model]
        return SensorInfo(
            "ultrasonic", ("distance", "strength", third), ("mm", "1", unit), (10.0, 1.0, scale), self.cfg.rate_hz
        )

    def new_parser(self) -> RangeParser:
        self._still = StillTarget(self.cfg.rate_hz, self.counters)
        decode = decode_s if self.cfg.model == "tfmini_s" else decode_plain
        return RangeParser(FORMAT, self.cfg.baud, decode, is_target)

    def _judge(self, rows: Rows) -> None:
        # The strength of a live one dithers even before a wall.
        self._still.update(rows.values[:, :2])


DRIVER = Tfmini
