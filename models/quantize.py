"""Float network to integer network: int8 or int4 weights, one scale per layer or per neuron, 12-bit decays."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from models.base import BadModel
from models.float_network import FloatLayer, FloatNetwork
from models.linear import Floats
from models.network import DECAY_ONE, STATE_MAX, THRESHOLD_MAX, THRESHOLD_SHIFT, WEIGHT_SHIFT, Layer, Network, check

Granularity = Literal["layer", "neuron"]
Bits = Literal[4, 8]


def quantize(network: FloatNetwork, granularity: Granularity = "layer", bits: Bits = 8) -> Network:
    """Quantise every layer. Raises BadModel where the integer form cannot say what the float network means.

    A weight's float effect on v in one step is ``gain_v * gain_i * w``; the scale maps the largest of them to 127, or 7
    in 4 bits. ``neuron`` gives each neuron (each channel of a convolution) its own scale, and with it its own
    threshold; an integrator always has one scale, since its potentials are compared with each other.
    """
    largest = (1 << (bits - 1)) - 1
    return check(Network(tuple(_layer(layer, granularity, largest) for layer in network.layers)))


def _layer(layer: FloatLayer, granularity: Granularity, largest: int) -> Layer:
    where = f"layer {layer.name!r}"
    if (layer.reset != 0).any():
        raise BadModel(
            f"{where}: reset to {layer.reset.max():g}; the integer neuron resets to zero, train with v_reset = 0"
        )
    rows = len(layer.w_in)
    gain = layer.gain_v * layer.gain_i
    shared = gain.reshape(rows, -1)
    if (shared != shared[:, :1]).any():
        raise BadModel(f"{where}: time constants or resistances differ within a channel, whose weights are shared")
    effect = shared[:, 0].reshape(-1, *[1] * (layer.w_in.ndim - 1)) * layer.w_in
    recurrent = None if layer.w_rec is None else gain[:, None] * layer.w_rec
    peak = np.abs(effect).max(axis=tuple(range(1, effect.ndim)))
    if recurrent is not None:
        peak = np.maximum(peak, np.abs(recurrent).max(axis=1))
    if granularity == "layer" or layer.threshold is None:
        peak = np.full_like(peak, peak.max())
    if (peak == 0).any():
        raise BadModel(f"{where}: neuron {int(np.argmin(peak))} has no non-zero weight")
    scale = largest / peak
    each = np.repeat(scale, len(gain) // rows)
    threshold = None if layer.threshold is None else _threshold(layer.threshold, each, where)
    unit = each * (1 << WEIGHT_SHIFT)
    return Layer(
        name=layer.name,
        w_in=np.rint(effect * scale.reshape(-1, *[1] * (effect.ndim - 1))).astype(np.int8),
        w_rec=None if recurrent is None else np.rint(recurrent * scale[:, None]).astype(np.int8),
        k_u=np.rint(layer.decay_i * DECAY_ONE).astype(np.int32),
        k_v=np.rint(layer.decay_v * DECAY_ONE).astype(np.int32),
        bias=_bias(layer, unit, where),
        v_th=threshold,
        conv=layer.conv,
    )


def _threshold(threshold: Floats, scale: Floats, where: str) -> npt.NDArray[np.int32]:
    value = np.rint(threshold * scale * (1 << (WEIGHT_SHIFT - THRESHOLD_SHIFT)))
    wrong = (value < 1) | (value > THRESHOLD_MAX)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise BadModel(
            f"{where}: the threshold {threshold[i]:g} of neuron {i} is {value[i]:g} in units of its weights; "
            f"it must lie in 1..{THRESHOLD_MAX}"
        )
    return value.astype(np.int32)


def _bias(layer: FloatLayer, unit: Floats, where: str) -> npt.NDArray[np.int32]:
    """A constant current settles at ``gain_i * bias / (1 - decay_i)``; the integer neuron adds that to v throughout."""
    if not (layer.bias.any() or layer.leak.any()):
        return np.zeros(len(layer.bias), np.int32)
    if (layer.decay_i >= 1).any():
        raise BadModel(f"{where}: a bias on a synapse that does not decay grows for ever; train without bias")
    value = np.rint((layer.gain_v * layer.gain_i / (1 - layer.decay_i) * layer.bias + layer.leak) * unit)
    if (np.abs(value) > STATE_MAX).any():
        raise BadModel(f"{where}: a bias is larger than the 24-bit state")
    return value.astype(np.int32)
