"""The specification in numpy: the integer CUBA-LIF step, always available, the backend of last resort.

Source: Loihi's neuron as in Lava's fixed-point ``LIF``; truncation of the decays is toward zero.
"""

import numpy as np
import numpy.typing as npt

from models.base import Backend, IoSpec, Potentials, Raster, Trace
from models.bundle import Bundle
from models.network import DECAY_BITS, STATE_MAX, THRESHOLD_SHIFT, WEIGHT_SHIFT, Layer, Network

Int64s = npt.NDArray[np.int64]


def decay(z: Int64s, k: Int64s) -> Int64s:
    """``sign(z) * ((|z| * k) >> 12)``."""
    product: Int64s = z * k
    # Adding 2^12 - 1 to negative products turns the floor of the shift into truncation toward zero.
    return (product + ((product >> 63) & ((1 << DECAY_BITS) - 1))) >> DECAY_BITS


class _Population:
    """One layer in stepping form, with its state."""

    def __init__(self, layer: Layer) -> None:
        # float32 products of int8 weights and 0/1 inputs are exact, as every partial sum is below 2^24: BLAS does them.
        self.w_in = np.ascontiguousarray(layer.w_in.T, np.float32)
        self.w_rec = None if layer.w_rec is None else np.ascontiguousarray(layer.w_rec.T, np.float32)
        self.k_u = layer.k_u.astype(np.int64)
        self.k_v = layer.k_v.astype(np.int64)
        self.bias = layer.bias.astype(np.int64)
        self.threshold = None if layer.v_th is None else layer.v_th.astype(np.int64) << THRESHOLD_SHIFT
        self.reset()

    def reset(self) -> None:
        n = len(self.k_u)
        self.u = np.zeros(n, np.int64)
        self.v = np.zeros(n, np.int64)
        self.s = np.zeros(n, np.float32)

    def run(self, x: npt.NDArray[np.float32], trace: Trace | None, at: int) -> npt.NDArray[np.float32 | np.int64]:
        """Step through ``x`` (steps, inputs); returns the layer's output, (steps, neurons)."""
        drive = (x @ self.w_in).astype(np.int64) << WEIGHT_SHIFT
        out: npt.NDArray[np.float32 | np.int64]
        out = np.empty(drive.shape, np.int64 if self.threshold is None else np.float32)
        for t in range(len(x)):
            current = drive[t]
            if self.w_rec is not None:
                current = current + ((self.s @ self.w_rec).astype(np.int64) << WEIGHT_SHIFT)
            self.u = decay(self.u, self.k_u) + current
            self.v = np.clip(decay(self.v, self.k_v) + self.u + self.bias, -STATE_MAX, STATE_MAX)
            if self.threshold is None:
                out[t] = self.v
            else:
                spikes = self.v > self.threshold
                self.v[spikes] = 0
                self.s = spikes.astype(np.float32)
                out[t] = self.s
            if trace is not None:
                trace.u[at][t], trace.v[at][t] = self.u, self.v
                trace.spikes[at][t] = 0 if self.threshold is None else spikes
        return out


class ReferenceBackend(Backend):
    """The numpy interpreter."""

    def __init__(self) -> None:
        self._populations: list[_Population] = []

    def load(self, bundle: Bundle) -> IoSpec:
        return self.load_network(bundle.network)

    def load_network(self, network: Network) -> IoSpec:
        """As ``load``, for a network that is in no bundle (yet)."""
        self._populations = [_Population(layer) for layer in network.layers]
        return IoSpec(network.features, network.classes)

    def infer(self, raster: Raster, trace: Trace | None = None) -> Potentials:
        x: npt.NDArray[np.float32 | np.int64] = raster.astype(np.float32)
        for i, population in enumerate(self._populations):
            x = population.run(x.astype(np.float32, copy=False), trace, i)
        potentials: Potentials = x.sum(axis=0).astype(np.int64)
        return potentials

    def reset(self) -> None:
        for population in self._populations:
            population.reset()

    def close(self) -> None:
        self._populations = []


BACKEND = ReferenceBackend
