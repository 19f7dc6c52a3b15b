"""ONNX files that are not what axond compiled: each is refused in one sentence before or by the runtime."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from models.backends.onnx import OnnxBackend
from models.base import BadModel
from models.compile.onnx import compile_step, compile_window
from models.compile.onnx_check import check
from models.contract_networks import convolution_network, random_network

NET = random_network(np.random.default_rng(1))
STEP = compile_step(NET)
WHOLE = (STEP, compile_window(NET), compile_step(convolution_network()), compile_window(convolution_network()))


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def nameless_external(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def two_gigabytes(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [1 << 31]


def custom_operator(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="evil", version=1)
    model.graph.node[0].domain = "evil"


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Run"


def large_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 40]), "much"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["much"], ["too much"]))


def endless_loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["never"], body=body))


def function(model: onnx.ModelProto) -> None:
    model.functions.add(name="Add", domain="evil")


def scan_in_scan(model: onnx.ModelProto) -> None:
    body = helper.make_graph([helper.make_node("Scan", [], [])], "body", [], [])
    model.graph.node.append(helper.make_node("Scan", [], ["x2"], body=body, num_scan_inputs=1))


def wide_padding(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Conv", ["x", "w0"], ["c"], pads=[1 << 30] * 4))


def typed_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.int64_data.append(1)


def no_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


def newer_operators(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def other_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 25


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (external, "it refers to tensors in other files"),
        (nameless_external, "it refers to tensors in other files"),
        (two_gigabytes, r"a tensor of shape \[2147483648\] has \d+ bytes"),
        (custom_operator, "it has an operator of 'evil'"),
        (unknown_operator, "operator 'Run' is not one of axond's"),
        (large_constant, "operator 'ConstantOfShape' is not one of axond's"),
        (endless_loop, "operator 'Loop' is not one of axond's"),
        (function, "it has an odd part 25"),
        (scan_in_scan, "operator 'Scan' is not one of axond's"),
        (wide_padding, "an operator has a size of more than 4096"),
        (typed_data, "it has an odd part 7"),
        (no_graph, "it has 0 graphs"),
        (newer_operators, "onnxruntime refuses"),
        (other_input, "onnx"),
    ],
)
def test_what_axond_does_not_compile_is_refused(spoil: Callable[[onnx.ModelProto], None], sentence: str) -> None:
    model = onnx.load_from_string(STEP)
    spoil(model)
    with pytest.raises(BadModel, match=sentence) as error:
        OnnxBackend().load_step(model.SerializeToString(), NET, "made")
    assert "\n" not in str(error.value)


def test_what_axond_compiles_is_taken() -> None:
    for model in WHOLE:
        check(model, "made")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(range(len(STEP))), st.binary(min_size=1, max_size=3))
def test_a_damaged_graph_is_taken_or_refused(at: int, other: bytes) -> None:
    backend = OnnxBackend()
    try:
        backend.load_step(STEP[:at] + other + STEP[at + len(other) :], NET, "made")
    except BadModel as error:
        assert len(str(error)) < 2000
    finally:
        backend.close()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BadModel):
        check(content, "made")
