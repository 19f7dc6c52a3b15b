"""VectorNav VN-100, VN-200, VN-300: acceleration and angular rate over a serial port, ASCII or binary.

The driver takes the sensor as it was set up with the vendor's tool and never writes to it. Decimal and
single-precision numbers become int32 steps (``drivers.lib.inertial``).
"""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from drivers.base import DriverConfig
from drivers.lib.clock import sent_ns
from drivers.lib.decimals import DecimalLines
from drivers.lib.framing import Offsets
from drivers.lib.framing_variable import Spacing, Spans, VariableScanner
from drivers.lib.inertial import si_info, si_steps
from drivers.lib.serial_sensor import SerialConfig, SerialSensor
from drivers.lib.timeline import Rows, Timeline
from drivers.lib.vectornav import BINARY, COMMON, IMU, PAYLOAD_AT, STAR, VectorNavFormat, field_offsets
from drivers.lib.watch import STUCK_S, Still
from drivers.packet import SensorInfo

Output = Literal["ascii", "binary"]
BAUDS = (115200, 921600, 460800, 230400, 128000, 57600, 38400, 19200, 9600)
ASCII_MESSAGES = {b"YMR": (12, 6), b"QMR": (13, 7), b"IMU": (11, 3), b"MAR": (9, 3)}
"""Message -> how many fields it has, and the first of acceleration x y z, angular rate x y z."""
FIELDS_AT = len(b"$VNYMR,")
NAME_KEY = (1 << 32, 1 << 24, 1 << 16)
"""Makes one integer of the three letters of a name, with room for a width."""
ACCELERATION_AND_RATE = (
    ((COMMON, 8), 0, (COMMON, 5), 0),
    ((COMMON, 9), 0, (COMMON, 9), 12),
    ((IMU, 9), 0, (IMU, 10), 0),
    ((IMU, 2), 0, (IMU, 3), 0),
)
"""Fields that carry acceleration and angular rate, and the offset in each; the first pair that is there is taken."""
TIME_STARTUP = ((COMMON, 0), (1, 0))
TICK_HZ, TICK_MODULUS = 1_000_000, 1 << 48
NS_PER_TICK = 1000
FIRST_ROW_BYTES = 122
"""A VNYMR message, the factory setting."""


class VectornavConfig(SerialConfig):
    """Which of the two kinds of output carries the samples; the other kind may share the port."""

    port: str = Field(min_length=1)
    baud: int = Field(default=115200, ge=9600, le=921600)
    rate_hz: float = Field(default=40, ge=1, le=1000)
    output: Output = "ascii"
    """``ascii``: VNYMR, VNQMR, VNIMU or VNMAR. ``binary``: a message with Accel and AngularRate, or Imu; with
    TimeStartup in it, times and losses come from the sensor's own clock."""


class VectornavParser:
    """Bytes to rows: ax ay az gx gy gz in int32 steps; ticks of 1 us where the messages carry TimeStartup."""

    def __init__(self, output: Output, baud: int) -> None:
        self.scanner = VariableScanner(VectorNavFormat())
        self._binary = output == "binary"
        self._baud = baud
        self._out_of_range = 0
        self._spacing = Spacing(FIRST_ROW_BYTES)
        self._decimals = {kind: DecimalLines(fields) for kind, (fields, _) in ASCII_MESSAGES.items()}

    @property
    def row_bytes(self) -> int:
        return self._spacing.row_bytes

    def tally(self) -> Offsets:
        """(4,) totals so far: valid messages, bad checksums, skipped bytes, rows that are no numbers."""
        scanner = self.scanner
        return np.array([scanner.frames, scanner.bad_checksums, scanner.skipped_bytes, self._out_of_range])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """Take bytes that were there at ``arrival_ns``; return the rows that they complete."""
        spans = self.scanner.feed(chunk)
        is_binary = spans.data[spans.starts] == BINARY
        which = np.flatnonzero(is_binary == self._binary)
        values, ticks, found = self._binary_rows(spans, which) if self._binary else self._ascii_rows(spans, which)
        values, ticks, which = values[found], ticks[found], which[found]
        steps, usable = si_steps(values)
        self._out_of_range += int(np.count_nonzero(~usable))
        missing = self._spacing.missing(spans.ends[which], spans.skipped[which], usable)
        begin = (spans.ends - spans.lengths)[which][usable]
        left_ns = sent_ns(arrival_ns, self.scanner.position - begin, self._baud)
        return Rows(steps[usable], ticks[usable], left_ns, missing)

    def _ascii_rows(
        self, spans: Spans, which: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.float64], Offsets, npt.NDArray[np.bool_]]:
        values, found = np.full((len(which), 6), np.nan), np.zeros(len(which), np.bool_)
        ends = (spans.starts + spans.lengths)[which]
        # The checksum is two digits, else four.
        stars = ends - np.where(spans.data[ends - 5] == STAR, 5, 7)
        widths = np.maximum(stars - spans.starts[which] - FIELDS_AT, 0)
        names = spans.table(which, 3, 3)
        keys = names @ NAME_KEY + widths
        for key in set(keys.tolist()):
            # A sensor sends one of these messages, and all its lines are of one width.
            alike = np.flatnonzero(keys == key)
            name = names[alike[0]].tobytes()
            if name in ASCII_MESSAGES:
                first = ASCII_MESSAGES[name][1]
                numbers, good = self._decimals[name].parse_table(
                    spans.table(which[alike], FIELDS_AT, int(widths[alike[0]]))
                )
                found[alike] = True
                # What is no number (a damaged line that passed its 8-bit checksum) is out of range like NaN.
                values[alike] = np.where(good[:, None], numbers[:, first : first + 6], np.nan)
        return values, np.full(len(which), -1, np.int64), found

    def _binary_rows(
        self, spans: Spans, which: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.float32], Offsets, npt.NDArray[np.bool_]]:
        values, found = np.zeros((len(which), 6), np.float32), np.zeros(len(which), np.bool_)
        ticks = np.full(len(which), -1, np.int64)
        table = spans.table(which, 0, int(spans.lengths[which].max(initial=0)))
        todo = np.arange(len(which))
        while len(todo):
            # A sensor has at most three binary outputs: this loop runs as often.
            head = table[todo[0], : PAYLOAD_AT[table[todo[0], 1]]]
            same = (table[todo, : len(head)] == head).all(axis=1)
            alike, todo = todo[same], todo[~same]
            messages, offsets = table[alike], field_offsets(head.tobytes())
            for acceleration, first, rate, second in ACCELERATION_AND_RATE:
                if acceleration in offsets and rate in offsets:
                    found[alike] = True
                    at, to = offsets[acceleration] + first, offsets[rate] + second
                    values[alike, :3] = messages[:, at : at + 12].view("<f4")
                    values[alike, 3:] = messages[:, to : to + 12].view("<f4")
                    break
            for field in TIME_STARTUP:
                if field in offsets:
                    at = offsets[field]
                    since_start = messages[:, at : at + 8].view("<u8")[:, 0]
                    ticks[alike] = (since_start // NS_PER_TICK % TICK_MODULUS).astype(np.int64)
                    break
        return values, ticks, found


class Vectornav(SerialSensor[VectornavConfig]):
    """One sensor. Rows missing in its time, or where bytes were damaged, are counted in ``Packet.lost``."""

    Config: ClassVar[type[DriverConfig]] = VectornavConfig
    product = "VectorNav sensor"
    bauds = BAUDS

    def info(self) -> SensorInfo:
        return si_info(self.cfg.rate_hz)

    def new_parser(self) -> VectornavParser:
        self._gyro = Still(
            "stuck_gyro",
            f"angular rate has not changed by one step for {STUCK_S} s: the gyroscope is dead",
            self.cfg.rate_hz,
            self.counters,
        )
        return VectornavParser(self.cfg.output, self.cfg.baud)

    def _new_timeline(self) -> Timeline:
        return Timeline(self.cfg.rate_hz, TICK_HZ, TICK_MODULUS)

    def _judge(self, rows: Rows) -> None:
        self._gyro.update(rows.values[:, 3:])


DRIVER = Vectornav
