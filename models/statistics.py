"""What a model saw in training, in means and covariances: what teaching a new label and noticing drift compare with.

The last layer is an integrator whose readout is the sum of its potential, so the potentials of a window are linear in
what it hears: ``potentials = 128 * W @ phi * sum(response)``, where ``phi`` of a window is, for each neuron before the
last layer, its spikes weighted by what a spike at that step still adds to the sum (0..1: a weighted mean rate). Where
the last layer has one weight for all rows of an image (``pooling``), phi is the mean over the rows.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models import batch
from models.base import BadModel
from models.bundle import Bundle
from models.network import DECAY_ONE, WEIGHT_SHIFT, Layer, Network, write_npz
from models.untrusted import read_npz

FILE = "statistics.npz"
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SIGNALS = ("input_rate", "hidden_rate", "confidence", "distance")
"""Of a window: parts of the cells of the raster and of the hidden layers that spike, softmax score of the decision, and
Mahalanobis distance of phi to the nearest class mean, divided by the root of its length."""
RANK = 64
"""The covariance is kept as so many factors and a diagonal."""
SHRINKAGE = 0.05
"""Part of the mean variance that is added to each: a neuron that was silent in training may spike one day."""
MOST_WINDOWS = 4096
"""Evenly spread ones of more are looked at."""

Rasters = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Activity:
    """What a network did in windows (n): ``phi`` (n, hidden), potentials (n, classes), spikes per cell (n,)."""

    phi: Floats
    potentials: npt.NDArray[np.int64]
    input_rate: Floats
    hidden_rate: Floats


@dataclass(frozen=True, slots=True)
class Inside:
    """``phi`` (n, hidden) and the part (n,) of the hidden cells that spiked."""

    phi: Floats
    rate: Floats


@dataclass(frozen=True, slots=True)
class Statistics:
    """The content of ``statistics.npz``.

    ``counts`` (classes,) windows; ``means`` (classes, hidden) of phi; its covariance within a class, the same for all,
    is ``factors @ factors.T + diag(diagonal)``; ``quantiles`` (classes, signals, quantiles) in the order of ``SIGNALS``
    and ``QUANTILES``: by class, since what is heard how often is another matter in use than in training.
    """

    counts: npt.NDArray[np.int64]
    means: npt.NDArray[np.float32]
    factors: npt.NDArray[np.float32]
    diagonal: npt.NDArray[np.float32]
    quantiles: npt.NDArray[np.float32]

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """As the file has them."""
        return {name: getattr(self, name) for name in _SHAPES}

    def pack(self) -> bytes:
        """The bytes of ``statistics.npz``; the same statistics give the same bytes."""
        return write_npz(self.arrays())

    def covariance(self) -> Floats:
        """(hidden, hidden) of phi within a class."""
        factors = self.factors.astype(np.float64)
        return np.asarray(factors @ factors.T + np.diag(self.diagonal.astype(np.float64)))


class Distance:
    """How far phi is from the nearest class mean, see ``SIGNALS``. Source: Mahalanobis, by Woodbury's identity."""

    def __init__(self, known: Statistics) -> None:
        factors = known.factors.astype(np.float64)
        self._means = known.means[known.counts > 0].astype(np.float64)
        self._inverse = 1 / known.diagonal.astype(np.float64)
        scaled = factors * self._inverse[:, None]
        middle = np.linalg.inv(np.eye(factors.shape[1]) + factors.T @ scaled)
        self._along = scaled @ np.linalg.cholesky(middle)

    def of(self, phi: Floats) -> Floats:
        """(n,) of ``phi`` (n, hidden)."""
        nearest = np.full(len(phi), np.inf)
        for mean in self._means:
            away = phi - mean
            square = (away**2) @ self._inverse - ((away @ self._along) ** 2).sum(axis=1)
            nearest = np.minimum(nearest, square)
        return np.asarray(np.sqrt(np.maximum(nearest, 0) / phi.shape[1]))


_TYPES = tuple(np.dtype(code) for code in ("<f4", "<i8"))
_SHAPES = {
    "counts": ("<i8", ("classes",), 0, 1 << 40),
    "means": ("<f4", ("classes", "hidden"), 0, 1.001),
    "factors": ("<f4", ("hidden", "rank"), -1, 1),
    "diagonal": ("<f4", ("hidden",), 1e-13, 1),
    "quantiles": ("<f4", ("classes", "signals", "quantiles"), 0, 1e9),
}
"""Type, shape, least and most of each array; phi is 0..1, so that a variance is 1/4 at most."""


def response(steps: int, layer: Layer) -> Floats:
    """(steps,) what a unit of input at each step adds to the sum over the steps of an integrator's v.

    For a spiking ``layer``, which is not linear, each step counts the same.
    """
    if layer.v_th is not None:
        return np.ones(steps)
    k_u, k_v = int(layer.k_u[0]) / DECAY_ONE, int(layer.k_v[0]) / DECAY_ONE
    out = np.empty(steps)
    u, v, total = 1.0, 1.0, 1.0
    for t in range(steps):
        out[steps - 1 - t] = total
        u *= k_u
        v = v * k_v + u
        total += v
    return out


def pooling(network: Network) -> tuple[int, int, int]:
    """Channels, rows and columns of the neurons before the last layer, where it has one weight for all rows; else the
    neurons themselves, as channels of one row and column."""
    last, conv = network.layers[-1], network.layers[-2].conv if len(network.layers) > 1 else None
    if conv is not None and last.conv is None and not network.layers[-2].beside:
        image = conv.out_shape(network.layers[-2].w_in.shape)
        if math.prod(image) == last.inputs:
            each = last.w_in.reshape(-1, *image)
            if (each == each[:, :, :1]).all():
                return image
    return last.inputs, 1, 1


def pooled(values: Floats, image: tuple[int, int, int]) -> Floats:
    """(n, neurons) to (n, channels * columns): the mean over the rows."""
    return np.asarray(values.reshape(-1, *image).mean(axis=2).reshape(len(values), -1))


def unit(steps: int, layer: Layer) -> float:
    """The potential that weight 1 gives a neuron of the last layer for a phi of 1."""
    return float((1 << WEIGHT_SHIFT) * response(steps, layer).sum())


def look(network: Network, rasters: Rasters) -> Activity:
    """Run ``rasters`` (n, steps, features) from rest, in the reference arithmetic."""
    last = network.layers[-1]
    inside = []
    potentials = []
    for part in batch.parts(network.neurons, rasters):
        x, one = _through(network, part)
        inside.append(one)
        potentials.append(batch.run_layer(last, x).out.sum(axis=1, dtype=np.int64))
    return Activity(
        phi=np.concatenate([one.phi for one in inside]),
        potentials=np.concatenate(potentials),
        input_rate=rasters.mean(axis=(1, 2), dtype=np.float64),
        hidden_rate=np.concatenate([one.rate for one in inside]),
    )


def look_inside(network: Network, rasters: Rasters) -> Inside:
    """The same of the layers before the last."""
    return _through(network, rasters)[1]


def _through(network: Network, rasters: Rasters) -> tuple[npt.NDArray[np.generic], Inside]:
    """What the last layer gets, and its summary."""
    count, steps, _ = rasters.shape
    outputs: list[npt.NDArray[Any]] = []
    spikes = np.zeros(count, np.int64)
    for layer, wire in zip(network.layers[:-1], network.wires, strict=False):
        outputs.append(batch.run_layer(layer, wire.take(rasters, outputs)).out)
        spikes += outputs[-1].sum(axis=(1, 2), dtype=np.int64)
    x = network.wires[-1].of(rasters, outputs)
    weights = response(steps, network.layers[-1])
    phi = np.matmul((weights / weights.sum()).astype(np.float32), x.astype(np.float32))
    cells = max(1, steps * sum(network.neurons[:-1]))
    return x, Inside(pooled(phi.astype(np.float64), pooling(network)), spikes / cells)


def confidence(potentials: npt.NDArray[np.int64], temperature: float) -> Floats:
    """(n,) softmax score of the decision on each row of potentials (n, classes)."""
    away = (potentials - potentials.max(axis=1, keepdims=True)) / temperature
    return np.asarray(1 / np.exp(away).sum(axis=1))


def collect(
    network: Network, rasters: Rasters, labels: npt.NDArray[np.int64], classes: int, temperature: float
) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of ``statistics.npz`` of windows (n, steps, features) and their classes (n,).

    Best of windows as they come in use, not of much distorted ones, and with some of every class. Raises BadModel.
    """
    if len(rasters) != len(labels) or not len(rasters) or classes != network.classes:
        raise BadModel(
            f"statistics of {len(rasters)} windows with {len(labels)} labels and {classes} classes: expected one label "
            f"for each window, some windows, and {network.classes} classes"
        )
    chosen = np.unique(np.linspace(0, len(rasters) - 1, min(MOST_WINDOWS, len(rasters))).round().astype(int))
    seen, truth = look(network, rasters[chosen]), labels[chosen]
    counts = np.bincount(truth, minlength=classes)
    means = np.zeros((classes, seen.phi.shape[1]))
    np.add.at(means, truth, seen.phi)
    means /= np.maximum(counts, 1)[:, None]
    factors, diagonal = _factorise(seen.phi - means[truth])
    bare = Statistics(
        counts.astype(np.int64),
        means.astype(np.float32),
        factors.astype(np.float32),
        diagonal.astype(np.float32),
        np.zeros((classes, len(SIGNALS), len(QUANTILES)), np.float32),
    )
    return replace(bare, quantiles=_quantiles(signals(bare, seen, temperature), truth, classes)).arrays()


def signals(of: Statistics, seen: Activity, temperature: float) -> Floats:
    """(signals, n) in the order of ``SIGNALS``."""
    score = confidence(seen.potentials, temperature)
    return np.stack([seen.input_rate, seen.hidden_rate, score, Distance(of).of(seen.phi)])


def _quantiles(values: Floats, truth: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.float32]:
    """(classes, signals, quantiles) of ``values`` (signals, n); a class without windows gets those of all."""
    mine = [values[:, truth == c] if (truth == c).any() else values for c in range(classes)]
    return np.stack([np.quantile(one, QUANTILES, axis=1).T for one in mine]).astype(np.float32)


def _factorise(residuals: Floats) -> tuple[Floats, Floats]:
    """Covariance of ``residuals`` (n, hidden) as its largest components, and what they leave of each variance."""
    variance = (residuals**2).mean(axis=0)
    _, size, directions = np.linalg.svd(residuals / np.sqrt(len(residuals)), full_matrices=False)
    factors = directions[:RANK].T * size[:RANK]
    floor = max(SHRINKAGE * float(variance.mean()), 1e-12)
    return factors, np.maximum(variance - (factors**2).sum(axis=1), 0) + floor


def load(content: bytes, network: Network, where: str) -> Statistics:
    """Read what ``Statistics.pack`` gave for ``network``. ``where`` names it in errors. Raises BadModel."""
    arrays = read_npz(content, where, _TYPES)
    channels, _, columns = pooling(network)
    try:
        sizes = {
            "classes": network.classes, "hidden": channels * columns, "rank": arrays["factors"].shape[-1],
            "signals": len(SIGNALS), "quantiles": len(QUANTILES),
        }  # fmt: skip
        if sizes["rank"] > RANK:
            raise ValueError(f"it has {sizes['rank']} factors, at most {RANK} are kept")
        for name, (kind, sides, low, high) in _SHAPES.items():
            shape, array = tuple(sizes[side] for side in sides), arrays[name]
            if array.shape != shape or array.dtype != np.dtype(kind):
                raise ValueError(f"its array {name!r} is {array.dtype} {array.shape}, expected {shape}")
            if not ((array >= low) & (array <= high)).all():
                raise ValueError(f"its array {name!r} has numbers that cannot be, expected {low:g} to {high:g}")
        if not arrays["counts"].any():
            raise ValueError("it is of no windows")
        known = Statistics(**{name: arrays[name] for name in _SHAPES})
        Distance(known)
    except KeyError as error:
        raise BadModel(f"{where}: not statistics of this network (it has no array {error})") from error
    except (ValueError, np.linalg.LinAlgError) as error:
        raise BadModel(f"{where}: not statistics of this network ({error})") from error
    return known


def read(bundle: Bundle) -> Statistics | None:
    """Those of ``bundle``; None if it has none. Raises BadModel if they are not what they should be."""
    if FILE not in bundle.manifest.files:
        return None
    return load(bundle.artefact(FILE), bundle.network, str(bundle.path / FILE))
