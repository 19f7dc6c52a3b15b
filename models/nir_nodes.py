"""Single nodes of a NIR graph: linear ones as synapses, neurons as coefficients of the float step.

Source of the equations: Pedersen et al., "Neuromorphic intermediate representation", Nature Communications 2024.
"""

import math
from typing import Any

import numpy as np

from models.base import BadModel
from models.convolution import ConvShape
from models.float_network import FloatLayer
from models.linear import MAX_CELLS, Floats, Synapse, behind, convolution, dense, pooling, scaled

NEURONS = ("Threshold", "IF", "LIF", "LI", "CubaLIF", "CubaLI")
LINEAR = ("Affine", "Linear", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d", "Flatten", "Scale")

Shape = tuple[int, ...]
"""Of what flows between nodes: (channels, height, width), (channels, length) or (neurons,)."""


def through(node: Any, before: Synapse | None, shape: Shape, where: str) -> tuple[Synapse | None, Shape]:
    """A linear node behind ``before`` (None: nothing yet), whose output has ``shape``: both together, and their shape.

    Raises BadModel naming ``where``.
    """
    kind = type(node).__name__
    if kind == "Flatten":
        return before, _flattened(node, shape, where)
    if kind == "Scale":
        factor = vector(node.scale, math.prod(shape), f"{where} scale")
        return scaled(before if before is not None else identity(shape, where), factor, where), shape
    synapse, shape = _synapse(kind, node, shape, where)
    return (synapse if before is None else behind(before, synapse, where)), shape


def _synapse(kind: str, node: Any, shape: Shape, where: str) -> tuple[Synapse, Shape]:
    if kind in ("Affine", "Linear"):
        w = _finite(node.weight, 2, where)
        if w.shape[1] != math.prod(shape):
            raise BadModel(f"{where} takes {w.shape[1]} inputs, but {math.prod(shape)} come")
        return dense(w, vector(getattr(node, "bias", 0.0), len(w), f"{where} bias")), (len(w),)
    if kind in ("Conv1d", "Conv2d"):
        return _convolution(kind, node, shape, where)
    shape = _without_batch(shape, 3)
    if len(shape) != 3:
        raise BadModel(f"{where} pools an image, but what comes has the shape {shape}")
    size = _pair(node.kernel_size, f"{where} kernel_size")
    pool = ConvShape(
        (shape[0], shape[1], shape[2]),
        _pair(node.stride, f"{where} stride"),
        _pair(node.padding, f"{where} padding"),
    )
    weight = 1.0 if kind == "SumPool2d" else 1.0 / max(1, math.prod(size))
    if shape[0] * shape[0] * math.prod(size) > MAX_CELLS:
        raise BadModel(f"{where} is larger than {MAX_CELLS} cells")
    synapse = pooling(pool, size, weight, where)
    return synapse, pool.out_shape(synapse.w.shape)


def _convolution(kind: str, node: Any, shape: Shape, where: str) -> tuple[Synapse, Shape]:
    flat = kind == "Conv1d"
    kernel = _finite(node.weight, 3 if flat else 4, where)
    kernel = kernel[:, :, None, :] if flat else kernel
    shape = _without_batch(shape, 2 if flat else 3)
    groups = _count(node.groups, f"{where} groups")
    plane = shape[1:] if node.input_shape is None else whole_shape(node.input_shape, f"{where} input_shape")
    came = (kernel.shape[1] * groups, *plane)
    if len(came) != (2 if flat else 3):
        raise BadModel(f"{where}: its input_shape {plane} has the wrong number of dimensions")
    if math.prod(came) != math.prod(shape):
        raise BadModel(f"{where} takes {came}, but {shape} comes")
    size = kernel.shape[2:]
    dilation = _steps(node.dilation, flat, f"{where} dilation", 1)
    geometry = ConvShape(
        (came[0], 1, came[1]) if flat else (came[0], came[1], came[2]),
        _steps(node.stride, flat, f"{where} stride", 1),
        _padding(node.padding, flat, (size[0], size[1]), dilation, where),
    )
    synapse = convolution(kernel, vector(node.bias, len(kernel), f"{where} bias"), geometry, dilation, groups, where)
    out = geometry.out_shape(synapse.w.shape)
    return synapse, (out[0], out[2]) if flat else out


def _without_batch(shape: Shape, dimensions: int) -> Shape:
    """Frameworks that export a traced sample leave its batch of one in front."""
    return shape[1:] if len(shape) == dimensions + 1 and shape[0] == 1 else shape


def _flattened(node: Any, shape: Shape, where: str) -> Shape:
    """The order of the cells stays; only what follows needs to know."""
    first, last = (int(vector(n, 1, f"{where} dimension")[0]) for n in (node.start_dim, node.end_dim))
    first, last = first + len(shape) * (first < 0), last + len(shape) * (last < 0)
    if not 0 <= first <= last < len(shape):
        return (math.prod(shape),)
    return (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])


def whole_shape(value: Any, what: str) -> Shape:
    """A declared shape. Raises BadModel unless it is a few whole numbers above 0 that a network can have."""
    numbers = _numbers(value, what).reshape(-1)
    if not 1 <= numbers.size <= 8 or not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any():
        raise BadModel(f"{what} is {np.asarray(value).tolist()!r}, expected whole numbers")
    shape = tuple(int(n) for n in numbers)
    if min(shape) < 1 or math.prod(shape) > MAX_CELLS:
        raise BadModel(f"{what} is {shape}, expected numbers above 0 and at most {MAX_CELLS} cells")
    return shape


def _count(value: Any, what: str) -> int:
    numbers = _numbers(value, what).reshape(-1)
    if numbers.size != 1 or numbers[0] != np.rint(numbers[0]) or not 1 <= numbers[0] <= MAX_CELLS:
        raise BadModel(f"{what} must be a whole number above 0")
    return int(numbers[0])


def _steps(value: Any, flat: bool, what: str, across: int) -> tuple[int, int]:
    """Rows and columns; a one-dimensional node has only columns, and ``across`` for the single row."""
    return (across, _pair(value, what)[1]) if flat else _pair(value, what)


def _padding(value: Any, flat: bool, size: tuple[int, int], dilation: tuple[int, int], where: str) -> tuple[int, int]:
    if not isinstance(value, (str, bytes)):
        return _steps(value, flat, f"{where} padding", 0)
    text = value.decode() if isinstance(value, bytes) else value
    if text == "valid":
        return 0, 0
    span = [(n - 1) * d for n, d in zip(size, dilation, strict=True)]
    if text != "same" or any(n % 2 for n in span):
        raise BadModel(f"{where} padding {text!r}: only 'valid', 'same' with odd kernels, or numbers can be mapped")
    return span[0] // 2, span[1] // 2


def identity(shape: Shape, where: str) -> Synapse:
    """One weight of 1 for each input: what an edge without a synapse is."""
    if len(shape) == 3:
        return pooling(ConvShape((shape[0], shape[1], shape[2]), (1, 1), (0, 0)), (1, 1), 1.0, where)
    n = math.prod(shape)
    if n * n > MAX_CELLS:
        raise BadModel(f"{where}: one weight for each of {n} inputs is larger than {MAX_CELLS} cells")
    return dense(np.eye(n))


def vector(value: Any, n: int, what: str) -> Floats:
    """(n,) of a node's parameter, which may be a scalar. Raises BadModel."""
    array = _numbers(value, what).reshape(-1)
    if array.size == 1:
        array = np.repeat(array, n)
    if array.shape != (n,) or not np.isfinite(array).all():
        raise BadModel(f"{what} must be {n} finite numbers")
    return array


def _numbers(value: Any, what: str) -> Floats:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise BadModel(f"{what} must be numbers ({error})") from error


def _finite(value: Any, dimensions: int, where: str) -> Floats:
    array = _numbers(value, f"{where} weight")
    if array.ndim != dimensions or 0 in array.shape:
        raise BadModel(f"{where} weight has shape {array.shape}, expected {dimensions} dimensions")
    if not np.isfinite(array).all():
        raise BadModel(f"{where} weights must be finite")
    return array


def _pair(value: Any, what: str) -> tuple[int, int]:
    numbers = _numbers(value, what).reshape(-1)
    if numbers.size == 1:
        numbers = np.repeat(numbers, 2)
    if numbers.size != 2 or (numbers != np.rint(numbers)).any() or np.abs(numbers).max() > MAX_CELLS:
        raise BadModel(f"{what} must be one or two whole numbers")
    return int(numbers[0]), int(numbers[1])


def population(
    name: str, neuron: Any, synapse: Synapse, recurrent: Synapse | None, dt_s: float, where: str
) -> FloatLayer:
    """A neuron node and its synapses, discretised by forward Euler with the step ``dt_s``. Raises BadModel."""
    n = synapse.neurons
    kind = type(neuron).__name__
    zero, one = np.zeros(n), np.ones(n)
    decay_i, gain_i, decay_v, gain_v, leak = zero, one, zero, one, zero
    if kind == "IF":
        decay_v, gain_v = one, vector(neuron.r, n, f"{where} r") * dt_s
    elif kind != "Threshold":
        cuba = kind.startswith("Cuba")
        decay_v, step = _decay(neuron.tau_mem if cuba else neuron.tau, n, dt_s, f"{where} tau_mem")
        gain_v = vector(neuron.r, n, f"{where} r") * step
        leak = vector(neuron.v_leak, n, f"{where} v_leak") * step
        if cuba:
            decay_i, step = _decay(neuron.tau_syn, n, dt_s, f"{where} tau_syn")
            gain_i = vector(neuron.w_in, n, f"{where} w_in") * step
    spiking = kind not in ("LI", "CubaLI")
    level = neuron.threshold if kind == "Threshold" else neuron.v_threshold if spiking else None
    reset = getattr(neuron, "v_reset", None)
    bias, w_rec = synapse.bias, None
    if recurrent is not None:
        if recurrent.conv is not None:
            raise BadModel(f"{where}: a recurrent convolution cannot be mapped; write it out as a Linear node")
        w_rec, bias = recurrent.w, bias + recurrent.bias
    return FloatLayer(
        name=name, w_in=synapse.w, conv=synapse.conv, bias=bias, w_rec=w_rec, decay_i=decay_i, gain_i=gain_i,
        decay_v=decay_v, gain_v=gain_v, leak=leak,
        threshold=vector(level, n, f"{where} threshold") if spiking else None,
        reset=zero if reset is None or not spiking else vector(reset, n, f"{where} v_reset"),
    )  # fmt: skip


def _decay(tau: Any, n: int, dt_s: float, what: str) -> tuple[Floats, Floats]:
    """``1 - dt / tau`` and ``dt / tau``."""
    seconds = vector(tau, n, what)
    if (seconds < dt_s).any():
        raise BadModel(f"{what} of {seconds.min():g} s is shorter than the time step {dt_s:g} s")
    return 1 - dt_s / seconds, dt_s / seconds
