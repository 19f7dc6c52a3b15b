"""The four-byte family: DFRobot A01/A02YYUW and ME007YS, JSN-SR04T (modes 1-2), AJ-SR04M, DYP-A01/A02/A22.

``FF H L SUM``: distance in mm, SUM is the low byte of FF + H + L. With nothing in range these sensors send 0, 65535 or
other numbers with a good checksum, or stop sending. Frames with the sum of H and L alone are rejected.
Sources: DFRobot wiki SEN0310, SEN0311, SEN0312; JSN-SR04T manual.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from drivers.base import DriverConfig
from drivers.lib.framing import U8, FrameFormat, sum8
from drivers.lib.polled_sensor import FramedAnswers, PolledSensor
from drivers.lib.ranging import ArrivalTimeline, RangeParser, StillTarget, Values, within
from drivers.lib.serial_sensor import SerialConfig
from drivers.lib.timeline import Rows, Timeline
from drivers.packet import SensorInfo

FORMAT = FrameFormat(header=((0xFF, 0xFF),), length=4, checksum=sum8(0, 3))

Model = Literal["a01", "a02", "a22", "me007ys", "jsn_sr04t", "aj_sr04m"]
LIMITS_MM: dict[Model, tuple[int, int]] = {
    "a01": (280, 7500),
    "a02": (30, 4500),
    "a22": (30, 5000),
    "me007ys": (280, 4500),
    "jsn_sr04t": (200, 6000),
    "aj_sr04m": (200, 8000),
}
QUESTIONS = {"none": b"", "55": b"\x55", "01": b"\x01"}


class A02Config(SerialConfig):
    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=9600, ge=9600, le=115200)
    model: Model = "a02"
    rate_hz: float = Field(default=10, ge=0.5, le=20)
    """Real-time output 10 Hz, processed output 3.3 to 10 Hz; for a triggered sensor, how often it is asked."""
    trigger: Literal["none", "55", "01"] = "none"
    """Versions that answer: 0x55 (JSN-SR04T mode 2) or 0x01 (AJ-SR04M, DYP UART-controlled) asks for a frame."""


def decode(frames: U8) -> Values:
    """(n, 1) mm, whatever they are."""
    values: Values = frames[:, 1:2].astype(np.int32) * 256 + frames[:, 2:3]
    return values


class A02(PolledSensor[A02Config]):
    """One distance per frame in mm; no target is 0. Times are arrivals less the time on the line, or the questions'."""

    Config: ClassVar[type[DriverConfig]] = A02Config

    product = "sensor of the FF-H-L-SUM family"
    bauds = (9600, 115200, 19200, 57600)
    needed = "distance"

    def info(self) -> SensorInfo:
        return SensorInfo("ultrasonic", ("distance",), ("mm",), (1.0,), self.cfg.rate_hz)

    def new_parser(self) -> FramedAnswers:
        self._still = StillTarget(self.cfg.rate_hz, self.counters)
        frames = RangeParser(FORMAT, self.cfg.baud, decode, within(*LIMITS_MM[self.cfg.model]))
        return FramedAnswers(frames, QUESTIONS[self.cfg.trigger])

    def _new_timeline(self) -> Timeline:
        return ArrivalTimeline(self.cfg.rate_hz) if self.cfg.trigger == "none" else super()._new_timeline()

    def _judge(self, rows: Rows) -> None:
        self._still.update(rows.values)


DRIVER = A02
