"""US-100 in UART mode (jumper fitted): asked with 0x55 it answers two bytes, mm; with 0x50 one, degC + 45.

Answers have neither header nor checksum: what comes unasked or late is thrown away before each question, and a value
that the sensor cannot mean is no target. Sources: US-100 sketches by several authors, Adafruit product page 4019.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from drivers.base import DriverConfig
from drivers.lib.framing import Offsets
from drivers.lib.polled_sensor import PolledSensor
from drivers.lib.ranging import NO_TARGET, StillTarget
from drivers.lib.serial_sensor import SerialConfig
from drivers.lib.timeline import Rows
from drivers.packet import SensorInfo

ASK_DISTANCE, ASK_TEMPERATURE = b"\x55", b"\x50"
ANSWER_BYTES = {ASK_DISTANCE: 2, ASK_TEMPERATURE: 1}
LEAST_MM, MOST_MM = 2, 9999
LEAST_RAW_TEMPERATURE, MOST_RAW_TEMPERATURE = 2, 129
TEMPERATURE_OFFSET_DEGC = 45
TEMPERATURE_EVERY_S = 2


class Us100Config(SerialConfig):
    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=9600, ge=9600, le=9600)
    rate_hz: float = Field(default=10, ge=0.1, le=15)
    """How often it is asked; an answer takes up to 30 ms, and echoes need time to die away."""


class Us100Answers:
    """Distance and temperature; a row is captured when its distance is asked for."""

    asks = True
    row_bytes = 2

    def __init__(self, rate_hz: float) -> None:
        self._slots_per_temperature = max(1, round(TEMPERATURE_EVERY_S * rate_hz))
        self._slots_since = 0
        self._question: bytes | None = None
        self._then_distance = False
        self._came = b""
        self._slot = 0
        self._asked_ns = 0
        self.temperature_degc: int | None = None
        """The newest that was answered, None for none yet."""
        self._frames = self._skipped = self._out_of_range = 0

    @property
    def waiting(self) -> bool:
        return self._question is not None

    def tally(self) -> Offsets:
        return np.array([self._frames, 0, self._skipped, self._out_of_range])

    def ask(self, slot: int, now_ns: int) -> bytes:
        self._slot, self._asked_ns = slot, now_ns
        self._then_distance = self._slots_since == 0
        self._slots_since = (self._slots_since + 1) % self._slots_per_temperature
        return self._begin(ASK_TEMPERATURE if self._then_distance else ASK_DISTANCE)

    def ask_on(self) -> bytes:
        if not self._then_distance:
            return b""
        self._then_distance = False
        return self._begin(ASK_DISTANCE)

    def give_up(self) -> int:
        given_up = len(self._came)
        self._question, self._came = None, b""
        return given_up

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """A row when these bytes complete the answer to the distance. Longer than asked for is no answer."""
        question, came = self._question, self._came + chunk
        values = np.zeros((0, 2), np.int32)
        if question is not None and len(came) < ANSWER_BYTES[question]:
            self._came = came
        elif question is None or len(came) > ANSWER_BYTES[question]:
            self._skipped += len(came)
            self._question, self._came = None, b""
        else:
            self._frames += 1
            self._question, self._came = None, b""
            if question == ASK_TEMPERATURE:
                self._take_temperature(came[0])
            else:
                values = np.array([[self._distance(came), self.temperature_degc or 0]], np.int32)
        count = len(values)
        return Rows(values, np.full(count, self._slot), np.full(count, self._asked_ns), np.zeros(count, np.int64))

    def _begin(self, question: bytes) -> bytes:
        self._question, self._came = question, b""
        return question

    def _distance(self, answer: bytes) -> int:
        distance_mm = int.from_bytes(answer, "big")
        if LEAST_MM <= distance_mm <= MOST_MM:
            return distance_mm
        self._out_of_range += 1
        return NO_TARGET

    def _take_temperature(self, raw: int) -> None:
        if LEAST_RAW_TEMPERATURE <= raw <= MOST_RAW_TEMPERATURE:
            self.temperature_degc = raw - TEMPERATURE_OFFSET_DEGC
        else:
            self._out_of_range += 1


class Us100(PolledSensor[Us100Config]):
    """Distance in mm (no target is 0) and air temperature in degC, asked for every 2 s and repeated in between.

    Until the first answer to that it is 0, which is noted.
    """

    Config: ClassVar[type[DriverConfig]] = Us100Config

    product = "US-100"
    bauds = (9600,)
    needed = "distance"

    def info(self) -> SensorInfo:
        return SensorInfo("ultrasonic", ("distance", "temperature"), ("mm", "degC"), (1.0, 1.0), self.cfg.rate_hz)

    def new_parser(self) -> Us100Answers:
        self._still = StillTarget(self.cfg.rate_hz, self.counters)
        self._answers = Us100Answers(self.cfg.rate_hz)
        return self._answers

    def _judge(self, rows: Rows) -> None:
        self._still.update(rows.values[:, :1])
        if self._answers.temperature_degc is None:
            self.counters.notes["no_temperature"] = (
                f"the sensor on {self._where} answers for distance but not for temperature: 0 degC stands for that"
            )
        else:
            self.counters.notes.pop("no_temperature", None)


DRIVER = Us100
