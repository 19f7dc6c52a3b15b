"""iniVation eDVS4337 and the older eDVS128: a 128 x 128 event camera on a UART, up to 12 Mbaud, commanded by lines.

Source: iniVation eDVS4337 user guide; the order of commands is that of libcaer. The device has no loss counter: what is
lost shows as bytes that make no event.
"""

import time
from contextlib import suppress
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from drivers.base import Disconnected, Driver, DriverConfig, DriverError, Unavailable
from drivers.event_camera.edvs_clock import Arrival, EventClock
from drivers.event_camera.edvs_events import EventScanner, Time
from drivers.lib.clock import NS_PER_S
from drivers.lib.serial_link import SerialLink
from drivers.lib.watch import Still, Watch
from drivers.packet import EVENT, Packet, SensorInfo

BAUDS = (12_000_000, 4_000_000, 2_000_000)
"""Serial numbers 126xx, serial numbers 613xx, and eDVS128."""
TIMES: dict[str, tuple[Time, ...]] = {
    "edvs4337": ("none", "delta", "16", "24", "32"),
    "edvs128": ("none", "16", "24", "32"),
}
"""What command ``!En`` switches to, by n: the same number means different layouts."""
EVENT_BYTES = {"none": 2, "delta": 3, "16": 4, "24": 5, "32": 6}
"""On the line; at least, for ``delta``."""
NAME = b"EDVS"
BANNER_S = 1.0
"""After a reset the banner comes within 0.4 s."""
DRAIN_S = 0.05
PACKET_NS = 20_000_000
QUIET_NS = 20_000_000
"""The line pauses between events; USB converters deliver what they have within 16 ms."""
REST_NS = 8_000_000
"""Each wake-up costs. The kernel holds what comes in this time, and the camera waits for it: it obeys RTS."""
STUCK_EVENTS = 5000
ASCII = bytes(range(0x80))


class EdvsConfig(DriverConfig):
    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=12_000_000, ge=115_200, le=12_000_000)
    model: Literal["edvs4337", "edvs128"] = "edvs4337"
    """Of the older ``edvs128`` the formats have other numbers."""
    format: int = Field(default=2, ge=0, le=4)
    """The n of ``!En``. 2 is enough for times: where 16 bits wrap unseen in a pause, the host's clock helps out."""
    biases: dict[Annotated[int, Field(strict=False)], int] = Field(default_factory=dict)
    """Bias number 0 to 11 to value; those not named keep the camera's own value."""

    @model_validator(mode="after")
    def _exists(self) -> "EdvsConfig":
        formats = len(TIMES[self.model])
        if self.format >= formats:
            raise ValueError(f"model {self.model!r} has the formats 0 to {formats - 1}, not {self.format}")
        for number, value in self.biases.items():
            if not (0 <= number <= 11 and 0 <= value < 1 << 24):
                raise ValueError(f"bias {number} = {value} does not exist: numbers are 0 to 11, values below 2**24")
        return self


class Edvs(Driver[EdvsConfig]):
    """Packets of about 20 ms of events. ``lost`` counts the events that the bytes given up may have been."""

    Config: ClassVar[type[DriverConfig]] = EdvsConfig
    bauds: ClassVar[tuple[int, ...]] = BAUDS

    def __init__(self, name: str, cfg: EdvsConfig) -> None:
        super().__init__(name, cfg)
        self._time = TIMES[cfg.model][cfg.format]
        self._link = SerialLink(cfg.port, cfg.baud, rtscts=True)
        self._where = f"{cfg.port} at {cfg.baud} baud"
        self._start(0)

    @property
    def place(self) -> str | None:
        return self._link.place

    def info(self) -> SensorInfo:
        most_hz = self.cfg.baud / 10 / EVENT_BYTES[self._time]
        return SensorInfo("event_camera", ("x", "y", "on"), ("px", "px", "1"), (1.0, 1.0, 1.0), most_hz)

    def open(self) -> None:
        """Resets the camera, sets format and biases, and starts it. Raises Unavailable when no eDVS answers."""
        self._link.open()
        try:
            self._greet()
        except DriverError:
            self._link.close()
            raise
        self._start(time.monotonic_ns())

    def read(self, timeout: float) -> Packet | None:
        deadline_ns = time.monotonic_ns() + int(timeout * NS_PER_S)
        while True:
            now_ns = time.monotonic_ns()
            packet = self._take(*self._gather(min(deadline_ns, now_ns + PACKET_NS)))
            if packet is not None or time.monotonic_ns() >= deadline_ns:
                return packet

    def close(self) -> None:
        with suppress(Disconnected):
            self._link.write(b"E-\n")
        self._link.close()

    def _start(self, now_ns: int) -> None:
        self._scanner = EventScanner(self._time)
        self._clock = EventClock(self._scanner.modulus, self._time != "none", self.cfg.baud)
        self._watch = Watch(self._where, None, self.counters, now_ns, "events")
        self._hot = Still(
            "hot_pixel", f"{STUCK_EVENTS} events in a row came from one pixel", STUCK_EVENTS / 5, self.counters
        )
        self._bytes_ns = now_ns
        self._looked_ns = now_ns
        """When a read last found nothing."""
        self._begun = False
        self._lost_bytes = 0
        self._seq = 0

    def _greet(self) -> None:
        self._link.write(b"E-\n\n")
        self._listen(DRAIN_S, None)
        self._link.write(b"R\n")
        if NAME not in self._listen(BANNER_S, NAME).upper():
            others = ", ".join(str(baud) for baud in BAUDS if baud != self.cfg.baud)
            raise Unavailable(f"no eDVS answered the reset on {self._where}; check its power, or try baud = {others}")
        biases = b"".join(b"!B%d=%d\n" % (number, value) for number, value in sorted(self.cfg.biases.items()))
        self._link.write(b"!U0\n!E%d\n" % self.cfg.format + biases + (b"!BF\n" if biases else b""))
        self._listen(DRAIN_S, None)
        self._link.write(b"E+\n")

    def _listen(self, seconds: float, until: bytes | None) -> bytes:
        """What comes within that time (the last 4 KiB of it), or up to the word ``until``."""
        heard = b""
        end_ns = time.monotonic_ns() + int(seconds * NS_PER_S)
        while (left_ns := end_ns - time.monotonic_ns()) > 0:
            heard = (heard + self._link.read(left_ns / NS_PER_S)[0])[-4096:]
            if until is not None and until in heard.upper():
                break
        return heard

    def _gather(self, end_ns: int) -> tuple[bytes, int]:
        """Bytes until ``end_ns`` at the latest, and when the newest of them came."""
        pieces: list[bytes] = []
        size = 0
        arrival_ns = time.monotonic_ns()
        while True:
            begin_ns = time.monotonic_ns()
            # Arrivals must be known where they are the only time; for others, the last one of a packet will do.
            rests = self._time != "none" and end_ns - begin_ns > REST_NS + REST_NS // 2
            try:
                if rests:
                    self._link.rest(REST_NS / NS_PER_S)
                received, now_ns = self._link.read(0 if rests else (end_ns - begin_ns) / NS_PER_S)
            except Disconnected:
                if pieces:
                    # What came before is still good; the next read meets the same end.
                    break
                raise
            if not self._begun:
                # Before the first event: replies to commands, of cameras that cannot be told to be silent.
                received = received.lstrip(ASCII)
                self._begun = bool(received)
            arrival_ns = now_ns
            if received:
                pieces.append(received)
                size += len(received)
                # Nothing had come for a while when last looked, which was just before.
                waited = self._looked_ns - self._bytes_ns >= QUIET_NS >= now_ns - self._looked_ns
                self._clock.arrived(Arrival(self._scanner.position + size, now_ns, waited))
                self._bytes_ns = now_ns
            else:
                self._looked_ns = now_ns
            if now_ns >= end_ns:
                break
        return b"".join(pieces), arrival_ns

    def _take(self, chunk: bytes, now_ns: int) -> Packet | None:
        scanner = self._scanner
        skipped = scanner.skipped_bytes
        events = scanner.feed(chunk, quiet=now_ns - self._bytes_ns >= QUIET_NS)
        skipped = scanner.skipped_bytes - skipped
        self.counters.resync_bytes += skipped
        self._lost_bytes += skipped
        count = len(events.x)
        silence = self._watch.update(count, count, len(chunk), now_ns)
        if silence:
            others = ", ".join(str(baud) for baud in BAUDS if baud != self.cfg.baud)
            raise Unavailable(f"{silence}: another format than configured, or another rate; try baud = {others}")
        if not count:
            return None
        lost = -(-self._lost_bytes // EVENT_BYTES[self._time])
        self._lost_bytes = 0
        self.counters.lost += lost
        data: npt.NDArray[np.void] = np.empty(count, EVENT)
        data["t_ns"] = self._clock.place(events)
        data["x"], data["y"], data["on"] = events.x, events.y, events.on
        self._hot.update(np.stack([events.x, events.y], axis=1))
        packet = Packet(self.name, self._seq, int(data["t_ns"][0]), 0, data, lost)
        self._seq += 1
        return packet


DRIVER = Edvs
