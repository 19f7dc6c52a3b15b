"""A row of the last layer from a few examples: the integers that make a new label win where it should, and only there.

The readout is linear in ``phi`` (models/statistics.py), so this is a logistic regression of one row against the others
as they are: ``p(label) = 1 / (1 + exp(L(phi) - unit / T * w . phi))``, ``L`` the log-sum-exp of the other potentials
over the temperature T. What is not the label is drawn from the means and the covariance of the known classes. What is
the label are the examples, distorted copies of them, and draws around their mean with that same covariance, which is
what makes five of them enough (as in linear discriminant analysis, Fisher 1936).
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.base import BadModel
from models.statistics import Floats, Statistics

SEED = 11
DRAWS = 150
"""Of each known class, to learn from, and as many others to judge by."""
LABEL_DRAWS = 400
RIDGE = 3e-6
PRESSURE = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""How much the known classes together weigh against the label; the first that loses little enough is taken."""
AIM_POINTS = 0.5
MOST_POINTS = 2.0
"""What the known classes may lose, in points of accuracy on the draws: aimed at, and refused beyond."""
TURNS = 10
"""Of leaving examples out; of more examples each turn leaves out several."""
_ROUNDS = 30


@dataclass(frozen=True, slots=True)
class Known:
    """The readout as it is. ``weights`` int8 (classes, hidden) of ``bits`` bits; ``constant`` (classes,) is the part of
    the potentials that phi does not explain; ``unit`` and ``temperature`` as in the docstring of the module."""

    weights: npt.NDArray[np.int8]
    bits: int
    constant: Floats
    unit: float
    temperature: float
    statistics: Statistics

    def logits(self, phi: Floats) -> Floats:
        """(n, classes)."""
        potentials = self.unit * (phi @ self.weights.T.astype(np.float64)) + self.constant
        return np.asarray(potentials / self.temperature)


@dataclass(frozen=True, slots=True)
class Lesson:
    """A row, int8 (hidden,), and what it does to draws: ``lost_points`` of the known classes' accuracy, and the part of
    the examples that it finds when they are left out in turn (None of a single one)."""

    row: npt.NDArray[np.int8]
    lost_points: float
    found: float | None


@dataclass(frozen=True, slots=True)
class _Problem:
    """``x`` (n, hidden), whether it is the label, its weight, and the log-sum-exp of the other logits."""

    x: Floats
    y: Floats
    weight: Floats
    other: Floats


def learn(known: Known, examples: list[Floats], of: int | None) -> Lesson:
    """The row of a new label, or with ``of`` a better one of that class.

    ``examples``: for each, phi (copies, hidden) of itself and its distorted copies. Raises BadModel when the known
    classes would lose more than ``MOST_POINTS``.
    """
    lesson = _learn(known, examples, of)
    if lesson.lost_points > MOST_POINTS:
        raise BadModel(
            f"the other labels would lose {lesson.lost_points:.1f} points of accuracy, {MOST_POINTS:g} are allowed: "
            "the examples are too much like them; give more of them, or clearer ones"
        )
    if len(examples) < 2:
        return lesson
    right = total = 0
    for turn in range(min(TURNS, len(examples))):
        row = _learn(known, [one for i, one in enumerate(examples) if i % TURNS != turn], of).row
        held = np.concatenate(examples[turn::TURNS])
        right += int((_decide(known, row, of, held) == _index(known, of)).sum())
        total += len(held)
    return replace(lesson, found=right / total)


def _index(known: Known, of: int | None) -> int:
    return len(known.weights) if of is None else of


def _decide(known: Known, row: npt.NDArray[np.int8], of: int | None, phi: Floats) -> npt.NDArray[np.intp]:
    logits = known.logits(phi)
    mine = known.unit / known.temperature * (phi @ row.astype(np.float64))
    if of is None:
        logits = np.concatenate([logits, mine[:, None]], axis=1)
    else:
        logits[:, of] = mine + known.constant[of] / known.temperature
    return np.asarray(logits.argmax(axis=1))


def _learn(known: Known, examples: list[Floats], of: int | None) -> Lesson:
    rng = np.random.default_rng(SEED)
    classes = len(known.weights)
    others = [c for c in range(classes) if c != of and known.statistics.counts[c]]
    if not others:
        raise BadModel("the statistics know no other label, so there is nothing to tell this one from; train it anew")
    means = known.statistics.means.astype(np.float64)
    negative = np.concatenate([_draws(rng, known, means[c], DRAWS, 1.0) for c in others])
    judged = np.concatenate([_draws(rng, known, means[c], DRAWS, 1.0) for c in others])
    truth = np.repeat(others, DRAWS)
    centre = np.stack([copies.mean(axis=0) for copies in examples]).mean(axis=0)
    # The mean of n examples is itself off by a part of their spread.
    around = _draws(rng, known, centre, LABEL_DRAWS, float(np.sqrt(1 + 1 / len(examples))))
    parts = [np.concatenate(examples), around]
    if of is not None and known.statistics.counts[of]:
        parts.append(_draws(rng, known, means[of], LABEL_DRAWS, 1.0))
    weights = [np.full(len(part), 1 / (len(parts) * len(part))) for part in parts]
    positive = np.concatenate(parts)
    x = np.concatenate([positive, negative])
    logits = known.logits(x)
    if of is not None:
        logits = np.delete(logits, of, axis=1)
    y = np.arange(len(x)) < len(positive)
    before = float((known.logits(judged).argmax(axis=1) == truth).mean())
    found: list[Lesson] = []
    for pressure in PRESSURE:
        weight = np.concatenate([*weights, np.full(len(negative), pressure / len(negative))])
        problem = _Problem(x, y.astype(np.float64), weight, _log_sum_exp(logits))
        row = _solve(known, problem, of)
        after = float((_decide(known, row, of, judged) == truth).mean())
        found.append(Lesson(row, 100 * (before - after), None))
        if found[-1].lost_points <= AIM_POINTS:
            return found[-1]
    return min(found, key=lambda lesson: lesson.lost_points)


def _draws(rng: np.random.Generator, known: Known, mean: Floats, count: int, spread: float) -> Floats:
    """(count, hidden) as a class with that mean gives them; a rate is neither below 0 nor above 1."""
    factors, diagonal = (a.astype(np.float64) for a in (known.statistics.factors, known.statistics.diagonal))
    along = rng.normal(size=(count, factors.shape[1])) @ factors.T
    loose = rng.normal(size=(count, len(mean))) * np.sqrt(diagonal)
    return np.asarray(np.clip(mean + spread * (along + loose), 0, 1))


def _log_sum_exp(logits: Floats) -> Floats:
    top = logits.max(axis=1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))


def _solve(known: Known, problem: _Problem, of: int | None) -> npt.NDArray[np.int8]:
    """Newton's method with halved steps, from the row as it was (0 if it is new), then rounded onto the grid."""
    x = problem.x * (known.unit / known.temperature)
    constant = 0.0 if of is None else known.constant[of] / known.temperature
    prior = np.zeros(x.shape[1]) if of is None else known.weights[of].astype(np.float64)

    def loss(w: Floats) -> float:
        z = x @ w + constant - problem.other
        fit = float((problem.weight * (np.logaddexp(0, z) - problem.y * z)).sum())
        return fit + RIDGE / 2 * float(((w - prior) ** 2).sum())

    w, reached = prior, loss(prior)
    for _ in range(_ROUNDS):
        p = 0.5 * (1 + np.tanh(0.5 * (x @ w + constant - problem.other)))
        gradient = x.T @ (problem.weight * (p - problem.y)) + RIDGE * (w - prior)
        curvature = (x * (problem.weight * p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(w))
        step = np.linalg.solve(curvature, gradient)
        scale = 1.0
        while scale > 1e-4 and loss(w - scale * step) > reached:
            scale /= 2
        w = w - scale * step
        reached = loss(w)
        if np.abs(scale * step).max() < 0.05:  # below what rounding does
            break
    most = (1 << (known.bits - 1)) - 1
    return np.clip(np.rint(w), -most, most).astype(np.int8)
