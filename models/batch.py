"""The arithmetic of the reference backend for many rasters at once, and how far the state of each layer can go."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.backends.reference import Population, decay
from models.network import DECAY_ONE, STATE_MAX, THRESHOLD_SHIFT, WEIGHT_SHIFT, Layer, Network

MOST_CELLS = 1 << 24
"""Of (rasters, steps, neurons) at once; more are taken in parts."""


@dataclass(frozen=True, slots=True)
class LayerRun:
    """``out`` int32 (batch, steps, neurons): spikes, or an integrator's potential; the largest |u| and |v| seen."""

    out: npt.NDArray[np.int32]
    u_seen: int
    v_seen: int


@dataclass(frozen=True, slots=True)
class Reach:
    """How far |u| and |v| of a layer can go by its weights, for any input, and how far they went."""

    layer: str
    u_bound: int
    v_bound: int
    """Before the clip at 2^23 - 1; that or less: the clip is never met."""
    u_seen: int
    v_seen: int


def run_layer(layer: Layer, x: npt.NDArray[np.generic]) -> LayerRun:
    """One layer from rest through ``x`` (batch, steps, inputs) of 0 and 1."""
    batch, steps, inputs = x.shape
    population = Population(layer)
    drive = population.drive(x.reshape(batch * steps, inputs).astype(np.float32)).reshape(batch, steps, -1)
    u, v = np.zeros((2, batch, layer.neurons), np.int64)
    s = np.zeros((batch, layer.neurons), np.float32)
    k_u, k_v, bias = (a.astype(np.int64) for a in (layer.k_u, layer.k_v, layer.bias))
    threshold = None if layer.v_th is None else layer.v_th.astype(np.int64) << THRESHOLD_SHIFT
    out = np.empty(drive.shape, np.int32)
    u_seen = v_seen = 0
    for t in range(steps):
        u = decay(u, k_u) + drive[:, t]
        fed = population.feedback(s)
        if fed is not None:
            u += fed
        v = np.clip(decay(v, k_v) + u + bias, -STATE_MAX, STATE_MAX)
        u_seen, v_seen = max(u_seen, _size(u)), max(v_seen, _size(v))
        if threshold is None:
            out[:, t] = v
        else:
            spikes = v > threshold
            v[spikes] = 0
            s = spikes.astype(np.float32)
            out[:, t] = spikes
    return LayerRun(out, u_seen, v_seen)


def _size(z: npt.NDArray[np.int64]) -> int:
    return int(np.abs(z).max(initial=0))


def parts(network_neurons: tuple[int, ...], rasters: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """``rasters`` (batch, steps, features) in pieces that fit into memory."""
    cells = rasters.shape[1] * max(*network_neurons, rasters.shape[2], 1)
    at_once = max(1, MOST_CELLS // max(cells, 1))
    return [rasters[i : i + at_once] for i in range(0, len(rasters), at_once)]


def run(network: Network, rasters: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], tuple[Reach, ...]]:
    """Potentials (batch, classes) of ``rasters`` (batch, steps, features), and what each layer reached."""
    potentials = np.zeros((len(rasters), network.classes), np.int64)
    seen = [(0, 0)] * len(network.layers)
    at = 0
    for part in parts(network.neurons, rasters):
        outputs: list[npt.NDArray[Any]] = []
        for i, (layer, wire) in enumerate(zip(network.layers, network.wires, strict=True)):
            result = run_layer(layer, wire.take(part, outputs))
            seen[i] = max(seen[i][0], result.u_seen), max(seen[i][1], result.v_seen)
            outputs.append(result.out)
        potentials[at : at + len(part)] = outputs[-1].sum(axis=1, dtype=np.int64)
        at += len(part)
    return potentials, tuple(_reach(layer, *pair) for layer, pair in zip(network.layers, seen, strict=True))


def _reach(layer: Layer, u_seen: int, v_seen: int) -> Reach:
    """``|u| <= G + |u| k / 4096`` has the fixed point ``G 4096 / (4096 - k)``; truncation only makes it smaller."""
    gain = np.abs(layer.w_in.astype(np.int64)).sum(axis=tuple(range(1, layer.w_in.ndim)))
    gain = np.repeat(gain, layer.neurons // len(gain))
    if layer.w_rec is not None:
        gain = gain + np.abs(layer.w_rec.astype(np.int64)).sum(axis=1)
    # Without a decay a state that something is added to has no bound but the clip; network.check refuses that for u.
    u = (gain << WEIGHT_SHIFT) * DECAY_ONE // np.maximum(DECAY_ONE - layer.k_u.astype(np.int64), 1)
    each = u + np.abs(layer.bias.astype(np.int64))
    v = each * DECAY_ONE // np.maximum(DECAY_ONE - layer.k_v.astype(np.int64), 1)
    return Reach(layer.name, _size(u), _size(v), u_seen, v_seen)
