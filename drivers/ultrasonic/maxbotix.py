"""MaxBotix MaxSonar (LV, XL, HRLV, HRXL): text ``R``, three or four digits, carriage return, over RS-232 or TTL.

The text has no checksum; length, digits and range are all that can be checked. Beyond the last distance of a model the
sensor repeats that distance: it is no target. Closer than the first one it repeats the first one, which is kept.
Outputs in RS-232 polarity (MB736x) and in TTL polarity (MB738x) have the same plug; mixed up, no reading comes out.
Sources: MaxBotix article on the TX output, data sheets PD11500 and PD12593.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from drivers.base import DriverConfig
from drivers.lib.framing import U8, FrameFormat, Offsets
from drivers.lib.ranging import ArrivalTimeline, RangeParser, StillTarget, Values, within
from drivers.lib.serial_sensor import SerialConfig, SerialSensor
from drivers.lib.timeline import Rows
from drivers.packet import SensorInfo

Model = Literal["lv", "xl", "xl_10m", "hrlv_5m", "hrxl_5m", "hrxl_10m"]
LIMITS: dict[Model, tuple[int, int, int, float]] = {
    "lv": (3, 1, 254, 25.4),
    "xl": (3, 1, 765, 10.0),
    "xl_10m": (4, 1, 1068, 10.0),
    "hrlv_5m": (4, 300, 5000, 1.0),
    "hrxl_5m": (4, 300, 5000, 1.0),
    "hrxl_10m": (4, 300, 9999, 1.0),
}
"""Digits, first distance, the distance that means no target, mm in a step."""


class MaxbotixConfig(SerialConfig):
    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=9600, ge=9600, le=9600)
    model: Model = "hrxl_5m"
    rate_hz: float = Field(default=7.5, ge=0.5, le=30)
    """Free-running: 7.5, 6.67, 6 or 5.17 Hz by model (HRXL), 10 Hz (XL, HRLV), 20 Hz (LV)."""


def frame_format(digits: int) -> FrameFormat:
    """``R``, digits, CR: the header is all of it."""
    header = (b"R", *[b"09"] * digits, b"\r")
    return FrameFormat(tuple((part[0], part[-1]) for part in header), len(header), _nothing_to_check)


def _nothing_to_check(_: U8, starts: Offsets) -> np.ndarray:
    return np.ones(len(starts), np.bool_)


def decode(frames: U8) -> Values:
    """(n, 1): the number between R and CR."""
    digits = frames[:, 1:-1].astype(np.int32) - ord("0")
    values: Values = (digits @ 10 ** np.arange(digits.shape[1] - 1, -1, -1, dtype=np.int32))[:, None]
    return values


class Maxbotix(SerialSensor[MaxbotixConfig]):
    """One distance per reading, in the sensor's unit; no target is 0. Times are arrivals less the time on the line."""

    Config: ClassVar[type[DriverConfig]] = MaxbotixConfig

    product = "MaxBotix sensor in this polarity and of this model"
    bauds = (9600,)
    needed = "distance"

    def info(self) -> SensorInfo:
        scale = LIMITS[self.cfg.model][3]
        return SensorInfo("ultrasonic", ("distance",), ("mm",), (scale,), self.cfg.rate_hz)

    def new_parser(self) -> RangeParser:
        self._still = StillTarget(self.cfg.rate_hz, self.counters)
        digits, low, nothing, _ = LIMITS[self.cfg.model]
        return RangeParser(frame_format(digits), self.cfg.baud, decode, within(low, nothing - 1))

    def _new_timeline(self) -> ArrivalTimeline:
        return ArrivalTimeline(self.cfg.rate_hz)

    def _judge(self, rows: Rows) -> None:
        self._still.update(rows.values)


DRIVER = Maxbotix
