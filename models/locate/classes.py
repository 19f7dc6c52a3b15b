"""What reflects an ultrasonic burst: classes of objects, learnt from the user's own echoes, kept in one JSON file.

Only what comes back from the nearest echo on is looked at: how loud it is for its distance, and how it dies away.
What was heard before (ringing, mounting) tells recordings apart, not objects. The classifier is ridge regression
with a Gaussian kernel, one output per class: a few hundred pings are enough, and it is learnt in an instant.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.base import BadModel
from models.locate.echo import FILTER_S, HALF_BURST_S, SOUND_M_S, Echoes, Floats

FORMAT = "axond-echo-classes-1"
NOTHING = "nothing"
"""The label of a ping without an echo."""
SHAPE_BINS = 8
"""Loudest moments, in decades above the noise floor, in so many filter lengths from the nearest echo on."""
FEATURES = SHAPE_BINS + 6
MOST_COUNTED = 8
RIDGE = 0.3
MOST_ROWS = 5000
MOST_LABELS = 64
SHARPNESS = 4.0
"""From outputs of -1..1 to a score by softmax: an output that is 1 higher is e^4 times as likely."""


def features(curve: Floats, echoes: Echoes, sample_hz: float) -> Floats:
    """(FEATURES,) of one ping with one echo or more: its ``envelope`` (samples,) and what was found in it."""
    begin = int((echoes.range_mm[0] * 2e-3 / SOUND_M_S + HALF_BURST_S) * sample_hz)
    length = max(3, round(FILTER_S * sample_hz))
    padded = np.full(length * SHAPE_BINS, echoes.floor)
    piece = curve[max(begin - length, 0) :][: len(padded)]
    padded[: len(piece)] = piece
    least = max(echoes.floor, 1e-9)
    shape = np.log10(np.maximum(padded.reshape(SHAPE_BINS, length).max(axis=1), least) / least)
    range_m = max(float(echoes.range_mm[0]) / 1e3, 0.01)
    rest = (
        np.log10(max(float(echoes.amplitude[0]), 1e-9) * range_m),
        np.log10(max(float(echoes.amplitude.max()), 1e-9) * range_m),
        min(len(echoes.range_mm), MOST_COUNTED),
        np.log10(max(float(echoes.width_s[0]), 1e-6)),
        np.log10(max(float(echoes.width_s.max()), 1e-6)),
        np.log10(range_m),
    )
    return np.concatenate([shape, rest])


@dataclass(frozen=True, slots=True)
class Classes:
    """A learnt classifier."""

    labels: tuple[str, ...]
    mean: Floats
    """(FEATURES,)."""
    spread: Floats
    """(FEATURES,)."""
    rows: Floats
    """(n, FEATURES) standardised pings that were learnt from."""
    coefficients: Floats
    """(n, labels)."""

    def classify(self, found: Floats) -> tuple[str, float]:
        """Label and score (0..1, comparable within one file only) of one ping's ``features``."""
        outputs = _kernel(((found - self.mean) / self.spread)[None], self.rows) @ self.coefficients
        shares = np.exp(SHARPNESS * (outputs[0] - outputs.max()))
        best = int(outputs.argmax())
        return self.labels[best], round(float(shares[best] / shares.sum()), 4)


def learn(found: Floats, labels: Sequence[str]) -> Classes:
    """Learn from (n, FEATURES) and as many labels. Raises BadModel for fewer than two classes or too many pings."""
    names = tuple(sorted(set(labels)))
    if not 2 <= len(names) <= MOST_LABELS or len(found) > MOST_ROWS:
        raise BadModel(
            f"{len(found)} pings of {len(names)} classes ({', '.join(names[:5])}) cannot be learnt, expected 2 to "
            f"{MOST_LABELS} classes and at most {MOST_ROWS} pings with an echo"
        )
    mean = found.mean(axis=0)
    spread: Floats = np.maximum(np.sqrt(((found - mean) ** 2).mean(axis=0)), 1e-6)
    rows = (found - mean) / spread
    targets = np.where(np.array(labels)[:, None] == np.array(names), 1.0, -1.0)
    coefficients = np.linalg.solve(_kernel(rows, rows) + RIDGE * np.eye(len(rows)), targets)
    return Classes(names, mean, spread, rows, np.asarray(coefficients, np.float64))


def held_out_accuracy(found: Floats, labels: Sequence[str], groups: Sequence[str], folds: int = 5) -> float:
    """Share of pings that are named right by a classifier that has seen no ping of their group.

    Groups are dealt out to ``folds`` in the order of their names. NaN when a fold leaves fewer than two classes.
    """
    names = {group: index % folds for index, group in enumerate(sorted(set(groups)))}
    fold_of = np.array([names[group] for group in groups])
    truth = np.array(labels)
    right = 0
    for fold in range(folds):
        kept = fold_of != fold
        if len(set(truth[kept])) < 2:
            return float("nan")
        learnt = learn(found[kept], truth[kept].tolist())
        named = [learnt.classify(row)[0] for row in found[~kept]]
        right += int(np.count_nonzero(np.array(named, dtype=object) == truth[~kept].astype(object)))
    return right / len(truth)


def pack(classes: Classes) -> bytes:
    """The file that ``load`` reads."""
    document = {
        "format": FORMAT,
        "labels": classes.labels,
        "mean": _rounded(classes.mean),
        "spread": _rounded(classes.spread),
        "rows": _rounded(classes.rows),
        "coefficients": _rounded(classes.coefficients),
    }
    return (json.dumps(document) + "\n").encode()


def load(path: Path) -> Classes:
    """Read what ``pack`` made. Raises BadModel in one sentence for anything else."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadModel(f"{path}: cannot be read ({error.strerror}); learn one with 'axond locate learn'") from error
    except (ValueError, RecursionError) as error:
        raise BadModel(f"{path}: not valid JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadModel(f"{path}: no file of object classes (format {FORMAT}); learn one with 'axond locate learn'")
    labels = document.get("labels")
    if not (isinstance(labels, list) and 2 <= len(labels) <= MOST_LABELS and all(isinstance(t, str) for t in labels)):
        raise BadModel(f"{path}: labels must be a list of 2 to {MOST_LABELS} names")
    rows = _numbers(path, document, "rows", (None, FEATURES))
    if not 1 <= len(rows) <= MOST_ROWS:
        raise BadModel(f"{path}: rows has {len(rows)} pings, expected 1 to {MOST_ROWS}")
    spread = _numbers(path, document, "spread", (FEATURES,))
    if not (spread > 0).all():
        raise BadModel(f"{path}: spread must be above 0")
    mean = _numbers(path, document, "mean", (FEATURES,))
    coefficients = _numbers(path, document, "coefficients", (len(rows), len(labels)))
    return Classes(tuple(labels), mean, spread, rows, coefficients)


def _numbers(path: Path, document: dict[str, Any], key: str, shape: tuple[int | None, ...]) -> Floats:
    try:
        values = np.array(document.get(key), np.float64)
    except (TypeError, ValueError) as error:
        raise BadModel(f"{path}: {key} must be numbers") from error
    fits = values.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, values.shape))  # noqa: B905
    if not fits or not np.isfinite(values).all():
        raise BadModel(f"{path}: {key} has shape {values.shape}, expected finite numbers of {shape}")
    return values


def _kernel(a: Floats, b: Floats) -> Floats:
    """(len(a), len(b)) likeness, 1/e where the mean squared distance per feature is one variance."""
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T
    similar: Floats = np.exp(-np.maximum(square, 0.0) / FEATURES)
    return similar


def _rounded(values: Floats) -> Any:
    return np.round(values, 6).tolist()
