"""Float network to integer network: int8 or int4 weights, one scale per layer or per neuron, 12-bit decays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.base import BadModel
from models.float_network import FloatLayer, FloatNetwork
from models.linear import Floats
from models.network import DECAY_ONE, STATE_MAX, THRESHOLD_MAX, THRESHOLD_SHIFT, WEIGHT_SHIFT, Layer, Network, check

Granularity = Literal["layer", "neuron"]
Bits = Literal[4, 8]


@dataclass(frozen=True, slots=True)
class Rounding:
    """What the integers of one layer lost against its float numbers."""

    layer: str
    weights: float
    """Root mean square of the weights' error, as a part of the largest weight."""
    clipped: float
    """Part of the weights that were larger than the grid."""
    threshold: float
    """Largest relative error of a threshold; 0 for an integrator."""
    bias: float
    """Largest error of a bias, as a part of its neuron's threshold (of the largest bias for an integrator)."""
    decay: float
    """Largest absolute error of a decay."""
    unit: float
    """The integer that a potential of 1 is, of the first neuron; an integrator has one for all."""


def quantize(
    network: FloatNetwork, granularity: Granularity = "layer", bits: Bits = 8, clips: Sequence[float] = ()
) -> Network:
    """Quantise every layer. Raises BadModel where the integer form cannot say what the float network means.

    A weight's float effect on v in one step is ``gain_v * gain_i * w``; the scale maps the largest of them, times the
    layer's number in ``clips`` (1 where there is none), to 127, or 7 in 4 bits, and cuts off what is larger.
    ``neuron`` gives each neuron (each channel of a convolution) its own scale, and with it its own threshold; an
    integrator always has one scale, since its potentials are compared with each other.
    """
    each = [*clips, *[1.0] * (len(network.layers) - len(clips))]
    layers = zip(network.layers, each, strict=True)
    return check(Network(tuple(quantize_layer(layer, granularity, bits, clip)[0] for layer, clip in layers)))


def quantize_layer(
    layer: FloatLayer, granularity: Granularity, bits: Bits, clip: float = 1.0
) -> tuple[Layer, Rounding]:
    """One layer of ``quantize``, and what it lost. Raises BadModel."""
    where = f"layer {layer.name!r}"
    if (layer.reset != 0).any():
        raise BadModel(
            f"{where}: reset to {layer.reset[np.argmax(layer.reset != 0)]:g}; the integer neuron resets to zero, "
            "train with v_reset = 0"
        )
    largest = (1 << (bits - 1)) - 1
    effect, recurrent, scale = _effects(layer, granularity, where)
    scale = _onto_threshold(layer, scale * largest / clip)
    each = np.repeat(scale, len(layer.bias) // len(scale))
    bias = _bias(layer, where)
    made = Layer(
        name=layer.name,
        w_in=_on_grid(effect, scale, largest),
        w_rec=None if recurrent is None else _on_grid(recurrent, scale, largest),
        k_u=np.rint(layer.decay_i * DECAY_ONE).astype(np.int32),
        k_v=np.rint(layer.decay_v * DECAY_ONE).astype(np.int32),
        bias=_integer_bias(bias * each * (1 << WEIGHT_SHIFT), where),
        v_th=None if layer.threshold is None else _threshold(layer.threshold, each, where),
        conv=layer.conv,
        beside=layer.beside,
    )
    return made, _rounding(layer, made, each, bias, (effect, recurrent))


def _rounding(
    layer: FloatLayer, made: Layer, each: Floats, bias: Floats, effects: tuple[Floats, Floats | None]
) -> Rounding:
    lost, size, cut = [], 0.0, 0
    for effect, integers in zip(effects, (made.w_in, made.w_rec), strict=True):
        if effect is None or integers is None:
            continue
        units = each[:: len(each) // len(effect)].reshape(-1, *[1] * (effect.ndim - 1))
        error = integers / units - effect
        lost.append(error.ravel())
        cut += int(np.count_nonzero(np.abs(error * units) > 0.5 + 1e-9))
        size = max(size, float(np.abs(effect).max()))
    errors = np.concatenate(lost)
    lost_bias = np.abs(made.bias / (each * (1 << WEIGHT_SHIFT)) - bias)
    threshold, level = 0.0, np.abs(bias).max(initial=0) or 1.0
    if made.v_th is not None and layer.threshold is not None:
        threshold = float(np.abs(made.v_th / (2 * each) / layer.threshold - 1).max())
        level = layer.threshold
    decays = ((made.k_u, layer.decay_i), (made.k_v, layer.decay_v))
    return Rounding(
        layer=layer.name,
        weights=float(np.sqrt(np.mean(errors**2)) / size),
        clipped=cut / errors.size,
        threshold=threshold,
        bias=float((lost_bias / level).max()),
        decay=float(max(np.abs(k / DECAY_ONE - exact).max() for k, exact in decays)),
        unit=float(each[0] * (1 << WEIGHT_SHIFT)),
    )


def _effects(layer: FloatLayer, granularity: Granularity, where: str) -> tuple[Floats, Floats | None, Floats]:
    """Input and recurrent weights as they act on v, and per row (neuron or channel) 1 over the largest of them."""
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
    whole = float(peak.max())
    if whole == 0 or not np.isfinite(whole):
        raise BadModel(f"{where}: all weights are zero, or one is beyond numbers")
    if granularity == "layer" or layer.threshold is None:
        peak = np.full_like(peak, whole)
    # A neuron without a weight never gets input: any scale says the same.
    return effect, recurrent, 1 / np.where(peak == 0, whole, peak)


def _onto_threshold(layer: FloatLayer, scale: Floats) -> Floats:
    """The next smaller scale at which a row's threshold is whole, where its neurons have one in common.

    A threshold that is off by a part is as wrong as all weights of its neuron together; a grid that ends a little
    above the largest weight costs next to nothing.
    """
    if layer.threshold is None:
        return scale
    rows = layer.threshold.reshape(len(scale), -1)
    uniform = (scale == scale[0]).all() and (rows == rows[0, 0]).all()
    if not uniform and ((rows != rows[:, :1]).any() or (scale == scale[0]).all()):
        return scale
    value = rows[:, 0] * scale * (1 << (WEIGHT_SHIFT - THRESHOLD_SHIFT))
    whole = np.floor(value + 1e-4)
    # Weights trained on the grid come with thresholds that are whole but for their own rounding: those stay.
    usable = (whole >= 1) & (np.abs(value - whole) > 1e-4 * value)
    return np.where(usable, scale * whole / np.where(usable, value, 1), scale)


def _on_grid(effect: Floats, scale: Floats, largest: int) -> npt.NDArray[np.int8]:
    rounded = np.rint(effect * scale.reshape(-1, *[1] * (effect.ndim - 1)))
    return np.clip(rounded, -largest, largest).astype(np.int8)


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


def _bias(layer: FloatLayer, where: str) -> Floats:
    """A constant current settles at ``gain_i * bias / (1 - decay_i)``; the integer neuron adds that to v throughout."""
    if not layer.bias.any():
        return layer.leak
    if (layer.decay_i >= 1).any():
        raise BadModel(f"{where}: a bias on a synapse that does not decay grows for ever; train without bias")
    return layer.gain_v * layer.gain_i / (1 - layer.decay_i) * layer.bias + layer.leak


def _integer_bias(bias: Floats, where: str) -> npt.NDArray[np.int32]:
    value = np.rint(bias)
    if (np.abs(value) > STATE_MAX).any():
        raise BadModel(f"{where}: a bias is larger than the 24-bit state")
    return value.astype(np.int32)
