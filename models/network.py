"""The integer network: the form that every backend executes, and the numbers it is made of.

Source of the arithmetic: Loihi's CUBA-LIF neuron, as Lava's ``LIF`` process in fixed point computes it.
"""

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from models.base import BadModel
from models.convolution import ConvShape
from models.stages import Stages, Wire, stages, wires
from models.untrusted import parse_json, read_npz

WEIGHT_SHIFT = 7
"""An int8 weight w stands for the even integer 2w, and a synaptic sum is shifted left by 6: together w << 7."""
THRESHOLD_SHIFT = 6
DECAY_BITS = 12
DECAY_ONE = 1 << DECAY_BITS
STATE_MAX = (1 << 23) - 1
THRESHOLD_MAX = (1 << 17) - 1
MAX_LAYERS = 256
MAX_NAMES_BYTES = 1 << 16
MAX_NEURONS = 1 << 22
"""Of a layer, and of its inputs: two for each pixel of the largest event camera there is."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One population of neurons with its input and recurrent synapses.

    ``w_in`` int8 (neurons, inputs), or with ``conv`` the kernel (out channels, in channels, height, width), the neurons
    then in the order (channel, row, column); ``w_rec`` int8 (neurons, neurons) or None; ``k_u``, ``k_v`` int32
    (neurons,) in 0..4096; ``bias`` int32 (neurons,), added to v each step; ``v_th`` int32 (neurons,) in 1..2^17-1, or
    None for an integrator, which never spikes and whose output is its membrane potential. ``beside``: the layer stands
    beside the one before it, in one stage of the network (``Network``).
    """

    name: str
    w_in: npt.NDArray[np.int8]
    w_rec: npt.NDArray[np.int8] | None
    k_u: npt.NDArray[np.int32]
    k_v: npt.NDArray[np.int32]
    bias: npt.NDArray[np.int32]
    v_th: npt.NDArray[np.int32] | None
    conv: ConvShape | None = None
    beside: bool = False

    @property
    def neurons(self) -> int:
        return int(self.w_in.shape[0]) if self.conv is None else math.prod(self.conv.out_shape(self.w_in.shape))

    @property
    def inputs(self) -> int:
        return int(self.w_in.shape[1]) if self.conv is None else math.prod(self.conv.in_shape)


@dataclass(frozen=True, slots=True)
class Network:
    """Stages in order, each of one layer, or of several side by side; a stage sees the spikes of the one before it, of
    the same time step.

    The layers of a stage take consecutive slices of its input, each as many cells as it has inputs, and their neurons
    one after the other are the input of the next stage. A slice of neurons is always whole layers. The last stage is
    one layer. The readout is the sum over the steps of its output: spikes of a spiking layer, membrane potential of an
    integrator.
    """

    layers: tuple[Layer, ...]

    @property
    def stages(self) -> Stages:
        """Indices of the layers of each stage."""
        return stages(self.layers)

    @property
    def wires(self) -> tuple[Wire, ...]:
        """Of each layer, where its inputs come from."""
        return wires(self.layers)

    @property
    def features(self) -> int:
        return sum(self.layers[i].inputs for i in self.stages[0])

    @property
    def classes(self) -> int:
        return self.layers[-1].neurons

    @property
    def neurons(self) -> tuple[int, ...]:
        """Of each layer, in order."""
        return tuple(layer.neurons for layer in self.layers)


def _check_layer(layer: Layer, last: bool) -> None:
    where = f"layer {layer.name!r}"
    dimensions = 2 if layer.conv is None else 4
    if layer.w_in.ndim != dimensions or 0 in layer.w_in.shape:
        raise BadModel(f"{where}: input weights have shape {layer.w_in.shape}, expected {dimensions} dimensions")
    if layer.conv is not None:
        layer.conv.check(layer.w_in.shape, where)
    n, m = layer.neurons, layer.inputs
    if max(n, m) > MAX_NEURONS:
        raise BadModel(f"{where}: has {n} neurons and {m} inputs, expected {MAX_NEURONS} at most")
    if layer.w_rec is not None and layer.w_rec.shape != (n, n):
        raise BadModel(f"{where}: recurrent weights have shape {layer.w_rec.shape}, expected {(n, n)}")
    for what, array, low, high in (
        ("k_u", layer.k_u, 0, DECAY_ONE),
        ("k_v", layer.k_v, 0, DECAY_ONE),
        ("bias", layer.bias, -STATE_MAX, STATE_MAX),
        ("v_th", layer.v_th, 1, THRESHOLD_MAX),
    ):
        if array is None:
            continue
        if array.shape != (n,):
            raise BadModel(f"{where}: {what} has shape {array.shape}, expected {(n,)}")
        if n and (array.min() < low or array.max() > high):
            raise BadModel(f"{where}: {what} must lie in {low}..{high}")
    _check_reach(layer, where)
    if layer.v_th is None and not last:
        raise BadModel(f"{where} is an integrator, which can only be the last layer")
    if layer.v_th is None and layer.w_rec is not None:
        raise BadModel(f"{where}: an integrator does not spike, so it cannot have recurrent weights")


def _check_reach(layer: Layer, where: str) -> None:
    """No input may drive the synaptic state out of 32 bits: beyond, runtimes differ (onnxruntime's Clip does)."""
    gain = np.abs(layer.w_in.astype(np.int64)).sum(axis=tuple(range(1, layer.w_in.ndim)))
    gain = np.repeat(gain, layer.neurons // len(gain))
    if layer.w_rec is not None:
        gain = gain + np.abs(layer.w_rec.astype(np.int64)).sum(axis=1)
    kept = np.maximum(DECAY_ONE - layer.k_u.astype(np.int64), 1)
    endless = (layer.k_u == DECAY_ONE) & (gain > 0)
    reach = ((gain << WEIGHT_SHIFT) * DECAY_ONE) // kept + np.abs(layer.bias.astype(np.int64)) + 2 * STATE_MAX
    if (endless | (reach >= 1 << 31)).any():
        neuron = int(np.argmax(endless | (reach >= 1 << 31)))
        raise BadModel(
            f"{where}: the current of neuron {neuron} can leave 32 bits; use a shorter tau_syn or smaller weights"
        )


def check(network: Network) -> Network:
    """Return ``network`` if it is well formed, else raise BadModel with the layer and the reason."""
    if not network.layers:
        raise BadModel("the network has no layers")
    for layer in network.layers:
        _check_layer(layer, last=layer is network.layers[-1])
    _check_stages(network)
    return network


def _check_stages(network: Network) -> None:
    if network.layers[0].beside or network.layers[-1].beside:
        raise BadModel(
            f"layer {network.layers[-1].name!r}: the first and the last layer cannot stand beside another one"
        )
    before: list[Layer] = []
    for indices in network.stages:
        stage = [network.layers[i] for i in indices]
        given = list(accumulate(layer.neurons for layer in before))
        ends = list(accumulate(layer.inputs for layer in stage))
        if ends[-1] > MAX_NEURONS:
            raise BadModel(f"layer {stage[-1].name!r}: its stage has {ends[-1]} inputs, expected {MAX_NEURONS} at most")
        for layer, end in zip(stage, ends, strict=True):
            if given and (end not in given or (layer is stage[-1] and end != given[-1])):
                have = " + ".join(str(one.neurons) for one in before)
                raise BadModel(
                    f"layer {layer.name!r} takes {layer.inputs} inputs, but before it are {have} neurons; "
                    "all of a layer are heard by one layer"
                )
        before = stage


_ARRAYS = {"w_in": np.int8, "w_rec": np.int8, "k_u": np.int32, "k_v": np.int32, "bias": np.int32, "v_th": np.int32}
_OPTIONAL = ("w_rec", "v_th")


def save(network: Network) -> bytes:
    """The network as the bytes of an ``.npz``: the layer names, in a list of their own where layers are side by side,
    and the arrays as ``<layer index>.<field>``."""
    named = [[network.layers[i].name for i in stage] for stage in network.stages]
    names = [stage if len(stage) > 1 else stage[0] for stage in named]
    arrays: dict[str, npt.NDArray[np.generic]] = {"layers": np.frombuffer(json.dumps(names).encode(), np.uint8)}
    for i, layer in enumerate(network.layers):
        for field in _ARRAYS:
            value = getattr(layer, field)
            if value is not None:
                arrays[f"{i}.{field}"] = value
        if layer.conv is not None:
            arrays[f"{i}.conv"] = layer.conv.packed()
    return write_npz(arrays)


def load(content: bytes, where: str) -> Network:
    """Read what ``save`` gave. ``where`` names it in errors. Raises BadModel."""
    arrays = read_npz(content, where)
    try:
        names = _names(arrays.pop("layers").tobytes())
        layers = tuple(_take_layer(arrays, i, name, beside) for i, (name, beside) in enumerate(names))
        if arrays:
            raise ValueError(f"it has an array {min(arrays)!r} of no layer")
        return check(Network(layers))
    except KeyError as error:
        raise BadModel(f"{where}: not an integer network (it has no array {error})") from error
    except (ValueError, BadModel) as error:
        raise BadModel(f"{where}: not an integer network ({error})") from error


def _names(text: bytes) -> list[tuple[str, bool]]:
    """Of each layer, and whether it stands beside the one before. Raises ValueError."""
    document = parse_json(text) if len(text) <= MAX_NAMES_BYTES else None
    if isinstance(document, list):
        lists = [[stage] if isinstance(stage, str) else stage for stage in document]
        if all(isinstance(one, list) and one and all(isinstance(name, str) for name in one) for one in lists):
            names = [(name, i > 0) for one in lists for i, name in enumerate(one)]
            if 0 < len(names) <= MAX_LAYERS:
                return names
    raise ValueError(f"its layers must be 1 to {MAX_LAYERS} names")


def _take_layer(arrays: dict[str, npt.NDArray[np.generic]], index: int, name: str, beside: bool) -> Layer:
    """Layer ``index`` out of ``arrays``. Raises ValueError, and KeyError for an array that is missing."""
    fields: dict[str, npt.NDArray[np.generic] | None] = {}
    for field, dtype in _ARRAYS.items():
        key = f"{index}.{field}"
        array = arrays.pop(key, None) if field in _OPTIONAL else arrays.pop(key)
        if array is not None and array.dtype != dtype:
            raise ValueError(f"its array {key!r} is of {array.dtype}, expected {np.dtype(dtype)}")
        fields[field] = array
    packed = arrays.pop(f"{index}.conv", None)
    conv = None if packed is None else ConvShape.unpack(packed)
    return Layer(name=name, **fields, conv=conv, beside=beside)  # type: ignore[arg-type]  # their types were compared above


def write_npz(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """As ``numpy.savez_compressed``, with fixed dates, so that the same arrays give the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), buffer.getvalue(), zipfile.ZIP_DEFLATED
            )
    return out.getvalue()
