"""What lies between two populations, as one synapse: weights, kernels, pooling, scales and flattening composed exactly.

Everything linear is a matrix or one convolution (``models.convolution``): dilation and groups become zeros in the
kernel, pooling a kernel of ones, and a kernel behind another one a larger kernel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.base import BadModel
from models.convolution import ConvShape, convolve, matrix

Floats = npt.NDArray[np.float64]
MAX_CELLS = 1 << 26
"""Weights of one synapse, and of all of a network; a composition that needs more is refused."""


@dataclass(frozen=True, slots=True)
class Synapse:
    """``w x + bias``: ``w`` float (neurons, inputs), or with ``conv`` a kernel (out, in, height, width)."""

    w: Floats
    bias: Floats
    """(neurons,)."""
    conv: ConvShape | None = None

    @property
    def neurons(self) -> int:
        return len(self.bias)

    @property
    def inputs(self) -> int:
        return int(self.w.shape[1]) if self.conv is None else math.prod(self.conv.in_shape)

    def __call__(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(n, inputs) to (n, neurons)."""
        out: Floats = (x @ self.w.T if self.conv is None else convolve(x, self.w, self.conv)) + self.bias
        return out


def dense(w: Floats, bias: Floats | float = 0.0) -> Synapse:
    """A matrix (neurons, inputs)."""
    return Synapse(w, np.broadcast_to(np.asarray(bias, np.float64).reshape(-1), (len(w),)).copy())


def convolution(
    kernel: Floats, bias: Floats | float, shape: ConvShape, dilation: tuple[int, int], groups: int, where: str
) -> Synapse:
    """A kernel (out channels, in channels / groups, height, width) with a bias per channel. Raises BadModel."""
    out, mine, h, w = kernel.shape
    if groups < 1 or out % groups:
        raise BadModel(f"{where}: {out} channels cannot be split into {groups} groups")
    if min(dilation) < 1:
        raise BadModel(f"{where}: dilation {dilation} makes no sense")
    size = (h - 1) * dilation[0] + 1, (w - 1) * dilation[1] + 1
    _bounded(out * mine * groups * size[0] * size[1], where)
    whole = np.zeros((out, mine * groups, *size))
    for group in range(groups):
        rows = slice(group * (out // groups), (group + 1) * (out // groups))
        whole[rows, group * mine : (group + 1) * mine, :: dilation[0], :: dilation[1]] = kernel[rows]
    shape.check(whole.shape, where)
    per_channel = np.broadcast_to(np.asarray(bias, np.float64).reshape(-1), (out,))
    return Synapse(whole, np.repeat(per_channel, math.prod(shape.out_shape(whole.shape)[1:])), shape)


def pooling(shape: ConvShape, size: tuple[int, int], weight: float, where: str) -> Synapse:
    """Each channel's sum over windows of ``size``, times ``weight``. Raises BadModel."""
    channels = shape.in_shape[0]
    kernel = np.zeros((channels, channels, *size))
    kernel[np.arange(channels), np.arange(channels)] = weight
    shape.check(kernel.shape, where)
    return Synapse(kernel, np.zeros(math.prod(shape.out_shape(kernel.shape))), shape)


def scaled(synapse: Synapse, factor: Floats, where: str) -> Synapse:
    """Every output times its own factor (neurons,). Raises BadModel where a kernel's channel would have several."""
    if synapse.conv is None:
        return replace(synapse, w=synapse.w * factor[:, None], bias=synapse.bias * factor)
    channels = synapse.w.shape[0]
    per_channel = factor.reshape(channels, -1)
    if (per_channel != per_channel[:, :1]).any():
        raise BadModel(f"{where}: the factor differs within a channel of a convolution, whose weights are shared")
    return replace(synapse, w=synapse.w * per_channel[:, 0].reshape(-1, 1, 1, 1), bias=synapse.bias * factor)


def behind(first: Synapse, second: Synapse, where: str) -> Synapse:
    """``second(first(x))`` as one synapse. Raises BadModel where that has no such form, or a too large one."""
    bias = second(first.bias[None])[0]
    if first.conv is not None and second.conv is not None:
        return _kernel_behind(first, second, first.conv, second.conv, bias, where)
    _bounded(max(first.neurons * first.inputs, second.neurons * first.inputs, second.neurons * first.neurons), where)
    return Synapse(_matrix(second) @ _matrix(first), bias)


def beside(parts: Sequence[Synapse], where: str) -> Synapse:
    """Several synapses onto the same neurons, whose inputs are side by side, as one. Raises BadModel."""
    if len(parts) == 1:
        return parts[0]
    neurons = {part.neurons for part in parts}
    if len(neurons) > 1:
        raise BadModel(f"{where}: what leads to it has {' and '.join(map(str, sorted(neurons)))} outputs")
    _bounded(sum(part.neurons * part.inputs for part in parts), where)
    return Synapse(
        np.concatenate([_matrix(part) for part in parts], axis=1), np.sum([part.bias for part in parts], axis=0)
    )


def _matrix(synapse: Synapse) -> Floats:
    return synapse.w if synapse.conv is None else matrix(synapse.w, synapse.conv)


def _kernel_behind(
    first: Synapse, second: Synapse, near: ConvShape, far: ConvShape, bias: Floats, where: str
) -> Synapse:
    (_, rows, columns), (kernel_h, kernel_w) = near.out_shape(first.w.shape), first.w.shape[2:]
    for pad, size, stride, inner, outer, length in (
        (far.padding[0], kernel_h, near.stride[0], near.padding[0], rows, near.in_shape[1]),
        (far.padding[1], kernel_w, near.stride[1], near.padding[1], columns, near.in_shape[2]),
    ):
        # Zeros around the middle are zeros around the input only where no patch of the margin touches the input.
        if pad and (inner or size > stride or (outer - 1) * stride + size != length):
            raise BadModel(
                f"{where}: padding behind overlapping windows, or such as leave a rest, has no form as one "
                "convolution; put neurons between the two, or remove the padding"
            )
    size = (
        kernel_h + (second.w.shape[2] - 1) * near.stride[0],
        kernel_w + (second.w.shape[3] - 1) * near.stride[1],
    )
    _bounded(second.w.shape[0] * first.w.shape[1] * size[0] * size[1], where)
    kernel = np.zeros((second.w.shape[0], first.w.shape[1], *size))
    for i, j in np.ndindex(second.w.shape[2], second.w.shape[3]):
        top, left = i * near.stride[0], j * near.stride[1]
        kernel[:, :, top : top + kernel_h, left : left + kernel_w] += np.tensordot(second.w[:, :, i, j], first.w, 1)
    shape = ConvShape(
        near.in_shape,
        (near.stride[0] * far.stride[0], near.stride[1] * far.stride[1]),
        (near.padding[0] + far.padding[0] * near.stride[0], near.padding[1] + far.padding[1] * near.stride[1]),
    )
    return Synapse(kernel, bias, shape)


def _bounded(cells: int, where: str) -> None:
    if cells > MAX_CELLS:
        raise BadModel(f"{where}: written out as one synapse it has {cells} weights, more than {MAX_CELLS}")
