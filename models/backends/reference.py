"""The specification in numpy: the integer CUBA-LIF step, always available, the backend of last resort.

Source: Loihi's neuron as in Lava's fixed-point ``LIF``; truncation of the decays is toward zero.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Backend, IoSpec, Outputs, Raster, State, Survey, Trace
from models.bundle import Bundle
from models.convolution import convolve
from models.network import DECAY_BITS, STATE_MAX, THRESHOLD_SHIFT, WEIGHT_SHIFT, Layer, Network
from models.stages import Wire

Int64s = npt.NDArray[np.int64]


def decay(z: Int64s, k: Int64s) -> Int64s:
    """``sign(z) * ((|z| * k) >> 12)``."""
    product: Int64s = z * k
    # Adding 2^12 - 1 to negative products turns the floor of the shift into truncation toward zero.
    return (product + ((product >> 63) & ((1 << DECAY_BITS) - 1))) >> DECAY_BITS


class Population:
    """One layer in stepping form. ``drive`` and ``feedback`` are its synapses; ``run`` is its neurons."""

    def __init__(self, layer: Layer) -> None:
        # float32 products of int8 weights and 0/1 inputs are exact, as every partial sum is below 2^24 (network.check):
        # BLAS does them.
        self._conv = layer.conv
        self._w_in = layer.w_in.astype(np.float32)
        self._w_rec = None if layer.w_rec is None else np.ascontiguousarray(layer.w_rec.T, np.float32)
        self._k_u = layer.k_u.astype(np.int64)
        self._k_v = layer.k_v.astype(np.int64)
        self._bias = layer.bias.astype(np.int64)
        self._threshold = None if layer.v_th is None else layer.v_th.astype(np.int64) << THRESHOLD_SHIFT

    def drive(self, x: npt.NDArray[Any]) -> Int64s:
        """What ``x`` (steps, inputs) adds to the currents: (steps, neurons)."""
        x = x.astype(np.float32, copy=False)
        sums = x @ self._w_in.T if self._conv is None else convolve(x, self._w_in, self._conv)
        return sums.astype(np.int64) << WEIGHT_SHIFT

    def feedback(self, s: npt.NDArray[Any]) -> Int64s | None:
        """What the spikes ``s`` (neurons,) of the step before add to them; None without recurrent synapses."""
        return None if self._w_rec is None else (s @ self._w_rec).astype(np.int64) << WEIGHT_SHIFT

    def run(self, x: npt.NDArray[Any], state: State, at: int, trace: Trace | None) -> npt.NDArray[np.int32]:
        """Layer ``at`` through ``x`` (steps, inputs): its output (steps, neurons). Writes its part of ``state``."""
        drive = self.drive(x)
        out = np.empty(drive.shape, np.int32)
        u, v, s = state.u[at].astype(np.int64), state.v[at].astype(np.int64), state.s[at].astype(np.float32)
        for t in range(len(x)):
            u = decay(u, self._k_u) + drive[t]
            fed = self.feedback(s)
            if fed is not None:
                u += fed
            v = np.clip(decay(v, self._k_v) + u + self._bias, -STATE_MAX, STATE_MAX)
            if self._threshold is None:
                out[t] = v
            else:
                spikes = v > self._threshold
                v[spikes] = 0
                s = spikes.astype(np.float32)
                out[t] = spikes
            if trace is not None:
                trace.u[at][t], trace.v[at][t] = u, v
                trace.spikes[at][t] = s
        state.u[at][:], state.v[at][:], state.s[at][:] = u, v, s
        return out


def run_populations(
    populations: Sequence[Population],
    wires: Sequence[Wire],
    raster: npt.NDArray[Any],
    state: State,
    trace: Trace | None,
) -> npt.NDArray[np.int32]:
    """All of them through ``raster`` (steps, features): the output of the last. Writes ``state``."""
    outputs: list[npt.NDArray[Any]] = []
    for i, (population, wire) in enumerate(zip(populations, wires, strict=True)):
        outputs.append(population.run(wire.take(raster, outputs), state, i, trace))
    return outputs[-1]


class ReferenceBackend(Backend):
    """The numpy interpreter."""

    def __init__(self) -> None:
        self._populations: list[Population] = []
        self._wires: tuple[Wire, ...] = ()
        self._neurons: tuple[int, ...] = ()

    @classmethod
    def survey(cls) -> Survey:
        return Survey(f"numpy {np.__version__}")

    def load(self, bundle: Bundle) -> IoSpec:
        return self.load_network(bundle.network)

    def load_network(self, network: Network) -> IoSpec:
        """As ``load``, for a network that is in no bundle (yet)."""
        self._populations = [Population(layer) for layer in network.layers]
        self._wires = network.wires
        self._neurons = network.neurons
        return IoSpec(network.features, network.classes)

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        state = State.rest(self._neurons) if state is None else state
        return run_populations(self._populations, self._wires, raster, state, trace)

    def close(self) -> None:
        self._populations = []


BACKEND = ReferenceBackend
