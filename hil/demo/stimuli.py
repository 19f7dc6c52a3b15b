"""What the demo's sensors will see and hear, and the truth about it.

Recordings where the machine has them, else made inputs: digits spoken by espeak-ng, motion from a kinematic model.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from drivers.synthetic import ACTIVITIES, motion
from models import speech
from models.datasets.load import find, load
from models.datasets.recording import Recording

AUDIO_RATE_HZ = 8000
IMU_RATE_HZ = 50.0
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SLOT_MIN_S = 1.5
PAUSE_S = 0.35
SEGMENT_S = 12.0
DEMO_VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-029")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a stimulus with one true label; positions in samples."""

    start: int
    stop: int
    label: str


@dataclass(frozen=True, slots=True)
class Stimulus:
    """Samples, played in a loop, and what they are."""

    source: str
    """For people: ``recordings (...)`` or what made them."""
    data: npt.NDArray[np.int16]
    """(n, channels)."""
    rate_hz: float
    truth: tuple[Span, ...]


def digits(seconds: float, seed: int, *, lead_in_s: float = PAUSE_S) -> Stimulus:
    """Spoken digits with pauses, ``seconds`` or longer. SpeechUnavailable if nothing can speak."""
    rng = np.random.default_rng(seed)
    folder = find("audio_fsdd")
    if folder:
        recordings = load(folder, "test")
        order = rng.permutation(len(recordings))
        clips = [(recordings[i].data[:, 0], recordings[i].label) for i in order]
        source = f"recordings ({folder}, split test)"
    else:
        clips = [_spoken(rng) for _ in range(round(seconds / SLOT_MIN_S))]
        source = "made: digits spoken by espeak-ng voices"
    parts: list[npt.NDArray[np.int16]] = [_hush(rng, lead_in_s)]
    truth = []
    at = len(parts[0])
    for clip, label in clips:
        slot = max(SLOT_MIN_S, len(clip) / AUDIO_RATE_HZ + PAUSE_S)
        pause = _hush(rng, slot - len(clip) / AUDIO_RATE_HZ)
        truth.append(Span(at, at + len(clip), label))
        parts += [clip, pause]
        at += len(clip) + len(pause)
        if at > seconds * AUDIO_RATE_HZ:
            break
    return Stimulus(source, np.concatenate(parts)[:, None], AUDIO_RATE_HZ, tuple(truth))


def _hush(rng: np.random.Generator, seconds: float) -> npt.NDArray[np.int16]:
    """The noise of a quiet microphone."""
    noise: npt.NDArray[np.int16] = rng.normal(0, 1.5, round(seconds * AUDIO_RATE_HZ)).round().astype(np.int16)
    return noise


def _spoken(rng: np.random.Generator) -> tuple[npt.NDArray[np.int16], str]:
    digit = int(rng.integers(10))
    voice = str(rng.choice(DEMO_VOICES))
    speed_wpm, pitch = int(rng.integers(130, 190)), int(rng.integers(35, 65))
    return speech.speak(DIGITS[digit], voice, AUDIO_RATE_HZ, speed_wpm=speed_wpm, pitch=pitch), str(digit)


def write_wav(stimulus: Stimulus, path: Path) -> None:
    """The stimulus as 16-bit WAV."""
    soundfile.write(path, stimulus.data, int(stimulus.rate_hz), subtype="PCM_16")


def body_motion(seconds: float, seed: int) -> Stimulus:
    """A person who does one thing after the other, at least ``seconds`` long; six channels in WitMotion's scaling."""
    rng = np.random.default_rng(seed)
    folder = find("imu_uci_har")
    if folder:
        stretches = _stretches(load(folder, "test"))
        pieces = [stretches[i] for i in rng.permutation(len(stretches))]
        source = f"recordings ({folder}, split test)"
    else:
        n = round(SEGMENT_S * IMU_RATE_HZ)
        names = [ACTIVITIES[rng.integers(len(ACTIVITIES))] for _ in range(round(seconds / SEGMENT_S) + 1)]
        pieces = [(motion(name, n, rng), name) for name in names]
        source = "made: motion from a kinematic model"
    data, truth, at = [], [], 0
    for rows, label in pieces:
        data.append(rows)
        truth.append(Span(at, at + len(rows), label))
        at += len(rows)
        if at > seconds * IMU_RATE_HZ:
            break
    return Stimulus(source, np.concatenate(data), IMU_RATE_HZ, tuple(truth))


def _stretches(recordings: list[Recording]) -> list[tuple[npt.NDArray[np.int16], str]]:
    """Some seconds of each activity: recorded windows of one label in a row, what overlaps only once."""
    stretches: list[tuple[list[npt.NDArray[np.int16]], str]] = []
    for label in dict.fromkeys(recording.label for recording in recordings):
        last: npt.NDArray[np.int16] | None = None
        for recording in (r for r in recordings if r.label == label):
            half = len(recording.data) // 2
            if last is None or sum(map(len, stretches[-1][0])) > SEGMENT_S * IMU_RATE_HZ:
                stretches.append(([recording.data], label))
            elif np.array_equal(last[half:], recording.data[:half]):
                stretches[-1][0].append(recording.data[half:])
            else:
                stretches[-1][0].append(recording.data)
            last = recording.data
    return [(np.concatenate(parts), label) for parts, label in stretches]
