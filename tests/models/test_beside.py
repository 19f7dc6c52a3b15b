"""Layers side by side are, in every number, one layer that has their synapses as blocks and nothing between them."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from models import batch, float_network, network, nir_graph, statistics
from models.backends.onnx import OnnxBackend
from models.backends.reference import ReferenceBackend
from models.backends.tflite import TfliteBackend
from models.base import Backend, BadModel, State, Trace
from models.build import build_graph
from models.calibrate import calibrate
from models.compile.artefacts import artefacts
from models.contract_networks import beside_network, convolution_network, plain_network
from models.convolution import matrix
from models.energy import operations
from models.network import DECAY_ONE, THRESHOLD_SHIFT, WEIGHT_SHIFT, Layer, Network
from models.stages import Wire
from tests.models.networks import random_raster

ZOO = Path(__file__).parents[2] / "models" / "zoo"
STEPS = 50
DT_S = 0.01


def diagonal(parts: list[np.ndarray]) -> np.ndarray:
    whole = np.zeros(np.sum([part.shape for part in parts], axis=0), np.int8)
    row = column = 0
    for part in parts:
        whole[row : row + len(part), column : column + part.shape[1]] = part
        row, column = row + len(part), column + part.shape[1]
    return whole


def written_out(net: Network) -> Network:
    """The same with one dense layer for each stage."""
    layers = []
    for stage in net.stages:
        parts = [net.layers[i] for i in stage]
        back = [np.zeros((one.neurons,) * 2, np.int8) if one.w_rec is None else one.w_rec for one in parts]
        vectors: dict[str, Any] = {
            field: None if parts[0].v_th is None else np.concatenate([getattr(one, field) for one in parts])
            for field in ("k_u", "k_v", "bias", "v_th")
        }
        vectors |= {field: np.concatenate([getattr(one, field) for one in parts]) for field in ("k_u", "k_v", "bias")}
        w_in = [one.w_in if one.conv is None else matrix(one.w_in, one.conv) for one in parts]
        name = "+".join(one.name for one in parts)
        w_rec = diagonal(back)
        layers.append(Layer(name, diagonal(w_in), w_rec if w_rec.any() else None, **vectors))
    return network.check(Network(tuple(layers)))


def ran(backend: Backend, net: Network, raster: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The output, and the spikes of each stage."""
    trace = Trace.empty(len(raster), net.neurons)
    outputs = backend.infer(raster, State.rest(net.neurons), trace)
    return outputs, [np.concatenate([trace.spikes[i] for i in stage], axis=1) for stage in net.stages]


def reference(net: Network, _: dict[str, bytes]) -> Backend:
    made = ReferenceBackend()
    made.load_network(net)
    return made


def onnx(net: Network, files: dict[str, bytes]) -> Backend:
    made = OnnxBackend()
    made.load_step(files["model.onnx"], net, "made")
    return made


def tflite(net: Network, files: dict[str, bytes]) -> Backend:
    made = TfliteBackend()
    made.load_step(files["model.tflite"], net, "made")
    return made


@pytest.mark.parametrize("opened", [reference, onnx, tflite])
def test_they_spike_as_the_layer_written_out(opened: Callable[[Network, dict[str, bytes]], Backend]) -> None:
    net = beside_network()
    whole = written_out(net)
    assert len(whole.layers) == 3
    assert (whole.features, whole.classes) == (net.features, net.classes)
    backend, plain = opened(net, artefacts(net)), ReferenceBackend()
    plain.load_network(whole)
    for density in (0.05, 0.3, 0.9):
        raster = random_raster(np.random.default_rng(3), STEPS, net.features, density)
        outputs, spikes = ran(backend, net, raster)
        expected, expected_spikes = ran(plain, whole, raster)
        assert np.array_equal(outputs, expected)
        for mine, theirs in zip(spikes, expected_spikes, strict=True):
            assert np.array_equal(mine, theirs)
            assert mine.any()
    backend.close()


def test_all_that_is_worked_out_of_a_network_is_the_same() -> None:
    net = beside_network()
    whole = written_out(net)
    rasters = random_raster(np.random.default_rng(4), 6 * STEPS, net.features, 0.2).reshape(6, STEPS, -1)
    assert np.array_equal(batch.run(net, rasters)[0], batch.run(whole, rasters)[0])
    mine, theirs = (statistics.look(one, rasters) for one in (net, whole))
    assert np.array_equal(mine.phi, theirs.phi)
    assert np.array_equal(mine.hidden_rate, theirs.hidden_rate)
    counts = []
    for one in (net, whole):
        backend, trace = ReferenceBackend(), Trace.empty(STEPS, one.neurons)
        backend.load_network(one)
        backend.infer(rasters[0], trace=trace)
        counts.append(operations(one, rasters[0], trace))
    assert counts[0].synaptic == counts[1].synaptic > 0
    assert counts[0].spikes == counts[1].spikes
    assert counts[0].dense < counts[1].dense / 2


def test_a_graph_has_no_weight_between_the_sides() -> None:
    net = beside_network()
    files, whole = artefacts(net), artefacts(written_out(net))
    for name in ("model.onnx", "model.tflite"):
        assert len(files[name]) < len(whole[name]) / 1.5


def test_who_hears_whom() -> None:
    net = beside_network()
    image = net.layers[1].inputs
    assert net.stages == ((0, 1), (2, 3), (4,))
    raster, neurons = (slice(0, 8), slice(8, 8 + image)), (slice(0, 10), slice(10, 70), slice(0, 39))
    sources = ((), (), (0,), (1,), (2, 3))
    assert net.wires == tuple(map(Wire, (*raster, *neurons), sources))


def test_a_file_keeps_them_and_a_chain_has_the_names_it_always_had() -> None:
    net = beside_network()
    again = network.load(network.save(net), "made")
    assert [layer.beside for layer in again.layers] == [False, True, False, True, False]
    assert network.save(again) == network.save(net)
    assert again.stages == net.stages
    with np.load(io.BytesIO(network.save(plain_network()))) as arrays:
        assert arrays["layers"].tobytes() == b'["hidden", "out"]'


def changed(at: int, **fields: Any) -> Network:
    layers = list(beside_network().layers)
    layers[at] = replace(layers[at], **fields)
    return Network(tuple(layers))


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (changed(0, beside=True), "layer 'out': the first and the last layer cannot stand beside another one"),
        (changed(4, beside=True), "layer 'out': the first and the last layer cannot stand beside another one"),
        (
            changed(2, w_in=np.ones((7, 9), np.int8)),
            r"layer 'right' takes 9 inputs, but before it are 10 \+ 60 neurons; all of a layer",
        ),
        (changed(2, w_in=np.ones((7, 70), np.int8)), "layer 'image again' takes 60 inputs, but before it"),
        (changed(4, w_in=np.ones((3, 7), np.int8)), r"layer 'out' takes 7 inputs, but before it are 7 \+ 32 neurons"),
        (changed(3, beside=False), r"layer 'right' takes 10 inputs, but before it are 10 \+ 60 neurons"),
        (changed(1, v_th=None), "layer 'image' is an integrator, which can only be the last layer"),
    ],
)
def test_sides_that_do_not_fit_together(net: Network, reason: str) -> None:
    with pytest.raises(BadModel, match=reason):
        network.check(net)


def test_features_are_bounded_together() -> None:
    side = Layer("side", np.ones((1, 3 << 20), np.int8), *[None], *[np.zeros(1, np.int32)] * 3, np.ones(1, np.int32))
    top = Layer("top", np.ones((1, 2), np.int8), None, *[np.zeros(1, np.int32)] * 3, np.ones(1, np.int32))
    network.check(Network((side, replace(top, w_in=top.w_in[:, :1]))))
    with pytest.raises(BadModel, match="its stage has 6291456 inputs, expected 4194304 at most"):
        network.check(Network((side, replace(side, beside=True), top)))


def neurons(layer: Layer) -> Any:
    """The neurons of ``layer`` in NIR, for weights that are its integers."""
    n = layer.neurons
    tau_syn, tau_mem = (DT_S / (1 - k / DECAY_ONE) for k in (layer.k_u, layer.k_v))
    shared = {
        "tau_syn": tau_syn,
        "tau_mem": tau_mem,
        "w_in": tau_syn / DT_S,
        "r": tau_mem / DT_S,
        "v_leak": np.zeros(n),
    }
    if layer.v_th is None:
        return nir.CubaLI(**shared)
    level = layer.v_th.astype(np.float64) / (1 << (WEIGHT_SHIFT - THRESHOLD_SHIFT))
    return nir.CubaLIF(**shared, v_threshold=level, v_reset=np.zeros(n))


def graph(net: Network, inputs: tuple[str, str] = ("a", "b")) -> Any:
    """``net``, which is ``beside_network()``, as NIR has it: two chains that meet."""
    left, image, right, again, out = net.layers
    assert image.conv is not None
    assert again.conv is not None
    nodes = {
        inputs[0]: nir.Input({"input": np.array([left.inputs])}),
        inputs[1]: nir.Input({"input": np.array(image.conv.in_shape)}),
        "left_in": nir.Linear(left.w_in.astype(float)),
        "left_rec": nir.Linear(left.w_rec.astype(float)),  # type: ignore[union-attr]
        "right_in": nir.Linear(right.w_in.astype(float)),
        "out_right": nir.Linear(out.w_in[:, : right.neurons].astype(float)),
        "out_flat": nir.Flatten({"input": np.array(again.conv.out_shape(again.w_in.shape))}, start_dim=0),
        "out_again": nir.Linear(out.w_in[:, right.neurons :].astype(float)),
        "output": nir.Output({"output": np.array([out.neurons])}),
    }
    for layer in (image, again):
        shape = layer.conv
        assert shape is not None
        nodes[f"{layer.name}_in"] = nir.Conv2d(
            shape.in_shape[1:], layer.w_in.astype(float), shape.stride, shape.padding, 1, 1, np.zeros(len(layer.w_in))
        )
    nodes |= {layer.name: neurons(layer) for layer in net.layers}
    edges = [
        (inputs[0], "left_in"), ("left_in", "left"), ("left", "left_rec"), ("left_rec", "left"),
        (inputs[1], "image_in"), ("image_in", "image"), ("left", "right_in"), ("right_in", "right"),
        ("image", "image again_in"), ("image again_in", "image again"), ("right", "out_right"), ("out_right", "out"),
        ("image again", "out_flat"), ("out_flat", "out_again"), ("out_again", "out"), ("out", "output"),
    ]  # fmt: skip
    return nir.NIRGraph(nodes, edges, metadata={"dt": DT_S}, type_check=False)


def test_chains_of_a_graph_that_meet_become_layers_side_by_side(tmp_path: Path) -> None:
    net = beside_network()
    nir.write(str(tmp_path / "net.nir"), graph(net))
    floats = nir_graph.read(tmp_path / "net.nir")
    assert [(layer.name, layer.beside) for layer in floats.layers] == [(x.name, x.beside) for x in net.layers]
    rasters = random_raster(np.random.default_rng(5), 8 * STEPS, net.features, 0.2).reshape(8, STEPS, -1)
    made = calibrate(floats, "layer", 8, rasters)
    assert made.network.stages == net.stages
    for mine, theirs in zip(made.network.layers, net.layers, strict=True):
        # The largest weight becomes 127; in the made network it may be less.
        unit = 127 / max(np.abs(w).max() for w in (theirs.w_in, theirs.w_rec) if w is not None)
        assert np.abs(mine.w_in - unit * theirs.w_in).max() <= 1.0
        assert mine.conv == theirs.conv
    exact = float_network.run(floats, rasters)
    assert made.spikes_differ < 0.02
    assert np.array_equal(exact.spikes[1].shape, (8, STEPS, net.layers[1].neurons))
    said, _ = batch.run(net, rasters)
    assert (exact.readout == said).mean() > 0.9
    assert exact.readout.any()


def test_the_features_are_in_the_order_of_the_names_of_the_inputs() -> None:
    floats = nir_graph.convert(graph(beside_network(), ("z", "b")), DT_S, "made")
    assert [layer.name for layer in floats.layers] == ["image", "left", "image again", "right", "out"]
    assert [layer.beside for layer in floats.layers] == [False, True, False, True, False]


def without(*edges: tuple[str, str], more: tuple[tuple[str, str], ...] = ()) -> Any:
    made = graph(beside_network())
    made.edges = [*(edge for edge in made.edges if edge not in edges), *more]
    return made


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (without(("left", "right_in"), ("right_in", "right"), ("right", "out_right"), ("out_right", "out")),
         "node 'left' leads nowhere while others beside it go on"),
        (without(("right_in", "right"), more=(("image again", "right"),)), "drives several populations"),
        (without(("out_again", "out")), "node 'out_again' leads to no neurons|paths must be equally long"),
        (without(("image_in", "image"), more=(("image_in", "left"),)), "node 'left': what leads to it has"),
        (without(("out", "output"), more=(("right", "output"),)), "expected one Output node, behind"),
    ],
)  # fmt: skip
def test_chains_that_do_not_fit_together(made: Any, reason: str) -> None:
    with pytest.raises(BadModel, match=reason):
        nir_graph.convert(made, DT_S, "made")


def test_who_stands_between_two_others_cannot_be_left_out() -> None:
    spikes = nir.IF(np.ones(2), np.ones(2), np.zeros(2))
    nodes = {**{name: nir.Input(np.array([2])) for name in "abc"}, "outer": spikes, "inner": spikes, "top": spikes}
    nodes["output"] = nir.Output(np.array([2]))
    edges = [("a", "outer"), ("c", "outer"), ("b", "inner"), ("outer", "top"), ("inner", "top"), ("top", "output")]
    with pytest.raises(BadModel, match="node 'outer' hears populations that are not side by side"):
        nir_graph.convert(nir.NIRGraph(nodes, edges, type_check=False), DT_S, "made")
    edges[1:3] = [("b", "outer"), ("c", "inner")]
    floats = nir_graph.convert(nir.NIRGraph(nodes, edges, type_check=False), DT_S, "made")
    assert [(layer.name, layer.inputs) for layer in floats.layers] == [("outer", 4), ("inner", 2), ("top", 4)]


def test_many_large_identities_are_refused_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edge without a synapse is two numbers in the file and a matrix here."""
    monkeypatch.setattr(nir_graph, "MAX_CELLS", 10)
    spikes = nir.IF(np.ones(2), np.ones(2), np.zeros(2))
    nodes = {name: nir.Input(np.array([2])) for name in "abc"} | {f"behind {name}": spikes for name in "abc"}
    images = {name: nir.Input(np.array([1, 1, 2])) for name in "ab"} | {"both": spikes}
    edges = [("a", "both"), ("b", "both"), ("both", "output")]
    graph = nir.NIRGraph({**images, "output": nir.Output(np.array([2]))}, edges, type_check=False)
    assert nir_graph.convert(graph, DT_S, "made").layers[0].inputs == 4
    monkeypatch.setattr(nir_graph, "MAX_CELLS", 9)
    with pytest.raises(BadModel, match="made: its synapses have more than 9 weights in all"):
        nir_graph.convert(graph, DT_S, "made")
    monkeypatch.setattr(nir_graph, "MAX_CELLS", 10)
    edges = [(name, f"behind {name}") for name in "abc"]
    with pytest.raises(BadModel, match="made: its synapses have more than 10 weights in all"):
        nir_graph.convert(
            nir.NIRGraph({**nodes, "output": nir.Output(np.array([6]))}, edges, type_check=False), DT_S, "made"
        )


def test_a_convolution_may_hear_two_layers() -> None:
    """Its image is then the one's neurons above the other's."""
    top = convolution_network().layers[0]
    assert top.conv is not None
    rows = top.conv.in_shape[1] * top.conv.in_shape[2]
    rng = np.random.default_rng(8)
    side = beside_network().layers[2]
    vector = {field: np.repeat(getattr(side, field)[:1], rows) for field in ("k_u", "k_v", "bias", "v_th")}
    sides = [
        replace(side, name=f"plane{i}", w_in=rng.integers(-127, 128, (rows, 6)).astype(np.int8), beside=i > 0, **vector)
        for i in range(top.conv.in_shape[0])
    ]
    net = network.check(Network((*sides, top, convolution_network().layers[1])))
    raster = random_raster(rng, STEPS, net.features, 0.3)
    expected, spikes = ran(reference(net, {}), net, raster)
    assert spikes[1].any()
    files = artefacts(net)
    for opened in (onnx, tflite):
        outputs, found = ran(opened(net, files), net, raster)
        assert np.array_equal(outputs, expected)
        assert all(np.array_equal(a, b) for a, b in zip(found, spikes, strict=True))


def test_inputs_in_another_order_than_the_graphs_are_refused(tmp_path: Path) -> None:
    graph = ZOO / "fused-digits" / "network.nir"
    recipe = {"inputs": [{"name": "events"}, {"name": "audio"}]}
    with pytest.raises(BadModel, match=r"Inputs are audio, events .* the recipe's inputs are events, audio"):
        build_graph(graph, tmp_path / "m", recipe)


def test_a_long_list_of_names_is_refused_unread() -> None:
    names = json.dumps([["x"] * 30_000]).encode()
    content = network.write_npz({"layers": np.frombuffer(names, np.uint8)})
    with pytest.raises(BadModel, match="its layers must be 1 to 256 names"):
        network.load(content, "network.npz")
