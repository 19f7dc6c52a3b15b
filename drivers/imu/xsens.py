"""Xsens MTi (Xbus, MTData2): acceleration and rate of turn over a serial port, set up by the driver itself.

At every opening the sensor is put into configuration mode, told what to send, asked what it will really send, and
started. Single-precision numbers become int32 steps (``drivers.lib.inertial``).
"""

import time
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from drivers.base import DriverConfig, Misconfigured, Unavailable
from drivers.lib import xbus
from drivers.lib.clock import NS_PER_S, sent_ns
from drivers.lib.framing import Offsets
from drivers.lib.framing_variable import Spans, VariableScanner
from drivers.lib.inertial import si_info, si_steps
from drivers.lib.serial_sensor import SerialConfig, SerialSensor
from drivers.lib.timeline import Rows, Timeline
from drivers.lib.watch import STUCK_S, Still
from drivers.packet import SensorInfo

PACKET_COUNTER, SAMPLE_TIME_FINE, ACCELERATION, RATE_OF_TURN, STATUS = 0x1020, 0x1060, 0x4020, 0x8020, 0xE020
ALWAYS = 0xFFFF
COUNTER_MODULUS = 1 << 16
TICK_HZ, TICK_MODULUS = 10_000, 1 << 32
CLIPPED = 0b111111 << 8
"""Status bits of the accelerometers and gyroscopes at the end of their range."""
FRAME = 0x000C
"""Bits of an id that name the coordinate system (the sensor's setting, which the driver leaves alone)."""
ROW_BYTES = 54
"""An MTData2 message with the five items that the driver asks for."""
BAUDS = (115200, 921600, 230400, 460800, 2000000, 57600, 38400, 19200, 9600)
TRIES, ANSWER_NS = 3, 400_000_000
ERRORS = {
    3: "a period out of range",
    4: "an unknown command",
    0x20: "a baud rate it cannot use",
    0x21: "a value it refuses",
}


class XsensConfig(SerialConfig):
    """``rate_hz`` is set in the sensor, which must be able to (an MTi-300 sends up to 400 Hz, some up to 2000)."""

    port: str = Field(min_length=1)
    baud: int = Field(default=115200, ge=4800, le=4000000)
    rate_hz: int = Field(default=100, ge=1, le=2000)

    @model_validator(mode="after")
    def _fits_the_line(self) -> "XsensConfig":
        needed = ROW_BYTES * 10 * self.rate_hz
        if needed > self.baud:
            raise ValueError(
                f"{ROW_BYTES} bytes at {self.rate_hz} Hz need {needed} baud, the port has {self.baud}; "
                "set a lower rate_hz, or a higher baud rate in the sensor"
            )
        return self


class XsensParser:
    """Bytes to rows: ax ay az gx gy gz in int32 steps; ticks of 0.1 ms; ``missing`` by the packet counter."""

    row_bytes = ROW_BYTES

    def __init__(self, baud: int) -> None:
        self.scanner = VariableScanner(xbus.XbusFormat())
        self._baud = baud
        self._out_of_range = 0
        self._last_counter: int | None = None

    def tally(self) -> Offsets:
        """(4,) totals so far: valid messages, bad checksums, skipped bytes, rows that are clipped or no numbers."""
        scanner = self.scanner
        return np.array([scanner.frames, scanner.bad_checksums, scanner.skipped_bytes, self._out_of_range])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """Take bytes that were there at ``arrival_ns``; return the rows that they complete."""
        spans = self.scanner.feed(chunk)
        kinds = spans.data[spans.starts + 2]
        return self._rows(spans, np.flatnonzero(kinds == xbus.MTDATA2), arrival_ns)

    def _rows(self, spans: Spans, which: npt.NDArray[np.intp], arrival_ns: int) -> Rows:
        values = np.zeros((len(which), 6), ">f4")
        counter, ticks = np.full(len(which), -1, np.int64), np.full(len(which), -1, np.int64)
        status, found = np.zeros(len(which), np.int64), np.zeros(len(which), np.bool_)
        todo = np.arange(len(which))
        while len(todo):
            # Messages of one configuration have one layout: this loop runs once, unless the sensor was set anew.
            first = which[todo[0]]
            packet = spans.table(which[todo[:1]], 0, int(spans.lengths[first])).tobytes()
            layout = xbus.layout_of(packet)
            alike = todo[spans.lengths[which[todo]] == len(packet)]
            table = spans.table(which[alike], 0, len(packet))
            same = (table[:, layout.heads] == table[0, layout.heads]).all(axis=1)
            alike, table = alike[same], table[same]
            items = {kind & ~FRAME: place for kind, place in layout.items.items()}
            if items.get(ACCELERATION, (0, 0))[1] == items.get(RATE_OF_TURN, (0, 0))[1] == 12 and layout.complete:
                found[alike] = True
                values[alike, :3] = _column(table, items[ACCELERATION], ">f4")
                values[alike, 3:] = _column(table, items[RATE_OF_TURN], ">f4")
            for kind, size, dtype, target in (
                (PACKET_COUNTER, 2, ">u2", counter),
                (SAMPLE_TIME_FINE, 4, ">u4", ticks),
                (STATUS, 4, ">u4", status),
            ):
                if items.get(kind, (0, 0))[1] == size:
                    target[alike] = _column(table, items[kind], dtype)[:, 0]
            todo = np.setdiff1d(todo, alike, assume_unique=True)
        steps, good = si_steps(values)
        usable = found & good
        self._out_of_range += int(np.count_nonzero(found & (~good | (status & CLIPPED > 0))))
        begin = spans.ends[which] - spans.lengths[which]
        left_ns = sent_ns(arrival_ns, self.scanner.position - begin, self._baud)
        missing = self._missing(counter[usable])
        return Rows(steps[usable], ticks[usable], left_ns[usable], missing)

    def _missing(self, counter: Offsets) -> Offsets:
        """Modulo 65 536; -1 where there is no counter."""
        if not len(counter):
            return counter
        last = self._last_counter if self._last_counter is not None else int(counter[0]) - 1
        before = np.concatenate([[last], counter[:-1]])
        self._last_counter = int(counter[-1])
        return np.where((counter < 0) | (before < 0), -1, (counter - before - 1) % COUNTER_MODULUS)


def _column(table: npt.NDArray[np.uint8], place: tuple[int, int], dtype: str) -> npt.NDArray[np.generic]:
    at, size = place
    return np.ascontiguousarray(table[:, at : at + size]).view(dtype)


class XsensTimeline(Timeline):
    """The packet counter is exact, the sensor's time tells how often it wrapped."""

    def __init__(self, rate_hz: float) -> None:
        super().__init__(rate_hz, TICK_HZ, TICK_MODULUS)

    def lost(self, by_time: Offsets, missing: Offsets, elapsed_ns: Offsets) -> Offsets:
        half = COUNTER_MODULUS // 2
        exact = by_time + (missing - by_time + half) % COUNTER_MODULUS - half
        return np.where(missing >= 0, exact, by_time)


class Xsens(SerialSensor[XsensConfig]):
    """One sensor. Rows missing in its packet counter are counted in ``Packet.lost``."""

    Config: ClassVar[type[DriverConfig]] = XsensConfig
    product = "Xsens MTi"
    bauds = BAUDS

    def info(self) -> SensorInfo:
        return si_info(self.cfg.rate_hz)

    def new_parser(self) -> XsensParser:
        self._gyro = Still(
            "stuck_gyro",
            f"rate of turn has not changed by one step for {STUCK_S} s: the gyroscope is dead",
            self.cfg.rate_hz,
            self.counters,
        )
        self._counter = Still(
            "stuck_counter",
            f"the sensor's time has not changed for {STUCK_S} s: it repeats itself, switch it off and on",
            self.cfg.rate_hz,
            self.counters,
        )
        return XsensParser(self.cfg.baud)

    def _new_timeline(self) -> Timeline:
        return XsensTimeline(self.cfg.rate_hz)

    def _judge(self, rows: Rows) -> None:
        self._gyro.update(rows.values[:, 3:])
        self._counter.update(rows.ticks[:, None])

    def _greet(self) -> None:
        rate = self.cfg.rate_hz
        wanted = ((PACKET_COUNTER, ALWAYS), (SAMPLE_TIME_FINE, ALWAYS), (ACCELERATION, rate), (RATE_OF_TURN, rate))
        items = b"".join(kind.to_bytes(2, "big") + hz.to_bytes(2, "big") for kind, hz in (*wanted, (STATUS, ALWAYS)))
        self._ask(xbus.GO_TO_CONFIG)
        real = self._ask(xbus.SET_OUTPUT, items)
        for at in range(0, len(real) - 3, 4):
            kind, hz = int.from_bytes(real[at : at + 2], "big"), int.from_bytes(real[at + 2 : at + 4], "big")
            if kind & ~FRAME in (ACCELERATION, RATE_OF_TURN) and hz != rate:
                raise Misconfigured(f"the Xsens MTi on {self._where} offers {hz} Hz for rate_hz = {rate}; set that")
        self._ask(xbus.GO_TO_MEASUREMENT)

    def _ask(self, mid: int, data: bytes = b"") -> bytes:
        """Send a command until it is acknowledged; return the data of the acknowledgement."""
        scanner = VariableScanner(xbus.XbusFormat())
        heard = 0
        for _ in range(TRIES):
            self._link.write(xbus.message(mid, data))
            deadline_ns = time.monotonic_ns() + ANSWER_NS
            while (left_ns := deadline_ns - time.monotonic_ns()) > 0:
                chunk, _at_ns = self._link.read(left_ns / NS_PER_S)
                heard += len(chunk)
                for packet in _packets(scanner.feed(chunk)):
                    begin = xbus.data_offset(packet)
                    if packet[2] == mid + 1:
                        return packet[begin:-1]
                    if packet[2] == xbus.ERROR:
                        code = packet[begin]
                        reason = ERRORS.get(code, f"error {code:#x}")
                        raise Misconfigured(
                            f"the Xsens MTi on {self._where} refuses command {mid:#x}: {reason}; check rate_hz"
                        )
        answer = f"{heard} bytes came, but no answer" if heard else "no answer came"
        raise Unavailable(f"command {mid:#x} to {self._where} was sent {TRIES} times, {answer}: {self._wrong_baud()}")


def _packets(spans: Spans) -> list[bytes]:
    return [
        spans.data[start : start + length].tobytes()
        for start, length in zip(spans.starts.tolist(), spans.lengths.tolist(), strict=True)
    ]


DRIVER = Xsens
