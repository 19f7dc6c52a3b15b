"""What is compared with a CNN, and how a window becomes its input: what people feed such networks with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Window
from models.encoders.audio_mel import MelBand, mel_bank

Features = npt.NDArray[np.float32]
FLOOR_FS = 1e-5
BANDS = 32
TIME_BINS = 3
"""Of an event camera's window: each is an image of counts for each polarity."""


@dataclass(frozen=True, slots=True)
class Task:
    """A model's dataset, the module that trains it, and the CNN's front end."""

    dataset: str
    training: str
    front: Callable[[Window], Features]


def log_mel(window: Window) -> Features:
    """(frames of 32 ms every 16 ms, bands, 1), of zero mean and unit variance in each window."""
    rate_hz = window.info.rate_hz
    frame, hop = round(0.032 * rate_hz), round(0.016 * rate_hz)
    wave = window.data[:, 0].astype(np.float32) / 32768
    frames = np.lib.stride_tricks.sliding_window_view(wave, frame)[::hop] * np.hanning(frame).astype(np.float32)
    spectra = np.fft.rfft(frames, axis=1)
    level = np.log((spectra.real**2 + spectra.imag**2) @ _bank(rate_hz, frame) + FLOOR_FS**2)
    features: Features = ((level - level.mean()) / (level.std() + 1e-6)).astype(np.float32)[:, :, None]
    return features


@cache
def _bank(rate_hz: float, frame: int) -> npt.NDArray[np.float64]:
    return mel_bank(MelBand(rate_hz, frame, BANDS, 60.0, 0.48 * rate_hz))


def motion(window: Window) -> Features:
    """(samples, 1, channels) in g and hundreds of degrees a second."""
    scale = np.asarray(window.info.scale, np.float32) * np.array([1, 1, 1, 0.01, 0.01, 0.01], np.float32)
    data: npt.NDArray[Any] = window.data
    features: Features = (data * scale).astype(np.float32)[:, None, :]
    return features


def event_counts(window: Window) -> Features:
    """(34, 34, 2 x time bins): square roots of counts."""
    events: npt.NDArray[Any] = window.data
    at = np.clip((events["t_ns"] - window.t0_ns) * TIME_BINS // (window.end_ns - window.t0_ns), 0, TIME_BINS - 1)
    image = np.zeros((34, 34, 2 * TIME_BINS), np.float32)
    np.add.at(image, (events["y"], events["x"], 2 * at.astype(np.int64) + events["on"]), 1.0)
    return np.sqrt(image)


TASKS = {
    "spoken-digits": Task("audio_fsdd", "spoken_digits", log_mel),
    "sound-events": Task("audio_esc10", "sound_events", log_mel),
    "activity": Task("imu_uci_har", "activity", motion),
    "event-digits": Task("event_nmnist", "event_digits", event_counts),
}
