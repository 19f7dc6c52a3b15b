"""Which driver, at which baud rate, makes sense of what a serial port says.

A port is listened to at each rate, and every driver of a serial sensor is given the same bytes: the one whose frames
are nearly all of them is it. Nothing is written to a port that says anything. A port that says nothing may have a
sensor that waits for a question: if the caller wishes, the drivers that ask are run on it, one after the other.
"""

import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, get_args, get_origin

import numpy as np
from pydantic import ValidationError
from serial import SerialException

from drivers.base import Driver, DriverConfig, Misconfigured, Unavailable
from drivers.lib.clock import NS_PER_S
from drivers.lib.serial_link import SerialLink
from drivers.lib.serial_sensor import SerialSensor
from drivers.lib.tick_frames import CRC_BYTES, ECHO_TIMES, HEADER, WAVEFORM, CobsScanner
from drivers.registry import driver_class, kinds

LISTEN_S = 1.3
"""At each rate: the slowest sensors here send three frames a second."""
START_S = 3.0
"""For the first byte of all: opening a port resets many boards, and they need two seconds to start again."""
ASK_S = 1.0
HEARD_BYTES = 1 << 16
"""As much is enough at any rate."""
FIRST_BAUDS = (115200, 9600)
"""The commonest two. Who talks at another rate makes at least noise at one of them."""
NOISE_BYTES = 8
"""Fewer are a wire that picks something up."""
LEAST_FRAMES = 3
SKIPPED_SHARE = 0.1
"""Of the bytes of the right sensor at the right rate no more than this (and half a row) belong to no frame."""
ROUND_HZ = (1, 2, 4, 5, 6, 7.5, 8, 10, 12.5, 15, 20, 25, 30, 40, 50, 60, 75, 80, 100, 119, 120, 125, 150, 200, 250)
ROUND_TOLERANCE = 0.05
LONGEST_FRAME = 40_000
COLUMNS = 32

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A driver that understands the port."""

    kind: str
    settings: Settings
    """What its table in the configuration needs, without ``driver`` and ``port``."""
    rate_hz: float
    """Rows per second, as seen; 0 when it sends valid frames but not those that make a row."""
    frames: int
    note: str = ""
    """What a person must still see to."""


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
    count = Counter(chain.from_iterable(found.bauds for _, found in _streaming()))
    others = sorted(set(count) - set(FIRST_BAUDS), key=lambda baud: (-count[baud], -baud))
    return (*FIRST_BAUDS, *others)


def fits(heard: bytes, seconds: float, baud: int) -> list[Found]:
    """The drivers to which these bytes are theirs, best first; none for most bytes."""
    if len(heard) < NOISE_BYTES:
        return []
    shuffled = np.random.default_rng(0).permutation(np.frombuffer(heard, np.uint8)).tobytes()
    found: list[tuple[int, Found]] = []
    seen = _sizes(heard)
    for kind, driver in _streaming():
        if baud not in driver.bauds:
            continue
        tried: list[DriverConfig] = []
        for settings in (*_choices(driver), *seen.get(kind, [])):
            sensor = _make(driver, "probe", baud, settings)
            if sensor is None or sensor.cfg in tried or (counts := _counts(sensor, heard)) is None:
                continue
            tried.append(sensor.cfg)
            # To whom the same bytes in any other order mean as much, they mean nothing.
            if _counts(sensor, shuffled) is None:
                frames, rows = counts
                found.append((rows, _found(kind, driver, sensor, settings, frames, rows / seconds)))
    most = max((rows for rows, _ in found), default=0)
    return [one for rows, one in found if rows >= most * (1 - SKIPPED_SHARE)]


def toml(name: str, port: str, found: Found) -> str:
    """The lines for the configuration."""
    lines = [f"[sensors.{name}]", f'driver = "{found.kind}"', f'port = "{port}"']
    return "\n".join(lines + [f"{key} = {_toml_value(value)}" for key, value in found.settings.items()])


def _toml_value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _streaming() -> Iterator[tuple[str, type[SerialSensor[Any]]]]:
    for kind in kinds():
        found = driver_class(kind)
        if issubclass(found, SerialSensor):
            yield kind, found


def _choices(driver: type[Driver[Any]]) -> Iterator[Settings]:
    """The defaults, and each other value of the settings that have a fixed choice."""
    yield {}
    for key, entry in driver.Config.model_fields.items():
        if get_origin(entry.annotation) is Literal:
            yield from ({key: value} for value in get_args(entry.annotation) if value != entry.default)


def _sizes(heard: bytes) -> dict[str, list[Settings]]:
    """Settings that say how much is in a frame, read off the frames themselves."""
    sizes: dict[str, list[Settings]] = {}
    words = Counter(
        (frame.payload[0], (len(frame.payload) - HEADER.itemsize) // 2)
        for frame in CobsScanner(LONGEST_FRAME + CRC_BYTES).feed(heard)
    )
    for (kind, count), _ in words.most_common(1):
        if kind == ECHO_TIMES:
            sizes["ultrasonic.array"] = [{"transducers": count}]
        elif kind == WAVEFORM:
            sizes["ultrasonic.echo"] = [{"samples": count}]
    fields = Counter(len(line.split(b",")) for line in heard.splitlines()[1:-1] if line.strip())
    for count, _ in fields.most_common(1):
        if 1 < count <= COLUMNS:
            names = tuple(f"c{index}" for index in range(count))
            sizes["imu.csv"] = [
                {"columns": names, "units": ("1",) * count, "scale": (0.001,) * count, "limit": (1e6,) * count}
            ]
    labels = Counter(line.count(b":") if b":" in line else line.count(b",") + 1 for line in heard.splitlines()[1:-1])
    for count, _ in labels.most_common(1):
        sizes.setdefault("ultrasonic.array", []).append({"format": "text", "unit": "cm", "transducers": count})
    return sizes


def _make(driver: type[Driver[Any]], port: str, baud: int, settings: Settings) -> Driver[Any] | None:
    """A driver with these settings; at a low nominal rate where the usual one does not fit through the line."""
    for rate in ({}, {"rate_hz": 1}, {"rate_hz": 1.0}):
        try:
            return driver("probe", driver.Config.model_validate({"port": port, "baud": baud, **rate, **settings}))
        except ValidationError:
            continue
    return None


def _counts(sensor: Driver[Any], heard: bytes) -> tuple[int, int] | None:
    """Frames and rows, if the bytes are nearly all frames of this sensor; None if not."""
    if not isinstance(sensor, SerialSensor):
        return None
    try:
        parser = sensor._new_parser()
    except Misconfigured:
        # A package that it needs is not installed.
        return None
    rows = len(parser.feed(heard, time.monotonic_ns()).values)
    frames, _, skipped, _ = parser.tally().tolist()
    spare = parser.row_bytes + SKIPPED_SHARE * len(heard)
    return (
        (frames, rows) if frames >= LEAST_FRAMES and skipped <= spare and not getattr(parser, "asks", False) else None
    )


def _found(
    kind: str, driver: type[Driver[Any]], sensor: Driver[Any], settings: Settings, frames: int, rate_hz: float
) -> Found:
    needed = getattr(sensor, "needed", "samples")
    note = "" if rate_hz else f"it sends valid frames, but not {needed}: switch that on in the sensor"
    return Found(kind, _told(driver, sensor.cfg.baud, settings, rate_hz), round(rate_hz, 2), frames, note)


def _told(driver: type[Driver[Any]], baud: int, settings: Settings, rate_hz: float) -> Settings:
    """Settings for the configuration: with the rate as far as the driver takes it."""
    near = [hz for hz in ROUND_HZ if rate_hz and abs(hz / rate_hz - 1) <= ROUND_TOLERANCE]
    hz = near[0] if near else float(f"{rate_hz:.3g}")
    whole = int(hz) if float(hz).is_integer() else hz
    for rate in ({"rate_hz": whole}, {"rate_hz": round(hz)}):
        told = {"baud": baud, **rate, **settings}
        try:
            driver.Config.model_validate({"port": "any", **told})
        except ValidationError:
            continue
        return told
    return {"baud": baud, **settings}


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
    for kind in kinds():
        driver = driver_class(kind)
        fields = driver.Config.model_fields
        if not {"port", "baud"} <= set(fields):
            continue
        for rank, baud in enumerate(getattr(driver, "bauds", (fields["baud"].default,))):
            made = [(choice, _make(driver, port, baud, choice)) for choice in _choices(driver)]
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
        return bool(getattr(sensor._new_parser(), "asks", False))
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
