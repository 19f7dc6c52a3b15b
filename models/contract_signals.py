"""Made signals: what an encoder is tried with. Each family in the form that axond's drivers give it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from drivers.packet import EVENT, Packet, SensorInfo
from models.base import Window
from models.datasets.recording import IMU_INFO, audio_info

SECOND_NS = 1_000_000_000
RATES_HZ = {"audio": (16_000.0, 8000.0, 44_100.0, 48_000.0), "imu": (50.0, 100.0, 200.0), "ultrasonic": (7.5, 20.0)}
CAMERA_SIDE = 128
CAMERA = SensorInfo("event_camera", ("x", "y", "on"), ("px", "px", "1"), (1.0, 1.0, 1.0), 1e6)
RANGER = SensorInfo("ultrasonic", ("distance",), ("mm",), (1.0,), 7.5)

Cut = Callable[[int, int], Iterator[Packet]]
"""A made second or more, from a seed, in packets of so many samples or events; the same signal for the same seed."""


def sensors(rate_hz: object) -> Iterator[SensorInfo]:
    """Sensors of all families, those with samples at ``rate_hz`` if that is a number, else at usual rates."""
    yield CAMERA
    for family, usual in RATES_HZ.items():
        for rate in (float(rate_hz),) if isinstance(rate_hz, (int, float)) else usual:
            info = {"audio": audio_info(rate), "imu": IMU_INFO, "ultrasonic": RANGER}[family]
            yield replace(info, rate_hz=rate)


def samples(info: SensorInfo, seed: int) -> Any:
    """(n, channels) int16: a second of sound, or 128 samples of motion, or of ranges up to 5 m."""
    rng = np.random.default_rng(seed)
    if info.family == "audio":
        n = round(info.rate_hz)
        wave = rng.normal(0, 3000, n) * np.sin(np.linspace(0, 3 * np.pi, n)) ** 2
        return np.rint(wave).astype(np.int16)[:, None]
    walk = rng.normal(0, 800, (128, len(info.channels))).cumsum(axis=0) / 4
    if info.family == "ultrasonic":
        return (np.abs(np.rint(walk)) % 5000).astype(np.int16)
    return np.rint(walk).clip(-32768, 32767).astype(np.int16)


def length(info: SensorInfo) -> int:
    """Samples, or microseconds of events, of such a ``window``."""
    return SECOND_NS // 1000 if info.family == "event_camera" else len(samples(info, 0))


def window(info: SensorInfo, seed: int) -> Window:
    """All of ``samples``, or a second of events, as one window."""
    if info.family == "event_camera":
        (whole,) = _events(seed, 1_000_000)
        return Window(SECOND_NS, 0, whole.data, info, span_ns=SECOND_NS)
    data = samples(info, seed)
    data.flags.writeable = False
    return Window(SECOND_NS, round(1e9 / info.rate_hz), data, info)


def wider(one: Window) -> Window:
    """The same in another integer type; events have one only."""
    return one if one.data.dtype == EVENT else replace(one, data=one.data.astype(np.int32))


def stuck(one: Window, value: int) -> Window:
    """The same of a sensor that only ever says ``value``, an int16, or whose first pixel sends all events."""
    if one.data.dtype != EVENT:
        return replace(one, data=np.full_like(one.data, value))
    data = one.data.copy()
    data["x"], data["y"], data["on"] = 0, 0, value > 0
    return replace(one, data=data)


def packets(info: SensorInfo) -> Cut:
    """The signal of such a sensor, to be cut."""
    return _events if info.family == "event_camera" else lambda seed, size: _parts(info, seed, size)


def _parts(info: SensorInfo, seed: int, size: int) -> Iterator[Packet]:
    data, dt_ns = samples(info, seed), round(1e9 / info.rate_hz)
    for seq, start in enumerate(range(0, len(data), size)):
        yield Packet("made", seq, SECOND_NS + start * dt_ns, dt_ns, data[start : start + size].copy())


def _events(seed: int, size: int) -> Iterator[Packet]:
    rng = np.random.default_rng(seed)
    data = np.zeros(5000, EVENT)
    data["t_ns"] = SECOND_NS + np.sort(rng.integers(0, SECOND_NS, len(data)))
    data["x"], data["y"], data["on"] = (rng.integers(0, n, len(data)) for n in (CAMERA_SIDE, CAMERA_SIDE, 2))
    for seq, start in enumerate(range(0, len(data), size)):
        part = data[start : start + size].copy()
        yield Packet("made", seq, int(part["t_ns"][0]), 0, part)
