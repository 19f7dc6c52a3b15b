"""Distorted copies of the examples that a label is learned from."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.packet import SensorInfo
from models.base import Window
from models.bundle import Bundle
from models.datasets.recording import Recording, live_window
from models.train import augment

COPIES = 24
"""Distorted ones of each example, where the sensor's kind can be distorted."""


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
            other = _other_ranges if window.info.family == "ultrasonic" else _other_motion
            data = _integers(other(window.data.astype(np.float64), rng), window.data.dtype)
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
    count, at = len(data), _elsewhen(len(data), rng)
    moved = np.stack([np.interp(at, np.arange(count), channel) for channel in data.T], axis=1)
    noise = rng.normal(size=moved.shape) * (0.05 * data.std(axis=0))
    return np.asarray(moved * rng.uniform(0.9, 1.1) + noise)


def _other_ranges(data: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """The same of distances, of which 0 is no echo: it stays that, and nothing else becomes it."""
    nearest = data[np.clip(np.rint(_elsewhen(len(data), rng)), 0, len(data) - 1).astype(np.int64)]
    noise = rng.normal(size=data.shape) * (0.05 * data.std(axis=0))
    return np.where(nearest > 0, np.maximum(nearest * rng.uniform(0.9, 1.1) + noise, 1), 0)


def _elsewhen(count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(count,) places in a window, at another pace and a bit earlier or later."""
    return np.asarray(np.arange(count) * rng.uniform(0.9, 1.1) + rng.uniform(-0.1, 0.1) * count)


def _integers(values: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    bounds = np.iinfo(dtype)
    return np.clip(np.rint(values), bounds.min, bounds.max).astype(dtype)


def _of_length(data: npt.NDArray[np.generic], count: int) -> npt.NDArray[np.generic]:
    """The first ``count`` samples; the last one is held where there are fewer."""
    held = np.repeat(data[-1:], max(0, count - len(data)), axis=0)
    return np.concatenate([data[:count], held])
