"""The integer step in plain numpy, driven by events: only the weights of inputs that spiked are added.

A baseline beside the backends: what the sparsity of spikes is worth without a chip. Dense layers only, as the
columns of a convolution would have to be written out.
"""

import numpy as np
import numpy.typing as npt

from models.backends.reference import decay
from models.base import Raster
from models.network import STATE_MAX, THRESHOLD_SHIFT, WEIGHT_SHIFT, Layer, Network

Int64s = npt.NDArray[np.int64]


class EventDriven:
    """Runs rasters from rest; the same numbers as every backend."""

    def __init__(self, network: Network) -> None:
        """``network`` without convolutions and without layers side by side."""
        self._layers = [_Sparse(layer) for layer in network.layers]

    def run(self, raster: Raster) -> Int64s:
        """(classes,) the sum of the outputs over the steps."""
        for layer in self._layers:
            layer.rest()
        total: Int64s = np.zeros(self._layers[-1].neurons, np.int64)
        for row in raster:
            active = np.flatnonzero(row)
            for layer in self._layers:
                active = layer.step(active)
            total += self._layers[-1].out
        return total


class _Sparse:
    def __init__(self, layer: Layer) -> None:
        self.neurons = layer.neurons
        self._w = np.ascontiguousarray(layer.w_in.T)
        self._rec = None if layer.w_rec is None else np.ascontiguousarray(layer.w_rec.T)
        self._k_u, self._k_v, self._bias = (a.astype(np.int64) for a in (layer.k_u, layer.k_v, layer.bias))
        self._threshold = None if layer.v_th is None else layer.v_th.astype(np.int64) << THRESHOLD_SHIFT
        self.rest()

    def rest(self) -> None:
        self._u = np.zeros(self.neurons, np.int64)
        self._v = np.zeros(self.neurons, np.int64)
        self._fired = np.zeros(0, np.intp)
        self.out = self._v

    def step(self, active: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Indices of the inputs that spike; returns those of the neurons that do."""
        current = self._w[active].sum(axis=0, dtype=np.int64)
        if self._rec is not None and len(self._fired):
            current += self._rec[self._fired].sum(axis=0, dtype=np.int64)
        self._u = decay(self._u, self._k_u) + (current << WEIGHT_SHIFT)
        self._v = np.clip(decay(self._v, self._k_v) + self._u + self._bias, -STATE_MAX, STATE_MAX)
        if self._threshold is None:
            self.out = self._v
            return self._fired
        spikes = self._v > self._threshold
        self._v[spikes] = 0
        self._fired = np.flatnonzero(spikes)
        self.out = spikes.astype(np.int64)
        return self._fired
