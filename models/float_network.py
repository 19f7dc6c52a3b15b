"""The float network that NIR describes, stepped by forward Euler: for import, for checking a graph, for accuracy.

Source of the equations: Pedersen et al., "Neuromorphic intermediate representation", Nature Communications 2024.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.convolution import ConvShape
from models.linear import Floats, Synapse
from models.stages import wires


@dataclass(frozen=True, slots=True)
class FloatLayer:
    """One neuron population and its synapses, after discretisation with the time step dt.

    ``i = decay_i * i + gain_i * (w_in x + bias + w_rec s[t-1]);  v = decay_v * v + gain_v * (i + v_leak)``;
    a layer without a synaptic state has ``decay_i = 0, gain_i = 1``. ``threshold`` None means an integrator.
    Every vector is (neurons,); ``bias`` includes the recurrent bias. With ``conv``, ``w_in`` is the kernel of a
    convolution. ``beside``: the layer stands beside the one before it, as in ``models.network``.
    """

    name: str
    w_in: Floats
    bias: Floats
    w_rec: Floats | None
    decay_i: Floats
    gain_i: Floats
    decay_v: Floats
    gain_v: Floats
    leak: Floats
    """The leak term as added to v each step."""
    threshold: Floats | None
    reset: Floats
    conv: ConvShape | None = None
    beside: bool = False

    @property
    def neurons(self) -> int:
        return len(self.bias)

    @property
    def inputs(self) -> int:
        return int(self.w_in.shape[1]) if self.conv is None else math.prod(self.conv.in_shape)


@dataclass(frozen=True, slots=True)
class FloatNetwork:
    """Layers in order, in stages as those of ``models.network.Network``."""

    layers: tuple[FloatLayer, ...]
    dt_s: float
    inputs: tuple[str, ...] = ()
    """Names of the graph's Inputs, in the order of their features."""


@dataclass(frozen=True, slots=True)
class FloatTrace:
    """``spikes`` per layer, bool (batch, steps, neurons); ``v_last`` the last layer's potential after a reset, float
    (batch, steps, neurons); ``readout`` (batch, classes): the sum over the steps of the last layer's spikes, or of its
    potential where it is an integrator."""

    spikes: tuple[npt.NDArray[np.bool_], ...]
    v_last: Floats
    readout: Floats


def run(network: FloatNetwork, raster: npt.NDArray[np.generic]) -> FloatTrace:
    """Step the network from rest through ``raster`` (batch, steps, features)."""
    batch, steps, _ = raster.shape
    spikes: list[npt.NDArray[np.bool_]] = []
    v_all = np.zeros((batch, steps, 0))
    for layer, wire in zip(network.layers, wires(network.layers), strict=True):
        x, n = wire.of(raster, spikes).astype(np.float64), layer.neurons
        drive = Synapse(layer.w_in, layer.bias, layer.conv)(x.reshape(batch * steps, -1)).reshape(batch, steps, n)
        i = np.zeros((batch, n))
        v = np.zeros((batch, n))
        s = np.zeros((batch, n), bool)
        s_all = np.zeros((batch, steps, n), bool)
        v_all = np.zeros((batch, steps, n))
        for t in range(steps):
            current = drive[:, t] if layer.w_rec is None else drive[:, t] + s @ layer.w_rec.T
            i = layer.decay_i * i + layer.gain_i * current
            v = layer.decay_v * v + layer.gain_v * i + layer.leak
            if layer.threshold is not None:
                s = v > layer.threshold
                v = np.where(s, layer.reset, v)
                s_all[:, t] = s
            v_all[:, t] = v
        spikes.append(s_all)
    last = v_all if network.layers[-1].threshold is None else spikes[-1].astype(np.float64)
    return FloatTrace(tuple(spikes), v_all, last.sum(axis=1))
