"""Compile the integer network into ONNX graphs: of one time step, state in, state out; and of a whole window.

Inputs of the step: ``x`` uint8 (1, features), and of layer i what its next state depends on: ``u{i}``, ``v{i}`` int64
(1, neurons), ``s{i}`` uint8 (1, neurons). Outputs: ``u{i}_out``, ``v{i}_out`` and, of a spiking layer, ``s{i}_out``.
All arithmetic is in integers but the convolution, whose float sums are exact (below 2^24) and four times as fast.
Needs the extra ``build``; running the result does not.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.network import DECAY_ONE, STATE_MAX, THRESHOLD_SHIFT, WEIGHT_SHIFT, Layer, Network

OPSET = 17
IR_VERSION = 9
"""Old enough for the onnxruntime of JetPack 6."""
MANY_NEURONS = 512
"""From here on integer division costs more than one node more."""


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind}_{name}", **attributes))
        return name

    def constant(self, name: str, value: "np.ndarray[Any, Any] | np.generic") -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def input(self, name: str, dtype: int, width: int) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, [1, width]))
        return name

    def output(self, name: str, dtype: int, width: int) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, dtype, [1, width]))
        return name


def compile_step(network: Network) -> bytes:
    """The serialised ONNX model of one step of ``network``; the same network gives the same bytes."""
    g, _ = _step(network)
    return _serialised(helper.make_graph(g.nodes, "step", g.inputs, g.outputs, list(g.constants.values())))


def compile_window(network: Network) -> bytes:
    """The model of a whole window: the step in a Scan over ``raster`` uint8 (steps, 1, features).

    Inputs beside it: the whole state, ``u{i}``, ``v{i}``, ``s{i}``; outputs: the state behind the last step,
    ``u{i}_end`` ..., and ``out`` (steps, 1, classes).
    """
    g, out = _step(network)
    taken = {value.name: value for value in g.inputs}
    given = {value.name.removesuffix("_out"): value for value in g.outputs}
    state = [taken.get(name) or _like(value, name) for name, value in given.items()]
    g.op("Identity", out, out="y")
    kind = TensorProto.INT64 if network.layers[-1].v_th is None else TensorProto.UINT8
    y = helper.make_tensor_value_info("y", kind, [1, network.classes])
    body = helper.make_graph(g.nodes, "step", [*state, taken["x"]], [*given.values(), y])
    ends = [_like(value, f"{name}_end") for name, value in given.items()]
    scan = helper.make_node("Scan", [*given, "raster"], [*(v.name for v in ends), "out"], num_scan_inputs=1, body=body)
    raster = helper.make_tensor_value_info("raster", TensorProto.UINT8, ["steps", 1, network.features])
    outputs = helper.make_tensor_value_info("out", kind, ["steps", 1, network.classes])
    constants = list(g.constants.values())
    return _serialised(helper.make_graph([scan], "window", [*state, raster], [*ends, outputs], constants))


def _step(network: Network) -> tuple[_Graph, str]:
    """The nodes of one step, and the name of the last layer's output."""
    g = _Graph()
    g.constant("one", np.int64(DECAY_ONE))
    g.constant("weight_unit", np.int64(1 << WEIGHT_SHIFT))
    g.constant("state_min", np.int64(-STATE_MAX))
    g.constant("state_max", np.int64(STATE_MAX))
    g.constant("rest", np.int64(0))
    raster = g.input("x", TensorProto.UINT8, network.features)
    spikes: list[str] = []
    for i, (layer, wire) in enumerate(zip(network.layers, network.wires, strict=True)):
        x = raster
        if wire.sources:
            heard = [spikes[j] for j in wire.sources]
            x = heard[0] if len(heard) == 1 else g.op("Concat", *heard, axis=1)
        elif layer.inputs < network.features:
            bounds = [[wire.cells.start], [wire.cells.stop], [1]]
            x = g.op("Slice", x, *(g.constant(f"cells{i}_{k}", np.array(n, np.int64)) for k, n in enumerate(bounds)))
        spikes.append(_layer(g, i, layer, x))
    return g, spikes[-1]


def _like(value: Any, name: str) -> Any:
    kind = value.type.tensor_type
    return helper.make_tensor_value_info(name, kind.elem_type, [part.dim_value for part in kind.shape.dim])


def _serialised(graph: Any) -> bytes:
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="axond")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _layer(g: _Graph, i: int, layer: Layer, x: str) -> str:
    """Add the nodes of one layer; returns the name of its spikes."""
    n = layer.neurons
    total = _sums(g, i, layer, x)
    if layer.w_rec is not None:
        s = g.input(f"s{i}", TensorProto.UINT8, n)
        total = g.op("Add", total, g.op("MatMulInteger", s, g.constant(f"r{i}", np.ascontiguousarray(layer.w_rec.T))))
    wide = g.op("Cast", total, to=TensorProto.INT64)
    kept = _decayed(g, i, "u", layer.k_u)
    u_out = g.output(f"u{i}_out", TensorProto.INT64, n)
    if kept is None:
        u = g.op("Mul", wide, "weight_unit", out=u_out)
    else:
        u = g.op("Add", kept, g.op("Mul", wide, "weight_unit"), out=u_out)
    kept = _decayed(g, i, "v", layer.k_v)
    v = u if kept is None else g.op("Add", kept, u)
    if layer.bias.any():
        v = g.op("Add", v, g.constant(f"b{i}", layer.bias.astype(np.int64)))
    v_out = g.output(f"v{i}_out", TensorProto.INT64, n)
    if layer.v_th is None:
        return g.op("Clip", v, "state_min", "state_max", out=v_out)
    v = g.op("Clip", v, "state_min", "state_max")
    fired = g.op("Greater", v, g.constant(f"th{i}", layer.v_th.astype(np.int64) << THRESHOLD_SHIFT))
    g.op("Where", fired, "rest", v, out=v_out)
    return g.op("Cast", fired, to=TensorProto.UINT8, out=g.output(f"s{i}_out", TensorProto.UINT8, n))


def _sums(g: _Graph, i: int, layer: Layer, x: str) -> str:
    """Weights times input: int32 for a matrix, float for a convolution."""
    if layer.conv is None:
        return g.op("MatMulInteger", x, g.constant(f"w{i}", np.ascontiguousarray(layer.w_in.T)))
    image = g.op("Cast", x, to=TensorProto.FLOAT)
    image = g.op("Reshape", image, g.constant(f"in{i}", np.array([1, *layer.conv.in_shape], np.int64)))
    pads = [*layer.conv.padding, *layer.conv.padding]
    kernel = g.constant(f"w{i}", layer.w_in.astype(np.float32))
    sums = g.op("Conv", image, kernel, pads=pads, strides=list(layer.conv.stride))
    total = g.op("Reshape", sums, g.constant(f"out{i}", np.array([1, layer.neurons], np.int64)))
    return total if layer.w_rec is None else g.op("Cast", total, to=TensorProto.INT32)


def _decayed(g: _Graph, i: int, state: str, k: "np.ndarray[Any, np.dtype[np.int32]]") -> str | None:
    """``decay(state, k)``; None where nothing is kept. Integer Div truncates toward zero, as the decay wants; so does
    the cast of a double, which holds the product exactly (below 2^43), and is not an operation per neuron."""
    if not k.any():
        return None
    name = g.input(f"{state}{i}", TensorProto.INT64, len(k))
    if (k == DECAY_ONE).all():
        return name
    if len(k) >= MANY_NEURONS:
        part = g.constant(f"k{state}{i}", k / DECAY_ONE)
        return g.op("Cast", g.op("Mul", g.op("Cast", name, to=TensorProto.DOUBLE), part), to=TensorProto.INT64)
    return g.op("Div", g.op("Mul", name, g.constant(f"k{state}{i}", k.astype(np.int64))), "one")
