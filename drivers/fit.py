"""Which driver these bytes are meant for: the one whose frames are nearly all of them."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import numpy as np
from pydantic import ValidationError

from drivers.base import Driver, DriverConfig, Misconfigured
from drivers.lib.serial_sensor import SerialSensor
from drivers.lib.tick_frames import CRC_BYTES, ECHO_TIMES, HEADER, WAVEFORM, CobsScanner
from drivers.registry import driver_classes

NOISE_BYTES = 8
"""Fewer are a wire that picks something up."""
LEAST_FRAMES = 3
SKIPPED_SHARE = 0.1
"""Of the bytes of the right sensor at the right rate no more than this, and the row that was cut at the beginning,
belong to no frame."""
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


def fits(heard: bytes, seconds: float, baud: int) -> list[Found]:
    """The drivers to which these bytes are theirs, best first; none for most bytes."""
    if len(heard) < NOISE_BYTES:
        return []
    shuffled = np.random.default_rng(0).permutation(np.frombuffer(heard, np.uint8)).tobytes()
    found: list[tuple[int, Found]] = []
    seen = _sizes(heard)
    for kind, driver in streaming():
        if baud not in driver.bauds:
            continue
        tried: list[DriverConfig] = []
        for settings in (*choices(driver), *seen.get(kind, [])):
            sensor = make(driver, "probe", baud, settings)
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
    return "\n".join(lines + [f"{key} = {toml_value(value)}" for key, value in found.settings.items()])


def toml_value(value: object) -> str:
    """One value of a setting as TOML has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def streaming() -> Iterator[tuple[str, type[SerialSensor[Any]]]]:
    """Kinds and drivers of the sensors whose parser can be given bytes."""
    for kind, found in driver_classes()[0].items():
        if issubclass(found, SerialSensor):
            yield kind, found


def choices(driver: type[Driver[Any]]) -> Iterator[Settings]:
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


def make(driver: type[Driver[Any]], port: str, baud: int, settings: Settings) -> Driver[Any] | None:
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
        parser = sensor.new_parser()
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
