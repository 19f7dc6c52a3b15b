"""Hours of continuous sound with known words in it, made of short recordings as they are asked for."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.packet import Packet, SensorInfo
from models.datasets.recording import DataError, Recording
from models.detect import Detector
from models.stream import Stream

PACKET_S = 0.02
LATE_S = 1.0
"""A word may be detected until so long after its clip."""


@dataclass(frozen=True, slots=True)
class Said:
    """A clip in the sound: from ``begin_s`` to ``end_s``, counted from the beginning of all."""

    label: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Scene:
    """A stretch of sound that follows the one before it without a gap."""

    samples: npt.NDArray[np.int16]
    """(n, 1)."""
    info: SensorInfo
    said: Said


@dataclass(frozen=True, slots=True)
class Score:
    """What a detector made of a soundscape. Every detection is one of the first three."""

    hits: int
    """Clips whose word was detected while they lasted or within ``LATE_S`` after; each counts once."""
    wrong: int
    """Detections in that time of another word, or of the same once more."""
    false_alarms: int
    """Detections where no clip was."""
    said: int


def scenes(
    clips: list[Recording], noises: list[Recording], rng: np.random.Generator, *, scene_s: float, snr_db: float
) -> Iterator[Scene]:
    """Without end: all clips in a random order, then in another, each somewhere in ``scene_s`` of noises in a row.

    The noises of a scene are as loud as makes them ``snr_db`` quieter than the word where they are under its clip, if
    that does not overdrive them; a word's root mean square is that of the loudest five tenths of a second in its clip.
    Raises DataError where rates differ or a clip does not fit.
    """
    info = clips[0].info
    count = round(scene_s * info.rate_hz)
    for recording in (*clips, *noises):
        if recording.info != info:
            raise DataError(f"{recording.name}: another rate or other channels than {clips[0].name}")
    if max(len(clip.data) for clip in clips) > count:
        raise DataError(f"a clip is longer than the {scene_s:g} s that it is put into")
    pieces = _without_end(noises, rng)
    begin = 0
    for clip in _without_end(clips, rng):
        bed = np.zeros(0)
        while len(bed) < count:
            bed = np.concatenate([bed, next(pieces).data[:, 0].astype(np.float64)])
        bed = bed[:count]
        word = clip.data[:, 0].astype(np.float64)
        first = int(rng.integers(0, count - len(word) + 1))
        under = float(np.sqrt(np.mean(bed[first : first + len(word)] ** 2)))
        gain = _loudness(word, info) * 10 ** (-snr_db / 20) / max(under, 1.0)
        bed *= min(gain, 32767 / max(1.0, float(np.abs(bed).max())))
        bed[first : first + len(word)] += word
        samples = np.clip(np.rint(bed), -32768, 32767).astype(np.int16)[:, None]
        begin_s = (begin + first) / info.rate_hz
        yield Scene(samples, info, Said(clip.label, begin_s, begin_s + len(word) / info.rate_hz))
        begin += count


def listen(
    stream: Stream, detector: Detector, source: Iterator[Scene]
) -> Iterator[tuple[Said, list[tuple[float, str]]]]:
    """Feed scenes as packets, as a microphone would; what was said in each, and time in s and label of detections."""
    seq = position = 0
    for scene in source:
        info = scene.info
        size, dt_ns = round(PACKET_S * info.rate_hz), round(1e9 / info.rate_hz)
        heard = []
        for first in range(0, len(scene.samples), size):
            data = scene.samples[first : first + size]
            for inference in stream.push(Packet("soundscape", seq, position * dt_ns, dt_ns, data)):
                if detector.hears(inference.label, inference.score, inference.end_ns):
                    heard.append((inference.end_ns / dt_ns / info.rate_hz, inference.label))
            seq, position = seq + 1, position + len(data)
        yield scene.said, heard


def score(said: list[Said], detections: list[tuple[float, str]]) -> Score:
    """``detections``: time in s, as in ``said``, and label, in the order of time."""
    hits = wrong = false_alarms = 0
    found: set[int] = set()
    begins_s = np.array([one.begin_s for one in said])
    for at_s, label in detections:
        i = int(np.searchsorted(begins_s, at_s, side="right")) - 1
        if i < 0 or at_s > said[i].end_s + LATE_S:
            false_alarms += 1
        elif label == said[i].label and i not in found:
            found.add(i)
            hits += 1
        else:
            wrong += 1
    return Score(hits, wrong, false_alarms, len(said))


def _without_end(recordings: list[Recording], rng: np.random.Generator) -> Iterator[Recording]:
    while True:
        for i in rng.permutation(len(recordings)):
            yield recordings[i]


def _loudness(word: npt.NDArray[np.float64], info: SensorInfo) -> float:
    """Root mean square of the loudest half second, or of all where that is shorter."""
    frame = max(1, round(info.rate_hz / 10))
    power = np.add.reduceat((word - word.mean()) ** 2, np.arange(0, len(word), frame)) / frame
    return float(np.sqrt(np.sort(power)[-5:].mean()))
