"""What speaks on a serial port, and at which baud rate.

A port is listened to at each rate, and every driver of a serial sensor is given the same bytes. Nothing is written to
a port that says anything. A port that says nothing may have a sensor that waits for a question: if the caller wishes,
the drivers that ask are run on it, one after the other.
"""

import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from serial import SerialException

from drivers.base import Driver, Misconfigured, Unavailable
from drivers.fit import LEAST_FRAMES, NOISE_BYTES, SKIPPED_SHARE, Found, choices, fits, make, streaming
from drivers.lib.clock import NS_PER_S
from drivers.lib.serial_link import SerialLink
from drivers.lib.serial_sensor import SerialSensor
from drivers.registry import driver_classes

LISTEN_S = 1.3
"""At each rate: the slowest sensors here send three frames a second."""
START_S = 3.0
"""For the first byte of all: opening a port resets many boards, and they need two seconds to start again."""
ASK_S = 1.0
HEARD_BYTES = 1 << 16
"""As much is enough at any rate."""
FIRST_BAUDS = (115200, 9600)
"""The commonest two. Who talks at another rate makes at least noise at one of them."""


@dataclass(slots=True)
class Report:
    """What came of one port."""

    port: str
    found: list[Found] = field(default_factory=list)
    """Best first; several when the bytes cannot tell them apart."""
    heard: dict[int, float] = field(default_factory=dict)
    """Baud rate -> bytes per second that came at it."""
    asked: list[str] = field(default_factory=list)
    """Kinds that were run on it, with their rates."""


class Ear(SerialLink):
    """A port that changes its rate while it is open: opening it anew would reset the board behind it."""

    def tune(self, baud: int) -> bool:
        """Whether the port can do this rate; what came at another one is dropped. Raises Unavailable."""
        if self._serial is None:
            raise Unavailable(f"serial port {self.port} is not open")
        try:
            self._serial.baudrate = baud
            self._serial.reset_input_buffer()
        except (OSError, ValueError, termios.error, SerialException):
            return False
        return True

    def listen(self, seconds: float) -> tuple[bytes, float]:
        """What comes in that time, or the first 64 KiB of it, and how many seconds that took."""
        begin_ns = now_ns = time.monotonic_ns()
        heard = bytearray()
        while (left_ns := begin_ns + int(seconds * NS_PER_S) - now_ns) > 0 and len(heard) < HEARD_BYTES:
            heard += self.read(left_ns / NS_PER_S)[0]
            now_ns = time.monotonic_ns()
        return bytes(heard), (now_ns - begin_ns) / NS_PER_S


def probe(port: str, *, ask: bool, say: Callable[[str], None]) -> Report:
    """Listen to ``port`` and, if it is silent and ``ask``, question it. ``say`` gets a line of progress at a time.

    Raises Unavailable when the port cannot be opened or goes away.
    """
    report = Report(port)
    for sentence in driver_classes()[1]:
        say(sentence)
    for baud, heard, seconds in _hear(port, say):
        report.heard[baud] = round(len(heard) / seconds, 1)
        report.found = fits(heard, seconds, baud)
        if report.found:
            return report
    if ask and max(report.heard.values(), default=0) * LISTEN_S < NOISE_BYTES:
        _ask(report, say)
    return report


def _hear(port: str, say: Callable[[str], None]) -> Iterator[tuple[int, bytes, float]]:
    """Baud rate, bytes and seconds, until the caller has enough; a silent port is given up after two rates."""
    silent = 0
    with closing(Ear(port, FIRST_BAUDS[0])) as ear:
        ear.open()
        for index, baud in enumerate(baud_rates()):
            if not ear.tune(baud):
                say(f"{port}: {baud} baud is more than it can do")
                continue
            say(f"{port}: listening at {baud} baud")
            if index == 0 and not ear.read(START_S)[0]:
                heard, seconds = b"", START_S
            else:
                heard, seconds = ear.listen(LISTEN_S)
            yield baud, heard, seconds
            silent += len(heard) < NOISE_BYTES
            if silent == len(FIRST_BAUDS) == index + 1:
                return


def baud_rates() -> tuple[int, ...]:
    """What is listened at: the commonest first."""
    count = Counter(chain.from_iterable(found.bauds for _, found in streaming()))
    others = sorted(set(count) - set(FIRST_BAUDS), key=lambda baud: (-count[baud], -baud))
    return (*FIRST_BAUDS, *others)


def _ask(report: Report, say: Callable[[str], None]) -> None:
    """Run the drivers that ask; the first that gets sensible answers is it."""
    for kind, sensor in _asking(report.port):
        where = f"{kind} at {sensor.cfg.baud} baud"
        report.asked.append(where)
        say(f"{report.port}: asking as {where}")
        rows = _answers(sensor)
        if rows >= LEAST_FRAMES:
            settings = sensor.cfg.model_dump(exclude={"port"}, exclude_defaults=True)
            report.found = [Found(kind, {"baud": sensor.cfg.baud, **settings}, round(rows / ASK_S, 2), rows)]
            return


def _asking(port: str) -> list[tuple[str, Driver[Any]]]:
    """Drivers that ask, at their usual rates first."""
    found: list[tuple[int, str, Driver[Any]]] = []
    for kind, driver in driver_classes()[0].items():
        fields = driver.Config.model_fields
        if not {"port", "baud"} <= set(fields):
            continue
        for rank, baud in enumerate(getattr(driver, "bauds", (fields["baud"].default,))):
            made = [(choice, make(driver, port, baud, choice)) for choice in choices(driver)]
            asking = [(choice, sensor) for choice, sensor in made if sensor is not None and _asks(sensor)]
            # Where it asks by default, its other settings change no question.
            count = 1 if asking and not asking[0][0] else len(asking)
            found += [(rank, kind, sensor) for _, sensor in asking[:count]]
    return [(kind, sensor) for _, kind, sensor in sorted(found, key=lambda one: one[0])]


def _asks(sensor: Driver[Any]) -> bool:
    """Any driver of a port that is no ``SerialSensor`` sets its device up by asking, like that of an event camera."""
    if not isinstance(sensor, SerialSensor):
        return True
    try:
        return bool(getattr(sensor.new_parser(), "asks", False))
    except Misconfigured:
        return False


def _answers(sensor: Driver[Any]) -> int:
    """Rows that the driver gets in a second; 0 when it has to skip bytes or take back sums for them."""
    rows = 0
    with closing(sensor):
        try:
            sensor.open()
            end_s = time.monotonic() + ASK_S
            while (left_s := end_s - time.monotonic()) > 0:
                packet = sensor.read(left_s)
                rows += len(packet.data) if packet else 0
        except (Unavailable, Misconfigured):
            return 0
    counters = sensor.counters
    return rows if counters.resync_bytes + counters.bad_checksum + counters.out_of_range <= SKIPPED_SHARE * rows else 0
