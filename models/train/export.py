"""What training hands over: ``network.nir`` on the integer grid, ``recipe.json`` and ``CARD.md``."""

import json
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

HEADROOM = 2
"""The potentials seen in training data must stay this factor below the clip."""


def integer_network(net: Snn) -> Network:
    """The integers that training has been using all along. Raises BadModel if one does not fit."""
    layers = []
    for i, layer in enumerate(net.layers()):
        w_in, w_rec, v_th = layer.integers()
        neurons = layer.spec.neurons
        if v_th > THRESHOLD_MAX:
            raise BadModel(f"layer {i}: threshold {v_th} is above {THRESHOLD_MAX}; its weights are too small")
        layers.append(
            Layer(
                name=_name(net, i),
                w_in=w_in.numpy(),
                w_rec=None if w_rec is None else w_rec.numpy(),
                k_u=np.full(neurons, layer.spec.k_u, np.int32),
                k_v=np.full(neurons, layer.spec.k_v, np.int32),
                bias=np.zeros(neurons, np.int32),
                v_th=np.full(neurons, v_th, np.int32) if layer.spiking else None,
                conv=layer.conv if isinstance(layer, ConvLayer) else None,
            )
        )
    return check(Network(tuple(layers)))


def check_headroom(largest: int) -> None:
    """Raise BadModel when the largest |v| seen comes near the clip, where float and integer would part."""
    if largest * HEADROOM > STATE_MAX:
        raise BadModel(f"the readout's potential reaches {largest}, less than {HEADROOM} times below {STATE_MAX}")


def write_nir(net: Snn, path: Path, *, dt_s: float) -> None:
    """Input - Linear - CubaLIF - ... - Linear - CubaLI - Output with weights and thresholds on the int8 grid.

    A convolution is a Conv2d in the place of a Linear, and a Flatten where a Linear follows it.
    With ``w_in = tau_syn / dt`` and ``r = tau_mem / dt`` the Euler step of NIR has gain 1 on the weights.
    """
    first = net.layers()[0]
    shape = first.conv.in_shape if isinstance(first, ConvLayer) else (first.inputs,)
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(shape)})}
    edges = []
    before = "input"
    for i, layer in enumerate(net.layers()):
        name, weights = _name(net, i), f"{_name(net, i)}_in"
        if len(shape) > 1 and not isinstance(layer, ConvLayer):
            nodes[f"{name}_flat"] = nir.Flatten({"input": np.array(shape)}, start_dim=0)
            edges.append((before, f"{name}_flat"))
            before = f"{name}_flat"
        nodes[weights], recurrent = _convolution(layer) if isinstance(layer, ConvLayer) else _linear(layer)
        shape = layer.conv.out_shape(layer.w_in.shape) if isinstance(layer, ConvLayer) else (layer.spec.neurons,)
        nodes[name] = _neurons(layer, dt_s, shape)
        edges += [(before, weights), (weights, name)]
        if recurrent is not None:
            nodes[f"{name}_rec"] = recurrent
            edges += [(name, f"{name}_rec"), (f"{name}_rec", name)]
        before = name
    nodes["output"] = nir.Output({"output": np.array([net.layers()[-1].spec.neurons])})
    edges.append((before, "output"))
    metadata = {"dt": dt_s, "discretisation": "euler", "reset": "zero"}
    nir.write(str(path), nir.NIRGraph(nodes=nodes, edges=edges, metadata=metadata))


def _name(net: Snn, index: int) -> str:
    return f"hidden{index}" if index < len(net.hidden) else "readout"


def _linear(layer: QuantLayer) -> tuple[Any, Any]:
    w_in, w_rec, _ = layer.integers()
    scale = float(layer.scale())
    on_grid = nir.Linear(w_in.numpy().astype(np.float64) / scale)
    return on_grid, None if w_rec is None else nir.Linear(w_rec.numpy().astype(np.float64) / scale)


def _convolution(layer: ConvLayer) -> tuple[Any, None]:
    kernel, _, _ = layer.integers()
    on_grid = kernel.numpy().astype(np.float64) / float(layer.scale())
    plane, stride, padding = layer.conv.in_shape[1:], layer.conv.stride, layer.conv.padding
    return nir.Conv2d(plane, on_grid, stride, padding, dilation=(1, 1), groups=1, bias=np.zeros(len(on_grid))), None


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
