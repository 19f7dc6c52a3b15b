"""What the compiler and the backend of TFLite agree on: the tensors of the step graph and the order in them.

The graph takes ``x`` float32 (1, features) and ``state`` int32 (1, 3 * neurons), and gives ``state_out`` of the same
shape: u of all layers, then v of all, then the spikes of all, layer by layer. TFLite convolves images whose channels
come last, so inside the graph the features of a convolution, and its neurons, are in the order (row, column, channel).
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from models.network import Layer, Network

FILE = "model.tflite"
INPUT, STATE, STATE_OUT = "x", "state", "state_out"

Order = npt.NDArray[np.intp]
"""For each place inside the graph, which of the network's features or neurons is there."""


def channels_last(shape: tuple[int, int, int]) -> Order:
    """The order (row, column, channel) of an image that the network has as (channel, row, column)."""
    order: Order = np.arange(math.prod(shape), dtype=np.intp).reshape(shape).transpose(1, 2, 0).ravel()
    return order


def input_order(layer: Layer) -> Order:
    """In which order ``layer`` gets the raster, where it is one of those that do."""
    return np.arange(layer.inputs, dtype=np.intp) if layer.conv is None else channels_last(layer.conv.in_shape)


def raster_order(network: Network) -> Order:
    """In which order the graph has the raster."""
    return joined([input_order(network.layers[i]) for i in network.stages[0]])


def neuron_order(layer: Layer) -> Order:
    """In which order the graph has the neurons of ``layer``."""
    if layer.conv is None:
        return np.arange(layer.neurons, dtype=np.intp)
    return channels_last(layer.conv.out_shape(layer.w_in.shape))


def joined(orders: Sequence[Order]) -> Order:
    """The order of several pieces, one behind the other."""
    starts = accumulate((len(order) for order in orders), initial=0)
    return np.concatenate([start + order for start, order in zip(starts, orders, strict=False)])


def state_order(network: Network) -> Order:
    """The order of the whole packed state."""
    return joined([neuron_order(layer) for layer in network.layers] * 3)
