"""What training hands over: ``network.nir`` on the integer grid, ``recipe.json`` and ``CARD.md``."""

import json
import math
from pathlib import Path
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
import torch

from models.base import BadModel
from models.network import STATE_MAX, THRESHOLD_MAX, WEIGHT_SHIFT, Layer, Network, check
from models.train.conv import ConvLayer
from models.train.lif import DECAY_ONE, QuantLayer, Snn

Shape = tuple[int, ...]
HEADROOM = 2
"""The potentials seen in training data must stay this factor below the clip."""


def integer_network(net: Snn) -> Network:
    """The integers that training has been using all along. Raises BadModel if one does not fit."""
    layers: list[Layer] = []
    for stage in net.stages():
        layers += [_integer_layer(name, layer, i > 0) for i, (name, layer) in enumerate(stage)]
    return check(Network(tuple(layers)))


def _integer_layer(name: str, layer: QuantLayer, beside: bool) -> Layer:
    w_in, w_rec, v_th = layer.integers()
    neurons = layer.spec.neurons
    if v_th > THRESHOLD_MAX:
        raise BadModel(f"layer {name!r}: threshold {v_th} is above {THRESHOLD_MAX}; its weights are too small")
    return Layer(
        name=name,
        w_in=w_in.numpy(),
        w_rec=None if w_rec is None else w_rec.numpy(),
        k_u=np.full(neurons, layer.spec.k_u, np.int32),
        k_v=np.full(neurons, layer.spec.k_v, np.int32),
        bias=np.repeat(layer.biases().numpy() * (1 << WEIGHT_SHIFT), neurons // len(layer.biases())).astype(np.int32),
        v_th=np.full(neurons, v_th, np.int32) if layer.spiking else None,
        conv=layer.conv if isinstance(layer, ConvLayer) else None,
        beside=beside,
    )


def check_headroom(largest: int) -> None:
    """Raise BadModel when the largest |v| seen comes near the clip, where float and integer would part."""
    if largest * HEADROOM > STATE_MAX:
        raise BadModel(f"the readout's potential reaches {largest}, less than {HEADROOM} times below {STATE_MAX}")


def write_nir(net: Snn, path: Path, *, dt_s: float) -> None:
    """Input - Linear - CubaLIF - ... - Linear - CubaLI - Output with weights and thresholds on the int8 grid.

    A convolution is a Conv2d in the place of a Linear, and a Flatten where a Linear follows it. Layers side by side
    have an Input each, and a Linear each where they meet.
    With ``w_in = tau_syn / dt`` and ``r = tau_mem / dt`` the Euler step of NIR has gain 1 on the weights.
    """
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    before: list[tuple[str, Shape]] = []
    for name, layer in zip(net.input_names(), (layer for _, layer in net.stages()[0]), strict=True):
        shape = layer.conv.in_shape if isinstance(layer, ConvLayer) else (layer.inputs,)
        nodes[name] = nir.Input({"input": np.array(shape)})
        before.append((name, shape))
    for stage in net.stages():
        after: list[tuple[str, Shape]] = []
        sources = [[source] for source in before] if len(stage) == len(before) else [before]
        for (name, layer), heard in zip(stage, sources, strict=True):
            _write_synapses(nodes, edges, name, layer, heard)
            shape = layer.conv.out_shape(layer.w_in.shape) if isinstance(layer, ConvLayer) else (layer.spec.neurons,)
            nodes[name] = _neurons(layer, dt_s, shape)
            back = layer.integers()[1]
            if back is not None:
                nodes[f"{name}_rec"] = _linear(layer, back)
                edges += [(name, f"{name}_rec"), (f"{name}_rec", name)]
            after.append((name, shape))
        before = after
    nodes["output"] = nir.Output({"output": np.array([net.layers()[-1].spec.neurons])})
    edges.append((before[0][0], "output"))
    metadata = {"dt": dt_s, "discretisation": "euler", "reset": "zero"}
    nir.write(str(path), nir.NIRGraph(nodes=nodes, edges=edges, metadata=metadata))


def _write_synapses(
    nodes: dict[str, Any], edges: list[tuple[str, str]], name: str, layer: QuantLayer, heard: list[tuple[str, Shape]]
) -> None:
    """The nodes between those that ``layer`` hears (with their shapes) and its neurons ``name``."""
    first = 0
    for name_before, shape in heard:
        source = name_before
        suffix = "" if len(heard) == 1 else f"_{name_before}"
        weights = f"{name}_in{suffix}"
        if isinstance(layer, ConvLayer):
            nodes[weights] = _convolution(layer)
        else:
            if len(shape) > 1:
                nodes[f"{name}_flat{suffix}"] = nir.Flatten({"input": np.array(shape)}, start_dim=0)
                edges.append((name_before, f"{name}_flat{suffix}"))
                source = f"{name}_flat{suffix}"
            end = first + math.prod(shape)
            nodes[weights] = _linear(layer, layer.integers()[0][:, first:end])
            first = end
        edges += [(source, weights), (weights, name)]


def _linear(layer: QuantLayer, integers: torch.Tensor) -> Any:
    return nir.Linear(integers.numpy().astype(np.float64) / float(layer.scale()))


def _convolution(layer: ConvLayer) -> Any:
    kernel, _, _ = layer.integers()
    on_grid = kernel.numpy().astype(np.float64) / float(layer.scale())
    plane, stride, padding = layer.conv.in_shape[1:], layer.conv.stride, layer.conv.padding
    bias = layer.biases().numpy().astype(np.float64) / float(layer.scale())
    return nir.Conv2d(plane, on_grid, stride, padding, dilation=(1, 1), groups=1, bias=bias)


def _neurons(layer: QuantLayer, dt_s: float, shape: tuple[int, ...]) -> Any:
    def same(value: float) -> npt.NDArray[np.float64]:
        return np.full(shape, value)

    tau_syn = dt_s / (1 - layer.spec.k_u / DECAY_ONE)
    tau_mem = dt_s / (1 - layer.spec.k_v / DECAY_ONE)
    shared = {
        "tau_syn": same(tau_syn),
        "tau_mem": same(tau_mem),
        "w_in": same(tau_syn / dt_s),
        "r": same(tau_mem / dt_s),
        "v_leak": same(0.0),
    }
    if not layer.spiking:
        return nir.CubaLI(**shared)
    _, _, v_th = layer.integers()
    return nir.CubaLIF(**shared, v_threshold=same(v_th / (2 * float(layer.scale()))), v_reset=same(0.0))


def write_recipe(path: Path, recipe: dict[str, Any], net: Snn, steps: int) -> None:
    """``recipe`` and the temperature that goes with ``net``, whose decisions are over ``steps`` steps.

    It turns integer potentials back into the logits of training: their unit is 1/128 weight unit, and the logits are
    their mean over the steps, times the trained gain.
    """
    unit = float(net.out.scale()) * (1 << WEIGHT_SHIFT)
    temperature = round(unit * steps / float(torch.exp(net.log_gain.detach())), 3)
    path.write_text(json.dumps({**recipe, "temperature": temperature}, indent=2) + "\n", encoding="utf-8")


def confusion_table(labels: list[str], counts: npt.NDArray[np.int64]) -> str:
    """Markdown: rows are the truth, columns what was said."""
    head = ["", *labels]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        f"| {label} | " + " | ".join(str(n) for n in row) + " |" for label, row in zip(labels, counts, strict=True)
    ]
    return "\n".join(lines)
