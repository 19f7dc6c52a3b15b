"""A ring, square or row of N transducers behind a microcontroller: our firmware's binary frames, or lines of text.

Binary (``hil/firmware/ultrasonic_array``): frames of ``drivers.lib.tick_frames`` of kind 1, with N u16 echo times in
us, 0 for no echo. Text: what ``drivers.ultrasonic.array_text`` reads. Echo time to distance: 58.3 us per cm at 20 degC.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from drivers.base import DriverConfig
from drivers.lib.framing import Offsets
from drivers.lib.ranging import NO_TARGET, ArrivalTimeline
from drivers.lib.serial_sensor import Parser, SerialConfig, SerialSensor
from drivers.lib.tick_frames import ECHO_TIMES, TICKS, TickFrameParser, TickTimeline
from drivers.lib.timeline import Rows, Timeline
from drivers.lib.watch import STUCK_S, Still
from drivers.packet import SensorInfo
from drivers.ultrasonic.array_text import TextParser

MM_PER_US = 10 / 58.3
JSON_TICK_HZ = 1000
"""``t`` of a JSON line is ``millis()``."""


class ArrayConfig(SerialConfig):
    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=115200, ge=9600, le=2_000_000)
    rate_hz: float = Field(default=20, ge=0.5, le=100)
    """Cycles of the whole array per second."""
    transducers: int = Field(default=4, ge=1, le=64)
    format: Literal["binary", "text"] = "binary"
    unit: Literal["us", "mm", "cm"] = "us"
    """What text lines carry: echo time, or distance. Binary frames carry us."""
    max_mm: int = Field(default=4000, ge=100, le=10_000)
    """An echo from further away is none: HC-SR04 end their pulse there."""


class Ranges:
    """Rows of a parser with everything that is no distance set to 0, and counted."""

    def __init__(self, parser: Parser, most: int) -> None:
        """``most``: the greatest value that is a distance."""
        self._parser = parser
        self._most = most
        self._out_of_range = 0

    @property
    def row_bytes(self) -> int:
        return self._parser.row_bytes

    def tally(self) -> Offsets:
        tally: Offsets = self._parser.tally() + np.array([0, 0, 0, self._out_of_range])
        return tally

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        rows = self._parser.feed(chunk, arrival_ns)
        values = rows.values.astype(np.int32)
        nothing = (values == NO_TARGET) | (values > self._most)
        values[nothing] = NO_TARGET
        self._out_of_range += int(np.count_nonzero(nothing))
        return Rows(values, rows.ticks, rows.left_ns, rows.missing)


class TextTimeline(Timeline):
    """By the ``t`` of JSON lines. Lines without one are captured when they leave the board: how long a sketch takes for
    a cycle depends on how far the walls are, so a count of them is no clock."""

    def __init__(self, rate_hz: float) -> None:
        super().__init__(rate_hz, JSON_TICK_HZ, TICKS)
        self._arrivals = ArrivalTimeline(rate_hz)
        self._with_ticks: bool | None = None

    def place(self, rows: Rows) -> tuple[Offsets, Offsets]:
        if self._with_ticks is None:
            self._with_ticks = bool((rows.ticks >= 0).any())
        return super().place(rows) if self._with_ticks else self._arrivals.place(rows)


class Array(SerialSensor[ArrayConfig]):
    """One column per transducer: echo time in us, or distance in mm (text that carries mm or cm); no echo is 0."""

    Config: ClassVar[type[DriverConfig]] = ArrayConfig

    product = "transducer array of this format"
    bauds = (115200, 9600, 57600, 230400, 500000, 1000000)

    def __init__(self, name: str, cfg: ArrayConfig) -> None:
        super().__init__(name, cfg)
        self.needed = f"echoes of {cfg.transducers} transducers in each frame"
        self._in_us = cfg.format == "binary" or cfg.unit == "us"

    def info(self) -> SensorInfo:
        count = self.cfg.transducers
        scale = MM_PER_US if self._in_us else 1.0
        names = tuple(f"d{index}" for index in range(count))
        return SensorInfo("ultrasonic", names, ("mm",) * count, (scale,) * count, self.cfg.rate_hz)

    def new_parser(self) -> Ranges:
        cfg = self.cfg
        self._still = Still(
            "still",
            f"no echo has changed by one step for {STUCK_S} s: nothing moves, or the array is stuck",
            cfg.rate_hz,
            self.counters,
        )
        most = round(cfg.max_mm / MM_PER_US) if self._in_us else cfg.max_mm
        if cfg.format == "text":
            return Ranges(TextParser(cfg.transducers, 10 if cfg.unit == "cm" else 1, cfg.baud), most)
        return Ranges(TickFrameParser(ECHO_TIMES, "<u2", cfg.transducers, cfg.baud, self._counter_watch()), most)

    def _new_timeline(self) -> Timeline:
        if self.cfg.format == "text":
            return TextTimeline(self.cfg.rate_hz)
        return TickTimeline(self.cfg.rate_hz)

    def _counter_watch(self) -> Still:
        sentence = f"the frame counter has stood still for {STUCK_S} s: the microcontroller repeats one frame"
        return Still("stuck_counter", sentence, self.cfg.rate_hz, self.counters)

    def _judge(self, rows: Rows) -> None:
        if rows.values.any():
            self._still.update(rows.values)


DRIVER = Array
