"""Choose what quantisation leaves open by what the network does on real rasters, and tell what each choice costs."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models import batch, float_network
from models.base import BadModel
from models.float_network import FloatLayer, FloatNetwork
from models.linear import Floats
from models.network import Layer, Network, check
from models.quantize import Bits, Granularity, Rounding, quantize_layer
from models.stages import wires

CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Parts of the largest weight at which the grid may end: fewer large weights exact, all small ones finer."""
CALIBRATION_RASTERS = 128
"""So many of the given ones, evenly spread, decide; more change little."""

Rasters = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quantized:
    """A network in integers, how it was made, and what it lost."""

    network: Network
    bits: Bits
    granularity: Granularity
    clips: tuple[float, ...]
    rounding: tuple[Rounding, ...]
    spikes_differ: float
    """Part of the cells (rasters, steps, neurons) of all spiking layers that differ from the float network's, each
    layer behind the integer layers before it; 0 without rasters."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    layer: Layer
    loss: Rounding
    clip: float
    out: npt.NDArray[np.int32]
    error: float


def calibrate(network: FloatNetwork, granularity: Granularity, bits: Bits, rasters: Rasters | None = None) -> Quantized:
    """Quantise layer by layer: of ``CLIPS``, each layer takes the one with the fewest differing spikes on ``rasters``.

    ``rasters`` are (batch, steps, features); without them every layer keeps its largest weight. An integrator takes the
    clip with the smallest error of its potential. Raises BadModel.
    """
    for layer in network.layers[:-1]:
        if layer.threshold is None:
            raise BadModel(f"layer {layer.name!r} is an integrator, which can only be the last layer")
    if rasters is None:
        first = [_candidate(layer, (granularity, bits), 1.0, None, None) for layer in network.layers]
        return _quantized(first, granularity, bits, 0.0)
    some = spread(network, rasters)
    outputs: list[npt.NDArray[Any]] = []
    trace = float_network.run(network, some)
    chosen: list[_Candidate] = []
    differ = cells = 0
    for i, (layer, wire) in enumerate(zip(network.layers, wires(network.layers), strict=True)):
        x = wire.take(some, outputs)
        wanted = trace.v_last if layer.threshold is None else trace.spikes[i].astype(np.float64)
        found: list[_Candidate] = []
        for clip in CLIPS:
            try:
                found.append(_candidate(layer, (granularity, bits), clip, x, wanted))
            except BadModel:
                if clip == CLIPS[0]:
                    raise
                break  # on so fine a grid a threshold, a bias or a current is too large
        best = min(found, key=lambda candidate: candidate.error)
        chosen.append(best)
        outputs.append(best.out)
        if layer.threshold is not None:
            differ, cells = differ + int(best.error), cells + wanted.size
    return _quantized(chosen, granularity, bits, differ / cells if cells else 0.0)


def _candidate(
    layer: FloatLayer,
    choice: tuple[Granularity, Bits],
    clip: float,
    x: npt.NDArray[np.generic] | None,
    wanted: Floats | None,
) -> _Candidate:
    made, loss = quantize_layer(layer, *choice, clip)
    check(Network((replace(made, beside=False),)))
    if x is None or wanted is None:
        return _Candidate(made, loss, clip, np.zeros(0, np.int32), 0.0)
    out = batch.run_layer(made, x).out
    if made.v_th is not None:
        return _Candidate(made, loss, clip, out, float(np.count_nonzero(out != wanted)))
    return _Candidate(made, loss, clip, out, float(np.abs(out / loss.unit - wanted).sum()))


def _quantized(chosen: list[_Candidate], granularity: Granularity, bits: Bits, differ: float) -> Quantized:
    return Quantized(
        network=check(Network(tuple(candidate.layer for candidate in chosen))),
        bits=bits,
        granularity=granularity,
        clips=tuple(candidate.clip for candidate in chosen),
        rounding=tuple(candidate.loss for candidate in chosen),
        spikes_differ=differ,
    )


def spread(network: FloatNetwork, rasters: Rasters) -> Rasters:
    """Evenly spread ones of ``rasters``, as many as calibration looks at."""
    widest = max(rasters.shape[2], *(len(layer.bias) for layer in network.layers))
    most = min(CALIBRATION_RASTERS, max(1, batch.MOST_CELLS // (rasters.shape[1] * widest)))
    taken: Rasters = rasters[np.unique(np.linspace(0, len(rasters) - 1, most).round().astype(int))]
    return taken


def temperature(potentials: npt.NDArray[np.int64], labels: Labels | None) -> float:
    """What to divide potentials (n, classes) by, for a softmax: with the ``labels``, of the smallest log loss.

    Without them the usual distance between the two best, so that a usual decision gets a score of about 0.7.
    """
    ordered = np.sort(potentials, axis=1)
    usual = max(1.0, float(np.median(ordered[:, -1] - ordered[:, -2])))
    if labels is None:
        return usual
    grid = usual * np.geomspace(1 / 64, 64, 97)
    return float(min(grid, key=lambda value: _log_loss(potentials / value, labels)))


def _log_loss(logits: npt.NDArray[np.float64], labels: Labels) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    right = shifted[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - right))


def float_decisions(network: FloatNetwork, rasters: Rasters) -> Labels:
    """(n,) class of each raster by the float network."""
    pieces = batch.parts(tuple(len(layer.bias) for layer in network.layers), rasters)
    return np.concatenate([float_network.run(network, piece).readout.argmax(axis=1) for piece in pieces])
