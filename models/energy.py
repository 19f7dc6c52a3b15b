"""What an inference would cost on a neuromorphic chip, in its own currency: operations, not joules.

A synaptic operation is one weight added to one neuron because of one spike; a chip that computes on events does no
others (Merolla et al. 2014 count them so). Beside it the multiplications of the same layer done densely, and the neuron
updates of every step, which a chip without event-driven neurons pays in any case.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.base import Raster, Trace
from models.network import Layer, Network


@dataclass(frozen=True, slots=True)
class Operations:
    """Of one raster."""

    synaptic: int
    """Non-zero weights that a spike reached, input and recurrent."""
    dense: int
    """Multiplications if every weight is used at every step."""
    neuron_updates: int
    spikes: int
    """Of all layers, the raster's not among them."""


def dense_per_step(layer: Layer) -> int:
    """Multiplications of one step of ``layer`` done densely; in a convolution those outside the image count too."""
    per_neuron = layer.w_in[0].size + (0 if layer.w_rec is None else layer.neurons)
    return int(layer.neurons * per_neuron)


def operations(network: Network, raster: Raster, trace: Trace) -> Operations:
    """``trace`` is what ``network`` did with ``raster`` from rest."""
    steps = len(raster)
    synaptic = 0
    for i, (layer, wire) in enumerate(zip(network.layers, network.wires, strict=True)):
        x = wire.of(raster, trace.spikes)
        synaptic += int(_fan_out(layer) @ x.sum(axis=0, dtype=np.int64))
        if layer.w_rec is not None:
            recurrent = np.count_nonzero(layer.w_rec, axis=0)
            synaptic += int(recurrent @ trace.spikes[i][: steps - 1].sum(axis=0, dtype=np.int64))
    return Operations(
        synaptic=synaptic,
        dense=steps * sum(dense_per_step(layer) for layer in network.layers),
        neuron_updates=steps * sum(network.neurons),
        spikes=sum(int(np.count_nonzero(spikes)) for spikes in trace.spikes),
    )


def _fan_out(layer: Layer) -> npt.NDArray[np.int64]:
    """(inputs,) non-zero weights behind each input."""
    if layer.conv is None:
        counts: npt.NDArray[np.int64] = np.count_nonzero(layer.w_in, axis=0).astype(np.int64)
        return counts
    # Fan-out is what comes back when every neuron sends one through the kernel: the transpose of the convolution.
    used = (layer.w_in != 0).astype(np.float32)
    channels, height, width = layer.conv.in_shape
    (rows, columns), (kernel_h, kernel_w) = layer.conv.out_shape(used.shape)[1:], used.shape[2:]
    pad_h, pad_w = layer.conv.padding
    padded = np.zeros((channels, height + 2 * pad_h, width + 2 * pad_w), np.int64)
    per_input = used.sum(axis=0).astype(np.int64)
    stride_h, stride_w = layer.conv.stride
    for i, j in np.ndindex(kernel_h, kernel_w):
        touched = padded[:, i : i + rows * stride_h : stride_h, j : j + columns * stride_w : stride_w]
        touched += per_input[:, i, j, None, None]
    return padded[:, pad_h : pad_h + height, pad_w : pad_w + width].reshape(-1)
