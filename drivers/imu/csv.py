"""Lines of decimal numbers, as Arduino sketches print them: ``0.497,-0.501,0.722,0.488,-1.526,-14.282``.

Columns, units and scales are the configuration's; the defaults are those of the sketch for the Nano 33 BLE. There is no
checksum: the count of fields and the range are all that tells a damaged line. Slow channels of a machine come the same
way, as the model pump-condition takes them::

    [sensors.bench]
    driver = "imu.csv"
    port = "/dev/serial/by-id/..."
    family = "vibration"
    rate_hz = 10
    columns = ["pre1", "pre2", "vib1", "vib2", "vib3", "vib4"]
    units = ["MPa", "MPa", "1", "1", "1", "1"]
    scale = [0.001, 0.001, 0.001, 0.001, 0.001, 0.001]
    limit = [2.0, 2.0, 30.0, 30.0, 30.0, 30.0]
"""

import re
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from drivers.base import DriverConfig
from drivers.lib.clock import sent_ns
from drivers.lib.decimals import DecimalLines
from drivers.lib.framing import Offsets
from drivers.lib.framing_variable import Spacing
from drivers.lib.serial_sensor import SerialConfig, SerialSensor
from drivers.lib.timeline import Rows
from drivers.lib.watch import STUCK_S, Still
from drivers.packet import SensorInfo

SKIP = "-"
MAX_LINE_BYTES = 512
BYTES_PER_FIELD = 7
BAUDS = (115200, 9600, 500000, 57600, 230400, 1000000, 38400, 19200)
_DIGIT = re.compile(rb"\d")
_NO_VALUE = re.compile(rb" *(?:[+-]?(?:nan|inf)|ovf)? *", re.IGNORECASE)
"""What sketches print for a value that the sensor did not give."""


class CsvConfig(SerialConfig):
    """What the sketch prints. ``units``, ``scale`` and ``limit`` have an entry for each column that is not skipped."""

    port: str = Field(min_length=1)
    baud: int = Field(default=115200, ge=1200, le=4000000)
    rate_hz: float = Field(default=119, ge=0.1, le=2000)
    family: Literal["imu", "vibration"] = "imu"
    """What the board measures; a model takes sensors of its own family."""
    columns: tuple[str, ...] = Field(default=("ax", "ay", "az", "gx", "gy", "gz"), min_length=1, max_length=32)
    """Names of the fields of a line, in order; ``-`` for a field that is not wanted."""
    units: tuple[str, ...] = ("g",) * 3 + ("deg/s",) * 3
    scale: tuple[float, ...] = (0.001,) * 6
    """The unit's value of one integer step; best the last digit that is printed."""
    limit: tuple[float, ...] = (4.0,) * 3 + (2000.0,) * 3
    """A line with a greater magnitude than this (in the unit) is damaged: it is dropped and counted."""

    @model_validator(mode="after")
    def _columns_agree(self) -> "CsvConfig":
        names = [name for name in self.columns if name != SKIP]
        if not names or len(set(names)) < len(names) or "" in names:
            raise ValueError(f"columns {', '.join(self.columns)} must have at least one name, and each name once")
        for key, entries in (("units", self.units), ("scale", self.scale), ("limit", self.limit)):
            if len(entries) != len(names):
                raise ValueError(f"{key} has {len(entries)} entries, expected one for each of {', '.join(names)}")
        for name, scale, limit in zip(names, self.scale, self.limit, strict=True):
            if not 0 < scale <= limit < 2**31 * scale:
                raise ValueError(f"scale {scale:g} and limit {limit:g} of {name} must give 1 to 2**31 - 1 steps")
        return self


class CsvParser:
    """Bytes to rows of int32 steps. Lines end with LF or CR LF; what comes before the first LF may be half a line."""

    def __init__(self, cfg: CsvConfig) -> None:
        self._baud = cfg.baud
        self._decimals = DecimalLines(len(cfg.columns))
        self._wanted = [i for i, name in enumerate(cfg.columns) if name != SKIP]
        self._per_unit = 1 / np.array(cfg.scale)
        self._max_steps = np.rint(np.array(cfg.limit) / np.array(cfg.scale))
        self._spacing = Spacing(BYTES_PER_FIELD * len(cfg.columns))
        self._rest = b""
        self._cut = True
        self._position = self._frames = self._skipped = self._out_of_range = 0

    @property
    def row_bytes(self) -> int:
        return self._spacing.row_bytes

    def tally(self) -> Offsets:
        """(4,) totals so far: lines of numbers, 0, bytes of other lines, lines with a value out of range or missing."""
        return np.array([self._frames, 0, self._skipped, self._out_of_range])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """Take bytes that were there at ``arrival_ns``; return the rows that they complete."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        begin = self._position - len(self._rest)
        self._position += len(chunk)
        ends = begin + np.cumsum([len(line) + 1 for line in lines], dtype=np.int64)
        # A line that is too long is given up wherever the reads end: also where all of it is here at once.
        texts = [line.rstrip(b"\r") if len(line) <= MAX_LINE_BYTES else line for line in lines]
        if self._cut and texts:
            self._cut = False
            self._skipped += len(lines[0]) + 1
            texts[0] = b""
        if self._cut or len(rest) > MAX_LINE_BYTES:
            self._skipped += len(rest)
            self._cut, rest = True, b""
        self._rest = rest
        return self._rows(texts, ends, arrival_ns)

    def _rows(self, texts: list[bytes], ends: Offsets, arrival_ns: int) -> Rows:
        numbers, good = self._decimals.parse(texts)
        fits = np.array([len(text) <= MAX_LINE_BYTES for text in texts], np.bool_)
        good &= fits
        skipped = np.full(len(texts), self._skipped)
        valueless = np.zeros(len(texts), np.bool_)
        for index in np.flatnonzero(~good).tolist():
            text = texts[index]
            dead = bool(text.strip(b" ,")) and all(map(_NO_VALUE.fullmatch, text.split(b",")))
            if fits[index] and text.count(b",") == self._decimals.fields - 1 and (dead or _DIGIT.search(text)):
                valueless[index] = True
                self._frames += dead
            elif text:
                skipped[index:] += len(text) + 1
        self._skipped = int(skipped[-1]) if len(skipped) else self._skipped
        steps = np.rint(numbers[:, self._wanted] * self._per_unit)
        inside = (np.abs(steps) <= self._max_steps).all(axis=1)
        self._frames += int(np.count_nonzero(good))
        self._out_of_range += int(np.count_nonzero(valueless | (good & ~inside)))
        is_row = good | valueless
        usable = (good & inside)[is_row]
        missing = self._spacing.missing(ends[is_row], skipped[is_row], usable)
        values: npt.NDArray[np.int32] = steps[good & inside].astype(np.int32)
        sizes = np.diff(ends, prepend=ends[:1])
        begins = (ends - sizes)[good & inside]
        left_ns = sent_ns(arrival_ns, self._position - begins, self._baud)
        return Rows(values, np.full(len(values), -1, np.int64), left_ns, missing)


class Csv(SerialSensor[CsvConfig]):
    """One board. Rows lost to damage, pauses or a lateness that stays are counted in ``Packet.lost``."""

    Config: ClassVar[type[DriverConfig]] = CsvConfig
    product = "board that prints such lines"
    bauds = BAUDS
    needed = "the configured columns"

    def info(self) -> SensorInfo:
        names = tuple(name for name in self.cfg.columns if name != SKIP)
        return SensorInfo(self.cfg.family, names, self.cfg.units, self.cfg.scale, self.cfg.rate_hz)

    def new_parser(self) -> CsvParser:
        self._values = Still(
            "stuck_values",
            f"no value has changed by one step for {STUCK_S} s: the sensor behind the board is dead",
            self.cfg.rate_hz,
            self.counters,
        )
        return CsvParser(self.cfg)

    def _judge(self, rows: Rows) -> None:
        self._values.update(rows.values)


DRIVER = Csv
