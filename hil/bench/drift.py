"""``axond bench drift``: recordings that change, as a pipeline hears them: after how many windows drift is reported,
and how many decisions were right until then.

Sound in white noise that rises, and played at another speed, in several random orders; motion in its own order, from
a sensor that sits turned about several random axes. The test part of the model's recordings; unchanged, it should be no
drift. Recordings in which no window begins are ``missed``; all other numbers are of windows.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agent.cli.command import CommandError
from models import batch, statistics
from models.base import Inference, ModelError, Window
from models.bundle import Bundle
from models.datasets.load import load, required
from models.datasets.recording import Recording, live_window, window_behind
from models.drift import Drift, watch
from models.evaluate import code
from models.registry import make_encoder, open_bundle
from models.train.augment import resample
from models.train.augment_imu import rotation, turned

TIMES = 3
"""Each with another order or axis."""
EVERY_NS = 10 * 10**9
"""Between windows: every one may be looked into."""
SNR_DB = (45.0, 5.0)
SPEEDS = (0.7, 1.2)
TURNS_DEG = (20.0, 45.0)
DATA = {"audio": "audio_fsdd", "imu": "imu_uci_har"}
"""The recordings of a sensor's family that are taken if none are named."""
Change = Callable[[Recording, float, np.random.Generator], Window | None]
"""The window of a recording, at this part (0..1) of the run; None where none begins."""


def measure(name: str, data: Path | None) -> dict[str, Any]:
    """By change, each time: windows, accuracy, and where drift began: after how many windows, at which part of the run,
    and what was right until then. Raises CommandError."""
    try:
        bundle = open_bundle(name, [])
        _watch(bundle)
        family = bundle.manifest.parts[0].input.family
        if family not in DATA:
            raise CommandError(f"{bundle.id} takes {family}; this bench changes {' and '.join(DATA)} only")
        recordings = load(required(DATA[family], data), "test")
        code(bundle, recordings)  # refuses what is not of this model
        numbers: dict[str, Any] = {"model": bundle.id, "recordings": len(recordings)}
        for time in range(1, TIMES + 1):
            for what, change in _changes(bundle, time).items():
                found = _follow(bundle, recordings, change, time)
                if what == "noise" and "began_part" in found:
                    found["began_snr_db"] = round(float(np.interp(found["began_part"], (0, 1), SNR_DB)), 1)
                numbers |= {f"{what}.{time}.{key}": value for key, value in found.items()}
    except ModelError as error:
        raise CommandError(str(error)) from error
    return numbers


def _watch(bundle: Bundle) -> Drift:
    drift = watch(bundle)
    if drift is None:
        raise CommandError(f"{bundle.id} is not watched for drift: it decides on a stream, or has no statistics")
    return drift


def _changes(bundle: Bundle, time: int) -> dict[str, Change]:
    """By name; a sensor sits turned about an axis of this time's own."""
    family, spec = bundle.manifest.sole.input.family, bundle.windows

    def usual(recording: Recording, part: float, rng: np.random.Generator) -> Window | None:
        return live_window(recording, spec)

    def at_speed(factor: float) -> Change:
        def change(recording: Recording, part: float, rng: np.random.Generator) -> Window | None:
            wave = resample(recording.data[:, 0].astype(np.float64), factor)
            return live_window(replace(recording, data=np.rint(wave).astype(np.int16)[:, None]), spec)

        return change

    def noise(recording: Recording, part: float, rng: np.random.Generator) -> Window | None:
        return _in_noise(recording, float(np.interp(part, (0, 1), SNR_DB)), bundle, rng)

    def turn(angle_deg: float) -> Change:
        how = rotation(np.random.default_rng(time), angle_deg)

        def change(recording: Recording, part: float, rng: np.random.Generator) -> Window | None:
            return live_window(replace(recording, data=turned(recording.data, how)), spec)

        return change

    if family == "audio":
        return {"unchanged": usual, "noise": noise} | {f"speed_{speed:g}": at_speed(speed) for speed in SPEEDS}
    return {"unchanged": usual} | {f"turned_{angle:g}_deg": turn(angle) for angle in TURNS_DEG}


def _in_noise(recording: Recording, snr_db: float, bundle: Bundle, rng: np.random.Generator) -> Window | None:
    """The window that begins in the word, of noise that was there before it and stays."""
    word = recording.data[:, 0] - recording.data.mean()
    lead_in = round(recording.info.rate_hz)
    stream = rng.normal(0, np.sqrt(np.mean(word**2)) * 10 ** (-snr_db / 20), 2 * lead_in + len(word))
    stream[lead_in : lead_in + len(word)] += word
    samples = np.clip(np.rint(stream), -32768, 32767).astype(np.int16)[:, None]
    return window_behind(samples, recording.info, bundle.windows, lead_in)


def _follow(bundle: Bundle, recordings: list[Recording], change: Change, time: int) -> dict[str, Any]:
    rng = np.random.default_rng(time)
    info = recordings[0].info
    # Words come in any order; what a person does goes on for a while, and drift knows that.
    places = rng.permutation(len(recordings)) if info.family == "audio" else np.arange(len(recordings))
    parts = np.arange(len(places)) / len(places)
    heard = [
        (change(recordings[i], part, rng), part, recordings[i].label) for i, part in zip(places, parts, strict=True)
    ]
    kept = [(window, part, label) for window, part, label in heard if window is not None]
    found: dict[str, Any] = {"windows": len(kept), "missed": len(heard) - len(kept)}
    if not kept:
        return found
    encoder = make_encoder(bundle, info)
    rasters = np.zeros((len(kept), *encoder.shape), np.uint8)
    for (window, _, _), raster in zip(kept, rasters, strict=True):
        encoder.encode(window, raster)
    labels = bundle.manifest.labels
    potentials = batch.run(bundle.network, rasters)[0]
    decided = potentials.argmax(axis=1)
    right = decided == [labels.index(label) for _, _, label in kept]
    scores = statistics.confidence(potentials, bundle.manifest.temperature)
    found["accuracy"] = round(float(right.mean()), 3)
    drift = _watch(bundle)
    for n, (_, part, _) in enumerate(kept):
        decision = Inference(n * EVERY_NS, 0, 0, labels[decided[n]], round(float(scores[n]), 4), 0, 0, 0, 0)
        if drift.see(rasters[n], decision):
            found["began_after"] = n + 1
            found["began_part"] = round(float(part), 3)
            found["right_until"] = round(float(right[: n + 1].mean()), 3)
            found["because"] = drift.state.reason
            break
    return found
