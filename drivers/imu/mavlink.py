"""An autopilot's inertial sensor over a serial port: one of the MAVLink messages RAW_IMU, SCALED_IMU.. and HIGHRES_IMU.

pymavlink (extra ``mavlink``) brings the dialect: ids, checksum bytes, lengths and field layouts. Frames are found and
decoded here, many at a time. The driver only listens: the autopilot must stream the message (SRx_ parameters, or a
stream request of the ground station).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from drivers.base import DriverConfig, Misconfigured
from drivers.extras import how_to_install
from drivers.lib.clock import sent_ns
from drivers.lib.framing import Offsets
from drivers.lib.framing_variable import Spans, VariableScanner
from drivers.lib.inertial import CHANNELS, UNITS, si_info, si_steps
from drivers.lib.mavlink import MavlinkFormat, message_ids, payloads, senders
from drivers.lib.serial_sensor import SerialConfig, SerialSensor
from drivers.lib.timeline import GAP_NS, Rows, Timeline
from drivers.lib.watch import STUCK_S, Still
from drivers.packet import SensorInfo

Message = Literal["RAW_IMU", "SCALED_IMU", "SCALED_IMU2", "SCALED_IMU3", "HIGHRES_IMU"]
FIELDS = ("xacc", "yacc", "zacc", "xgyro", "ygyro", "zgyro")
MILLI_SCALE = (0.001,) * 3 + (math.degrees(0.001),) * 3
"""mG and mrad/s. RAW_IMU's units are the vendor's; ArduPilot and PX4 send these."""
CLOCKS = {"time_usec": (1_000_000, 1 << 48), "time_boot_ms": (1000, 1 << 32)}
"""Field -> ticks per second, and where the count is taken to wrap (microseconds long before 64 bits)."""
SEQUENCE_MODULUS = 256
NOBODY = -1
MAX_PAYLOAD_BYTES = 255
SILENCE_NS = 2_000_000_000
FIRST_ROW_BYTES = 40
BAUDS = (57600, 115200, 921600, 460800, 230400, 38400, 19200, 9600)


class MavlinkConfig(SerialConfig):
    """``rate_hz`` is the rate of the chosen message, as set in the autopilot."""

    port: str = Field(min_length=1)
    baud: int = Field(default=57600, ge=9600, le=3000000)
    rate_hz: float = Field(default=50, ge=0.1, le=2000)
    message: Message = "RAW_IMU"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the parser needs to know of MAVLink."""

    messages: Mapping[int, tuple[int, int]]
    """id -> (checksum byte, longest payload)."""
    message_id: int
    fields: np.dtype[Any]
    """The chosen message's payload at its full length."""
    clock: str
    """Its field of the sender's time."""


def dialect_for(message: Message) -> Dialect:
    """Asks pymavlink. Raises Misconfigured where it is not installed."""
    try:
        from pymavlink.dialects.v20 import all as every
    except ImportError as error:
        raise Misconfigured(
            f"imu.mavlink needs the package pymavlink ({error}): {how_to_install('mavlink')}"
        ) from error
    known = {number: (kind.crc_extra, kind.unpacker.size) for number, kind in every.mavlink_map.items()}
    number, kind = next((n, k) for n, k in every.mavlink_map.items() if k.msgname == message)
    # A newer definition may have added fields behind those that are known here.
    known[number] = kind.crc_extra, MAX_PAYLOAD_BYTES
    fields = np.dtype(list(zip(kind.ordered_fieldnames, (f"<{c}" for c in kind.unpacker.format[1:]), strict=True)))
    return Dialect(known, number, fields, next(name for name in CLOCKS if name in kind.fieldnames))


class MavlinkParser:
    """Bytes to rows: ax ay az gx gy gz, int16 in mG and mrad/s or int32 steps (HIGHRES_IMU); the sender's ticks.

    Listens to the first system and component that sends the message, and to another one once that has fallen silent.
    ``missing`` are lost messages of any kind.
    """

    def __init__(self, dialect: Dialect, baud: int) -> None:
        self.scanner = VariableScanner(MavlinkFormat(dialect.messages))
        self.row_bytes = FIRST_ROW_BYTES
        self._dialect = dialect
        self._baud = baud
        self._out_of_range = 0
        self._sender = NOBODY
        self._heard_ns = 0
        self._sequence: int | None = None
        self._lost_messages = 0
        self._lost_at_row = 0
        self._last_end = 0

    def tally(self) -> Offsets:
        """(4,) totals so far: valid messages, bad checksums, skipped bytes, rows that are no numbers."""
        scanner = self.scanner
        return np.array([scanner.frames, scanner.bad_checksums, scanner.skipped_bytes, self._out_of_range])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """Take bytes that were there at ``arrival_ns``; return the rows that they complete."""
        spans = self.scanner.feed(chunk)
        is_row = message_ids(spans.data, spans.starts) == self._dialect.message_id
        sender, sequence = senders(spans)
        self._choose(sender[is_row], arrival_ns)
        mine = sender == self._sender
        lost = self._count_lost(sequence[mine])[is_row[mine]]
        which = np.flatnonzero(is_row & mine)
        values, ticks, usable = self.decode(spans, which)
        self._out_of_range += int(np.count_nonzero(~usable))
        missing = np.diff(lost[usable], prepend=self._lost_at_row)
        self._lost_at_row += int(missing.sum())
        if len(which):
            end = int(spans.ends[which[-1]])
            self.row_bytes, self._last_end = max(1, (end - self._last_end) // len(which)), end
        begin = (spans.ends - spans.lengths)[which][usable]
        left_ns = sent_ns(arrival_ns, self.scanner.position - begin, self._baud)
        return Rows(values[usable], ticks[usable], left_ns, missing)

    def decode(
        self, spans: Spans, which: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[Any], Offsets, npt.NDArray[np.bool_]]:
        """(n, 6) values and (n,) ticks of the frames ``which``, and which of them are numbers."""
        dialect = self._dialect
        table = payloads(spans, which, dialect.fields.itemsize).view(dialect.fields)[:, 0]
        _, modulus = CLOCKS[dialect.clock]
        ticks = (table[dialect.clock].astype(np.uint64) % np.uint64(modulus)).astype(np.int64)
        values = np.stack([table[name] for name in FIELDS], axis=1)
        if values.dtype.kind == "f":
            steps, usable = si_steps(values)
            return steps, ticks, usable
        return values.astype(np.int16), ticks, np.ones(len(which), np.bool_)

    def _choose(self, row_senders: Offsets, arrival_ns: int) -> None:
        if not len(row_senders):
            return
        if self._sender == NOBODY or (
            arrival_ns - self._heard_ns > SILENCE_NS and not bool((row_senders == self._sender).any())
        ):
            self._sender, self._sequence = int(row_senders[0]), None
        if (row_senders == self._sender).any():
            self._heard_ns = arrival_ns

    def _count_lost(self, sequence: Offsets) -> Offsets:
        """(n,) messages of our sender that are known to be lost before each, since the beginning."""
        if not len(sequence):
            return sequence
        last = self._sequence if self._sequence is not None else int(sequence[0]) - 1
        self._sequence = int(sequence[-1])
        total = self._lost_messages + np.cumsum((np.diff(sequence, prepend=last) - 1) % SEQUENCE_MODULUS)
        self._lost_messages = int(total[-1])
        return total


class MavlinkTimeline(Timeline):
    """Autopilots stream unevenly: a hole in time is a loss only as far as messages are missing in the sequence."""

    def lost(self, by_time: Offsets, missing: Offsets, elapsed_ns: Offsets) -> Offsets:
        # In a long pause the sequence number, which has 8 bits, may have wrapped.
        return np.where(elapsed_ns > GAP_NS, by_time, np.minimum(by_time, missing))


class Mavlink(SerialSensor[MavlinkConfig]):
    """One autopilot's sensor. Lost samples are counted in ``Packet.lost``."""

    Config: ClassVar[type[DriverConfig]] = MavlinkConfig
    product = "MAVLink autopilot"
    bauds = BAUDS

    def __init__(self, name: str, cfg: MavlinkConfig) -> None:
        super().__init__(name, cfg)
        self.needed = f"the message {cfg.message}"
        self._clock = "time_boot_ms" if cfg.message.startswith("SCALED") else "time_usec"

    def info(self) -> SensorInfo:
        if self.cfg.message == "HIGHRES_IMU":
            return si_info(self.cfg.rate_hz)
        return SensorInfo("imu", CHANNELS, UNITS, MILLI_SCALE, self.cfg.rate_hz)

    def new_parser(self) -> MavlinkParser:
        self._gyro = Still(
            "stuck_gyro",
            f"angular rate has not changed by one step for {STUCK_S} s: the gyroscope is dead",
            self.cfg.rate_hz,
            self.counters,
        )
        self._time = Still(
            "stuck_counter",
            f"the time of {self.cfg.message} has not changed for {STUCK_S} s: the autopilot repeats itself, restart it",
            self.cfg.rate_hz,
            self.counters,
        )
        return MavlinkParser(dialect_for(self.cfg.message), self.cfg.baud)

    def _new_timeline(self) -> Timeline:
        return MavlinkTimeline(self.cfg.rate_hz, *CLOCKS[self._clock])

    def _judge(self, rows: Rows) -> None:
        self._gyro.update(rows.values[:, 3:])
        self._time.update(rows.ticks[:, None])


DRIVER = Mavlink
