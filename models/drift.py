"""Notice that live data are no longer like those of the training, before the decisions show it.

Each window gives signals (models/statistics.py). A signal is odd where it is outside the range that most windows of the
decided class were in when the model was trained (``RULES``). Per signal a cumulative sum (Page 1954) of the
log-likelihood ratio of "more are odd than usual" rises while that is so; beyond ``ALARM`` it is drift, until the sum is
down at 0 again. Windows of one label in a row tell the same again, by the same person at the same place: the n-th of
them counts 1/n, at least 1/``MOST_ALIKE``: a machine that is in one state for weeks must drift, and recover, too.

Spike rate of the input and confidence are there anyway. The hidden activity is not, since backends tell the last layer
only: once in ``LOOK_EVERY_NS`` the reference arithmetic works it out for a window.
"""

import math
import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models import statistics
from models.base import Inference
from models.bundle import Bundle
from models.statistics import QUANTILES, SIGNALS, Distance, Statistics

ALARM = 9.0
HIGHEST = 1.5 * ALARM
"""The sum stops there, so that the end of a long drift is noticed as soon as that of a short one."""
MOST_ALIKE = 200
ROUNDING = 1e-4
"""Scores come with four digits."""
LOOK_EVERY_NS = 2_000_000_000
"""Of capture time. A look costs what the window costs the backend reference: milliseconds, of a large network more."""
MOST_LOOKING = 0.01
"""Part of a core that looks may take."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A signal is odd below the quantile ``low`` and above ``high``. As usual a part ``usual`` of the windows is, more
    than in training since people and rooms are new; in a drift it is ``drifted``."""

    low: float | None
    high: float | None
    usual: float
    drifted: float
    what: str

    def is_odd(self, value: float, quantiles: npt.NDArray[np.float32]) -> bool:
        below = self.low is not None and value < quantiles[QUANTILES.index(self.low)] - ROUNDING
        above = self.high is not None and value > quantiles[QUANTILES.index(self.high)] + ROUNDING
        return below or above

    def evidence(self, odd: bool) -> float:
        """Log-likelihood ratio of one window."""
        return math.log(self.drifted / self.usual if odd else (1 - self.drifted) / (1 - self.usual))


RULES = {
    "input_rate": Rule(0.01, 0.99, 0.15, 0.5, "the spike rate of the input"),
    "hidden_rate": Rule(0.01, 0.99, 0.15, 0.5, "the spike rate inside the network"),
    "confidence": Rule(0.05, None, 0.25, 0.6, "the confidence of the decisions"),
    "distance": Rule(None, 0.99, 0.15, 0.5, "what the last layer hears"),
}


@dataclass(slots=True)
class DriftState:
    """What is known now. One thread writes, others read single fields."""

    drifting: bool = False
    scores: dict[str, float] = field(default_factory=dict)
    """Signal -> 0..1.5: its sum over the alarm; 1 or more begins a drift."""
    reason: str = ""
    """What gave the alarm, while ``drifting``."""


class Drift:
    """Watches the windows of one bundle; one thread calls it."""

    def __init__(self, bundle: Bundle, known: Statistics) -> None:
        self.state = DriftState()
        self._network = bundle.network
        self._labels = bundle.manifest.labels
        self._known = known
        self._distance = Distance(known)
        self._sums = dict.fromkeys(SIGNALS, 0.0)
        self._next_look_ns: int | None = None
        self._label = ""
        self._in_a_row = 0

    def see(self, raster: npt.NDArray[np.uint8], inference: Inference) -> bool:
        """Take one window, in their order, and what was decided. True if a drift began or ended with it."""
        of = self._labels.index(inference.label)
        self._in_a_row = min(self._in_a_row + 1, MOST_ALIKE) if inference.label == self._label else 1
        self._label = inference.label
        values = {"input_rate": np.count_nonzero(raster) / raster.size, "confidence": inference.score}
        if self._next_look_ns is None or inference.t0_ns >= self._next_look_ns:
            begun_ns = time.thread_time_ns()
            inside = statistics.look_inside(self._network, raster[None])
            values["hidden_rate"] = float(inside.rate[0])
            values["distance"] = float(self._distance.of(inside.phi)[0])
            took_ns = time.thread_time_ns() - begun_ns
            self._next_look_ns = inference.t0_ns + max(LOOK_EVERY_NS, round(took_ns / MOST_LOOKING))
        for name, value in values.items():
            rule = RULES[name]
            odd = rule.is_odd(value, self._known.quantiles[of, SIGNALS.index(name)])
            self._sums[name] = min(max(self._sums[name] + rule.evidence(odd) / self._in_a_row, 0.0), HIGHEST)
        worst = max(self._sums, key=lambda name: self._sums[name])
        state, before = self.state, self.state.drifting
        state.scores = {name: round(total / ALARM, 2) for name, total in self._sums.items()}
        state.drifting = self._sums[worst] >= ALARM or (before and self._sums[worst] > 0)
        if state.drifting and not before:
            state.reason = f"{RULES[worst].what} is not as in training; expect more wrong decisions"
        elif not state.drifting:
            state.reason = ""
        return state.drifting != before


def watch(bundle: Bundle) -> Drift | None:
    """A watch on the windows of ``bundle``; None where it decides on a stream or does not say what its training saw.

    Raises BadModel.
    """
    known = statistics.read(bundle) if bundle.manifest.state == "reset" else None
    return None if known is None else Drift(bundle, known)
