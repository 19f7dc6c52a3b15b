"""Two-dimensional convolution of spikes, as a matrix product over patches; one-dimensional is a height of 1.

Dilation, groups and pooling have no form of their own: they are folded into the kernel (``models.linear``), which is
exact, so that every backend needs one kind of convolution only.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import BadModel

_PATCH_CELLS = 1 << 22
"""Patches of more cells are made in several turns, to bound the memory."""
MOST_CELLS = 1 << 27
"""Of the padded input, and of the patches of one step."""


@dataclass(frozen=True, slots=True)
class ConvShape:
    """Where a kernel is laid; the input is in the order (channel, row, column)."""

    in_shape: tuple[int, int, int]
    """Channels, height, width."""
    stride: tuple[int, int]
    """Rows, columns."""
    padding: tuple[int, int]
    """Rows of zeros above and below, columns left and right."""

    def out_shape(self, kernel: tuple[int, ...]) -> tuple[int, int, int]:
        """Channels, height, width behind a kernel of shape (out channels, in channels, height, width)."""
        _, h, w = self.in_shape
        rows = (h + 2 * self.padding[0] - kernel[2]) // self.stride[0] + 1
        columns = (w + 2 * self.padding[1] - kernel[3]) // self.stride[1] + 1
        return kernel[0], rows, columns

    def check(self, kernel: tuple[int, ...], where: str) -> None:
        """Raise BadModel where no such convolution exists."""
        if min(self.in_shape) < 1 or min(self.stride) < 1 or min(self.padding) < 0:
            raise BadModel(
                f"{where}: input {self.in_shape}, stride {self.stride}, padding {self.padding} make no sense"
            )
        if kernel[1] != self.in_shape[0]:
            raise BadModel(f"{where}: the kernel takes {kernel[1]} channels, its input has {self.in_shape[0]}")
        if min(self.out_shape(kernel)) < 1:
            raise BadModel(f"{where}: a kernel of {kernel[2]}x{kernel[3]} does not fit into its input {self.in_shape}")
        channels, *sides = self.in_shape
        padded = channels * math.prod(side + 2 * pad for side, pad in zip(sides, self.padding, strict=True))
        patches = math.prod(self.out_shape(kernel)[1:]) * math.prod(kernel[1:])
        if max(padded, patches) > MOST_CELLS:
            raise BadModel(
                f"{where}: a convolution over {padded} input and {patches} patch cells, expected {MOST_CELLS} at most"
            )

    def packed(self) -> npt.NDArray[np.int32]:
        """As seven numbers, for a file."""
        return np.array([*self.in_shape, *self.stride, *self.padding], np.int32)

    @classmethod
    def unpack(cls, numbers: npt.NDArray[Any]) -> "ConvShape":
        """From what ``packed`` gave. Raises ValueError."""
        if numbers.shape != (7,) or numbers.dtype != np.int32:
            raise ValueError(f"a convolution is seven int32, not {numbers.shape} {numbers.dtype}")
        c, h, w, stride_h, stride_w, pad_h, pad_w = numbers.tolist()
        return cls((c, h, w), (stride_h, stride_w), (pad_h, pad_w))


def convolve(x: npt.NDArray[Any], kernel: npt.NDArray[Any], shape: ConvShape) -> npt.NDArray[Any]:
    """(n, inputs) through ``kernel`` (out, in, height, width): (n, neurons) of the same dtype.

    In floating point the sums are exact while all are integers that the type can hold.
    """
    out, rows, columns = shape.out_shape(kernel.shape)
    pad_h, pad_w = shape.padding
    images = np.pad(x.reshape(len(x), *shape.in_shape), ((0, 0), (0, 0), (pad_h, pad_h), (pad_w, pad_w)))
    patches = np.lib.stride_tricks.sliding_window_view(images, kernel.shape[2:], axis=(2, 3))
    patches = patches[:, :, :: shape.stride[0], :: shape.stride[1]].transpose(0, 2, 3, 1, 4, 5)
    weights = np.ascontiguousarray(kernel.reshape(out, -1).T)
    result = np.empty((len(x), out, rows * columns), x.dtype)
    at_once = max(1, _PATCH_CELLS // (rows * columns * len(weights)))
    for start in range(0, len(x), at_once):
        part = patches[start : start + at_once].reshape(-1, len(weights)) @ weights
        result[start : start + at_once] = part.reshape(-1, rows * columns, out).transpose(0, 2, 1)
    return result.reshape(len(x), out * rows * columns)


def matrix(kernel: npt.NDArray[Any], shape: ConvShape) -> npt.NDArray[Any]:
    """The convolution as a dense (neurons, inputs) matrix."""
    inputs = math.prod(shape.in_shape)
    precision = np.float64 if kernel.dtype == np.float64 else np.float32
    columns = convolve(np.eye(inputs, dtype=precision), kernel.astype(precision), shape)
    return np.ascontiguousarray(columns.T.astype(kernel.dtype))
