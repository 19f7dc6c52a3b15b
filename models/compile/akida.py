"""Compile the synapses of the integer network for Akida: one model of one layer for each matrix and each kernel.

Akida has no neuron whose membrane potential outlives a call. So the chip takes the sums over the synapses, which is
where the operations are, and the host keeps the neurons (``models.backends.akida``): exact, whatever the leak and the
reset. A twin that gets a window at once and keeps no state would not be: the reset makes what a neuron does depend on
its own spikes before, which no sum over the window can say. None is offered.

v2 (the IP of TwoNodesIPv2, SixNodesIPv2) has 8-bit weights and gives sums of 28 or 32 bits: ``Dense1D``, ``Conv2D``.
v1 (AKD1000, AKD1500) has weights of -7..7 and gives the sums as well: ``FullyConnected``, ``Convolutional``. An 8-bit
weight is there up to three digits to the base 15, each with units of its own, which the host adds up; the weights of a
4-bit network are one digit.
Both convolve with square kernels of 1, 3, 5 or 7 and give as many rows and columns as they get. Other kernels are laid
into such a square, the host pads the image, and takes the cells that stride and padding leave. A larger kernel becomes
a matrix.

Source: the docstrings of akida 2.19 and what its mapping to virtual devices accepts. The package ``akida`` is
proprietary: users install it, under the licence that they accept, and nothing here imports it but ``sdk``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.extras import how_to_install
from models.base import BackendUnavailable
from models.convolution import ConvShape, matrix
from models.network import Layer, Network

SQUARE_MAX = 7
MATRIX_MAX_BYTES = 1 << 26
"""A kernel that is too large for the chip becomes a matrix of at most so many weights."""
BASE = 15
DIGIT_MAX = 7
VIRTUAL_DEVICES = ("AKD1000", "AKD1500", "TwoNodesIPv2", "SixNodesIPv2")

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]


def not_installed() -> str:
    """Why there is no SDK."""
    return (
        f"akida is not installed: {how_to_install('akida')} (Python 3.10 to 3.12; proprietary, read its licence first)"
    )


def sdk() -> Any:
    """The module ``akida``. Raises BackendUnavailable where it is not installed, or does not load."""
    try:
        import akida
    except ImportError as error:
        raise BackendUnavailable(
            not_installed() if error.name == "akida" else f"akida does not load: {error}"
        ) from error
    return akida


def unsupported(network: Network) -> str | None:
    """Why Akida cannot run ``network``, in one sentence; None if it can, at least in software (``fits``: chips)."""
    for layer in network.layers:
        if _is_matrix(layer) and layer.neurons * layer.inputs > MATRIX_MAX_BYTES:
            return (
                f"layer {layer.name!r} has a kernel of {layer.w_in.shape[2]}x{layer.w_in.shape[3]}; Akida convolves up "
                f"to {SQUARE_MAX}x{SQUARE_MAX}, and as a matrix it has more than {MATRIX_MAX_BYTES} weights"
            )
    return None


def _is_matrix(layer: Layer) -> bool:
    """A convolution that is to be a matrix."""
    return layer.conv is not None and max(layer.w_in.shape[2:]) > SQUARE_MAX


@dataclass(frozen=True, slots=True)
class _Places:
    """A convolution on the chip: what the host pads, and the cells of the answer that are the layer's."""

    image: tuple[int, int, int]
    padding: tuple[int, int]
    rows: slice
    columns: slice


@dataclass(frozen=True, slots=True)
class Product:
    """One set of synapses as an Akida model: spikes in, sums out."""

    model: Any
    spikes: type[np.generic]
    """The type that the model takes them in."""
    scales: Int64s
    """What the units of each digit count, lowest first."""
    places: _Places | None = None

    def sums(self, x: npt.NDArray[Any]) -> Int64s:
        """``x`` (n, inputs) of 0 and 1: (n, neurons). Raises RuntimeError or ValueError where the runtime fails."""
        n, inputs = x.shape
        if n == 0:
            return self.sums(np.zeros((1, inputs), np.uint8))[:0]
        frames = x.astype(self.spikes)
        if self.places is None:
            answer = self.model.forward(frames.reshape(n, 1, 1, inputs))
        else:
            rows, columns = self.places.padding
            images = frames.reshape(n, *self.places.image).transpose(0, 2, 3, 1)
            images = np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
            answer = self.model.forward(images)[:, self.places.rows, self.places.columns]
        sums: Int64s = self._added(answer).transpose(0, 3, 1, 2).reshape(n, -1)
        return sums

    def _added(self, answer: npt.NDArray[np.int32]) -> Int64s:
        """The digits added up: (..., digits * units) to (..., units)."""
        parts = answer.reshape(*answer.shape[:-1], len(self.scales), -1).astype(np.int64)
        total: Int64s = (parts * self.scales[:, np.newaxis]).sum(axis=-2)
        return total


def digits(w: Int8s) -> tuple[Int8s, ...]:
    """``w`` = sum of digit i * 15^i with digits of -7..7, lowest first; as many as it takes, at least one."""
    found: list[Int8s] = []
    rest = w.astype(np.int64)
    while rest.any() or not found:
        digit = (rest + DIGIT_MAX) % BASE - DIGIT_MAX
        found.append(digit.astype(np.int8))
        rest = (rest - digit) // BASE
    return tuple(found)


def products(layer: Layer, generation: str) -> tuple[Product, Product | None]:
    """The input synapses and the recurrent ones of ``layer`` for a chip of ``generation`` v1 or v2.

    Raises BackendUnavailable without the SDK, ValueError or RuntimeError where it refuses.
    """
    if layer.conv is None:
        into = _dense(layer.w_in, generation)
    elif _is_matrix(layer):
        into = _dense(matrix(layer.w_in, layer.conv), generation)
    else:
        into = _convolution(layer.w_in, layer.conv, generation)
    return into, None if layer.w_rec is None else _dense(layer.w_rec, generation)


def _dense(w: Int8s, generation: str) -> Product:
    akida = sdk()
    units, inputs = w.shape
    if generation == "v1":
        parts = digits(w)
        only = akida.FullyConnected(units * len(parts), weights_bits=4, activation=False)
        model = akida.Model([akida.InputData((1, 1, inputs), input_bits=1), only])
        return _filled(model, np.concatenate(parts).T[np.newaxis, np.newaxis], np.uint8, len(parts))
    # The chip wants inputs of no fewer bits than the weights have.
    model = akida.Model([akida.InputData((1, 1, inputs), input_bits=8), akida.Dense1D(units, output_bits=32)])
    return _filled(model, w.T, np.int8)


def _convolution(kernel: Int8s, shape: ConvShape, generation: str) -> Product:
    akida = sdk()
    square, places = _laid(kernel, shape)
    side, units = square.shape[2], len(square)
    channels, height, width = shape.in_shape
    image = (height + 2 * shape.padding[0], width + 2 * shape.padding[1], channels)
    # Akida's convolution is the mathematical one, which turns the kernel around.
    turned = square[:, :, ::-1, ::-1]
    if generation == "v1":
        parts = digits(turned)
        only = akida.Convolutional((side, side), units * len(parts), weights_bits=4, activation=False)
        model = akida.Model([akida.InputData(image, input_bits=1), only])
        return _filled(model, np.concatenate(parts).transpose(2, 3, 1, 0), np.uint8, len(parts), places)
    # The chip gives raw sums in 28 bits; every sum that a network can have is below 2^24 (network.check).
    only = akida.Conv2D(units, side, output_bits=28, activation=akida.ActivationType.NoActivation)
    model = akida.Model([akida.InputData(image, input_bits=8), only])
    return _filled(model, turned.transpose(2, 3, 1, 0), np.int8, places=places)


def _laid(kernel: Int8s, shape: ConvShape) -> tuple[Int8s, _Places]:
    """``kernel`` in the smallest odd square, its middle on the square's, and where then the answer's cells are."""
    units, channels, height, width = kernel.shape
    side = max(height, width) | 1
    middle = (height - 1) // 2, (width - 1) // 2
    top, left = side // 2 - middle[0], side // 2 - middle[1]
    square = np.zeros((units, channels, side, side), np.int8)
    square[:, :, top : top + height, left : left + width] = kernel
    _, rows, columns = shape.out_shape(kernel.shape)
    return square, _Places(
        shape.in_shape,
        shape.padding,
        slice(middle[0], middle[0] + (rows - 1) * shape.stride[0] + 1, shape.stride[0]),
        slice(middle[1], middle[1] + (columns - 1) * shape.stride[1] + 1, shape.stride[1]),
    )


def _filled(
    model: Any, weights: Int8s, spikes: type[np.generic], parts: int = 1, places: _Places | None = None
) -> Product:
    model.layers[1].set_variable("weights", np.ascontiguousarray(weights))
    return Product(model, spikes, BASE ** np.arange(parts, dtype=np.int64), places)


def mapped(layer: Layer, device: Any) -> tuple[Product, Product | None]:
    """As ``products``, mapped to ``device``, all of them to its hardware. Raises the same where they do not fit."""
    into, back = products(layer, device.ip_version.name)
    for product in (into, back):
        if product is not None:
            product.model.map(device, hw_only=True)
    return into, back


def fits(network: Network) -> dict[str, str | None]:
    """Per chip that the SDK knows: why ``network`` does not fit on it, None if it does. Needs no chip.

    Each set of synapses is mapped for itself, as if it had the chip alone. Raises BackendUnavailable without the SDK.
    """
    akida = sdk()
    return {name: unsupported(network) or _obstacle(network, getattr(akida, name)()) for name in VIRTUAL_DEVICES}


def _obstacle(network: Network, device: Any) -> str | None:
    for layer in network.layers:
        try:
            mapped(layer, device)
        except (RuntimeError, ValueError) as error:
            return f"layer {layer.name!r}: {error}"
    return None
