"""Examples to learn a label from: windows of files and sensors, and distorted copies of them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers import recording as packets
from drivers.base import Misconfigured
from drivers.packet import Packet, SensorInfo
from models.base import BadModel, Window
from models.bundle import Bundle
from models.datasets.audio import read_wav
from models.datasets.recording import Recording, audio_info, live_window
from models.speech import resample
from models.train import augment
from models.window_events import make_windower

COPIES = 24
"""Distorted ones of each example, where the sensor's kind can be distorted."""
MOST_FILE_BYTES = 64 << 20


def from_files(bundle: Bundle, paths: Iterable[Path]) -> list[Window]:
    """The windows of ``paths``: the first of each ``.wav`` (resampled to the bundle's rate), all of a ``.npz`` that
    ``axond record`` wrote. Raises BadModel for a file that is none of them, does not fit, or has no window."""
    windows = []
    for path in paths:
        found = _of_wav(bundle, path) if path.suffix.lower() == ".wav" else _of_recording(bundle, path)
        if not found:
            raise BadModel(f"{path}: no window begins in it; is it long and loud enough?")
        windows += found
    return windows


def of_packets(bundle: Bundle, info: SensorInfo, stream: Iterable[Packet]) -> Iterator[Window]:
    """The windows of a sensor, as they come. Raises BadModel."""
    windower = make_windower(bundle.windows, info)
    for packet in stream:
        yield from windower.push(packet)


def _of_wav(bundle: Bundle, path: Path) -> list[Window]:
    wanted = bundle.manifest.sole.input
    if wanted.family != "audio":
        raise BadModel(f"{path}: {bundle.id} listens to {wanted.family}, not to sound; expected a .npz of axond record")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise BadModel(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > MOST_FILE_BYTES:
        raise BadModel(f"{path}: larger than {MOST_FILE_BYTES} bytes; cut the example out of it")
    data, rate_hz = read_wav(content, str(path))
    data = resample(data[:, 0], round(rate_hz), round(wanted.rate_hz))[:, None]
    found = live_window(Recording(path.name, "", "", data, audio_info(wanted.rate_hz)), bundle.windows)
    return [] if found is None else [found]


def _of_recording(bundle: Bundle, path: Path) -> list[Window]:
    try:
        recorded = packets.load(path)
    except Misconfigured as error:
        raise BadModel(f"{error} (expected .wav, or .npz of axond record)") from error
    return list(of_packets(bundle, recorded.info, recorded.packets))


def copies(bundle: Bundle, window: Window, rng: np.random.Generator) -> list[Window]:
    """``window`` and distorted copies: other speakers and rooms of a sound; other pace, gain, place and noise of
    what an IMU or a ranger says. Events stay as they are."""
    made = [window]
    if window.data.dtype.names is not None:
        return made
    onset = bundle.windows.mode == "onset"
    for _ in range(COPIES):
        if window.info.family == "audio":
            wave = _other_sound(window.data[:, 0].astype(np.float64), rng, window.info)
            data = _integers(wave[:, None], window.data.dtype)
        else:
            data = _integers(_other_motion(window.data.astype(np.float64), rng), window.data.dtype)
        if onset:
            copy = live_window(Recording("copy", "", "", data, window.info), bundle.windows)
        else:
            copy = replace(window, data=_of_length(data, len(window.data)))
        if copy is not None:
            made.append(copy)
    return made


def _other_sound(wave: augment.Wave, rng: np.random.Generator, info: SensorInfo) -> augment.Wave:
    """At most full scale, as ``distort`` of models/train/spoken_digits.py but milder."""
    wave = wave - wave.mean()
    if rng.random() < 0.8:
        wave = augment.resample(wave, math.exp(rng.uniform(math.log(0.82), math.log(1.22))))
    if rng.random() < 0.5 and len(wave) > 1200:
        wave = augment.stretch(wave, math.exp(rng.uniform(math.log(0.8), math.log(1.25))))
    if rng.random() < 0.35:
        wave = augment.reverberate(wave, rng, info.rate_hz)
    if rng.random() < 0.7:
        wave = augment.equalise(wave, rng, rng.uniform(1, 6))
    wave = wave * (10 ** (rng.uniform(-25, -1) / 20) / (max(np.abs(wave).max(), 1e-9) * info.scale[0]))
    if rng.random() < 0.6:
        wave = wave + augment.coloured_noise(len(wave), rng) * wave.std() * 10 ** (-rng.uniform(10, 45) / 20)
    return wave


def _other_motion(data: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(samples, channels): up to 10 % faster or slower, stronger or weaker, a tenth of a window earlier or later."""
    count = len(data)
    at = np.arange(count) * rng.uniform(0.9, 1.1) + rng.uniform(-0.1, 0.1) * count
    moved = np.stack([np.interp(at, np.arange(count), channel) for channel in data.T], axis=1)
    noise = rng.normal(size=moved.shape) * (0.05 * data.std(axis=0))
    return np.asarray(moved * rng.uniform(0.9, 1.1) + noise)


def _integers(values: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    bounds = np.iinfo(dtype)
    return np.clip(np.rint(values), bounds.min, bounds.max).astype(dtype)


def _of_length(data: npt.NDArray[np.generic], count: int) -> npt.NDArray[np.generic]:
    """The first ``count`` samples; the last one is held where there are fewer."""
    held = np.repeat(data[-1:], max(0, count - len(data)), axis=0)
    return np.concatenate([data[:count], held])
