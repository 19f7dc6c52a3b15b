"""``axond bench teach``: a new label from five examples, how many others of it are found, what the known labels lose.

Words by espeak-ng, the examples and those to be found in other voices, at other speeds and pitches; if none is named,
also sounds of ESC-10 where it is found. What the known labels lose is measured on the test part of the model's own
recordings, where found.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models import batch, speech, teach
from models.base import BadModel
from models.bundle import Bundle
from models.datasets.load import find, load
from models.datasets.recording import Recording, at_rate, audio_info, live_window
from models.evaluate import code, encode
from models.registry import make_encoder, open_bundle

WORDS = ("hello", "computer", "yes", "no", "on", "off", "stop", "go", "left", "right", "up", "down")
"""`spoken-digits` was trained on none of them (models/train/other_words.py)."""
DIGITS = [str(digit) for digit in range(10)]
"""The labels of the recordings ``audio_fsdd``."""
EXAMPLES = 5
JUDGED_VOICES = 60
JUDGED_SOUNDS = 25
SEED = 1
SPEED_WPM = (120, 200)
PITCH = (25, 75)


@dataclass(frozen=True, slots=True)
class Judged:
    """Recordings of what the model knows: rasters (n, steps, features) and classes (n,)."""

    rasters: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]


def measure(name: str, data: Path | None, words: list[str]) -> dict[str, Any]:
    """Found parts (0..1) and lost points, by label; means and worst. Raises BadModel where ``name`` cannot be taught
    sounds."""
    bundle = open_bundle(name, [])
    if bundle.manifest.input is None or bundle.manifest.input.family != "audio":
        raise BadModel(f"{bundle.id} hears no sound; this bench teaches words")
    if bundle.manifest.state != "reset":
        raise BadModel(f"{bundle.id} decides on a stream; only models of windows can be taught")
    numbers: dict[str, Any] = {"model": bundle.id, "examples": EXAMPLES}
    if data is None and bundle.manifest.labels == DIGITS:
        data = find("audio_fsdd")
    judged = None if data is None else _judged(bundle, data)
    if judged is None:
        numbers["known"] = "not measured: no recordings of what the model knows; give them with --data"
    numbers |= _all("word", bundle, judged, {word: _spoken(word, bundle) for word in words or WORDS})
    if words:
        return numbers
    folder = find("audio_esc10")
    if folder is None:
        return numbers | {"sounds": "not measured: ESC-10 was not found (axond data get audio_esc10)"}
    return numbers | _all("sound", bundle, judged, _sounds(bundle, folder))


def _judged(bundle: Bundle, folder: Path) -> Judged:
    coded = code(bundle, load(folder, "test"))
    classes = np.array([bundle.manifest.labels.index(label) for label in coded.labels])
    return Judged(coded.rasters[coded.heard], classes[coded.heard])


def _spoken(word: str, bundle: Bundle) -> list[Recording]:
    """Of each a voice of its own; the examples come first."""
    rng = np.random.default_rng([SEED, *word.encode()])  # the same for a word, whatever others are asked for
    rate_hz = round(bundle.manifest.parts[0].input.rate_hz)
    made = []
    for voice in rng.permutation(speech.voices())[: EXAMPLES + JUDGED_VOICES]:
        speed_wpm, pitch = int(rng.integers(*SPEED_WPM)), int(rng.integers(*PITCH))
        data = speech.speak(word, str(voice), rate_hz, speed_wpm=speed_wpm, pitch=pitch)[:, None]
        made.append(Recording(f"{word}-{voice}", word, str(voice), data, audio_info(rate_hz)))
    return made


def _sounds(bundle: Bundle, folder: Path) -> dict[str, list[Recording]]:
    """By label, those in which a window begins."""
    rate_hz = round(bundle.manifest.parts[0].input.rate_hz)
    found: dict[str, list[Recording]] = {}
    for one in load(folder, "train"):
        sound = at_rate(one, rate_hz)
        if live_window(sound, bundle.windows) is not None:
            found.setdefault(one.label, []).append(sound)
    return {label: some[: EXAMPLES + JUDGED_SOUNDS] for label, some in sorted(found.items())}


def _all(kind: str, bundle: Bundle, judged: Judged | None, sets: dict[str, list[Recording]]) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    parts, losses = [], []
    for label, recordings in sets.items():
        try:
            found, lost = _one(bundle, judged, label, recordings)
        except BadModel as error:
            numbers[f"{kind}.{label}.refused"] = str(error)
            parts.append(0.0)
            continue
        parts.append(found)
        numbers[f"{kind}.{label}.found"] = round(found, 3)
        if lost is not None:
            losses.append(lost)
            numbers[f"{kind}.{label}.lost_points"] = round(lost, 1)
    numbers[f"{kind}s_found_mean"] = round(float(np.mean(parts)), 3)
    numbers[f"{kind}s_found_least"] = round(min(parts), 3)
    if losses:
        numbers[f"{kind}s_lost_points_most"] = round(max(losses), 1)
    return numbers


def _one(bundle: Bundle, judged: Judged | None, label: str, recordings: list[Recording]) -> tuple[float, float | None]:
    """The part of those behind the examples that is found, and the points that the known labels lose."""
    windows = [live_window(one, bundle.windows) for one in recordings[:EXAMPLES]]
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as folder:
        heard = [window for window in windows if window is not None]
        if len(heard) < EXAMPLES:
            raise BadModel(f"in {EXAMPLES - len(heard)} of {EXAMPLES} examples no window begins")
        child = teach.teach(bundle, label, heard, Path(folder) / "child", user=False).bundle
    others = encode(recordings[EXAMPLES:], make_encoder(bundle, recordings[0].info), bundle.windows)
    said = batch.run(child.network, others.rasters[others.heard])[0].argmax(axis=1)
    found = float((said == len(bundle.manifest.labels)).sum()) / len(others.heard)
    if judged is None:
        return found, None
    before, after = (
        float((batch.run(one.network, judged.rasters)[0].argmax(axis=1) == judged.classes).mean())
        for one in (bundle, child)
    )
    return found, 100 * (before - after)
