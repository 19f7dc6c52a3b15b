"""Files that are no graph, or more than one: each is refused in one sentence that names the file and the part."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import nir_graph
from models.base import BadModel
from tests.models import networks

DT_S = 0.01


@pytest.fixture(scope="module")
def content() -> bytes:
    out = io.BytesIO()
    nir.write(out, networks.nir_graph(np.random.default_rng(0)))
    return out.getvalue()


def refused(path: Path, reason: str) -> None:
    with pytest.raises(BadModel, match=reason) as caught:
        nir_graph.read(path, DT_S)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def edited(path: Path, content: bytes, change: Callable[[Any], None]) -> Path:
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace(file: Any, name: str, value: Any) -> None:
    del file[name]
    file[name] = value


W = "node/nodes/fc1/weight"


def external_link(file: Any) -> None:
    replace(file, W, h5py.ExternalLink("/etc/passwd", "/"))


def soft_link(file: Any) -> None:
    replace(file, W, h5py.SoftLink("/node/nodes/fc2/weight"))


def external_storage(file: Any) -> None:
    del file[W]
    file.create_dataset(W, (8, 6), "f8", external=[("/etc/passwd", 0, 384)])


def virtual(file: Any) -> None:
    del file[W]
    layout = h5py.VirtualLayout((8, 6), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (8, 6))
    file.create_virtual_dataset(W, layout)


def huge(file: Any) -> None:
    del file[W]
    file.create_dataset(W, (1 << 20, 1 << 20), "f8", chunks=(1024, 1024))


def endless(file: Any) -> None:
    file["node/nodes/fc1/inner"] = file["node"]


def objects(file: Any) -> None:
    del file[W]
    file.create_dataset(W, (4,), h5py.ref_dtype)


def several_inputs(file: Any) -> None:
    file.copy("node/nodes/input", "node/nodes/second")


def no_node(file: Any) -> None:
    del file["node"]


def delay(file: Any) -> None:
    replace(file, "node/nodes/fc1/type", "Delay")


def made_up(file: Any) -> None:
    replace(file, "node/nodes/fc1/type", "os.system")


def no_type(file: Any) -> None:
    del file["node/nodes/fc1/type"]


def shapes_of_a_neuron(file: Any) -> None:
    replace(file, "node/nodes/lif1/tau_mem", np.ones(3))


def missing_weight(file: Any) -> None:
    del file[W]


def loose_edge(file: Any) -> None:
    edges = [("input", "fc1"), ("fc1", "nowhere")]
    replace(file, "node/edges", np.array(edges, dtype="S10"))


def huge_input(file: Any) -> None:
    replace(file, "node/nodes/input/shape", np.array([1 << 40, 1 << 20]))


def broken_input(file: Any) -> None:
    replace(file, "node/nodes/input/shape", np.array([np.nan]))


def subtract(file: Any) -> None:
    replace(file, "node/metadata/dt", DT_S)
    file["node/metadata/reset"] = "subtract"


def single_node(file: Any) -> None:
    file.move("node/nodes/fc1", "alone")
    del file["node"]
    file.move("alone", "node")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external_link, "/node/nodes/fc1/weight is a link"),
        (soft_link, "/node/nodes/fc1/weight is a link"),
        (external_storage, "/node/nodes/fc1/weight keeps its values in another file"),
        (virtual, "/node/nodes/fc1/weight keeps its values in another file"),
        (huge, "/node/nodes/fc1/weight declares .* more than"),
        (endless, "nested more than 24 deep"),
        (objects, "/node/nodes/fc1/weight holds object, expected numbers"),
        (several_inputs, "node 'second' leads nowhere while others beside it go on"),
        (no_node, "it has no group 'node'"),
        (delay, "node 'fc1' is a Delay, which axond cannot map yet"),
        (made_up, "node 'fc1' is a os.system, which axond cannot map yet"),
        (no_type, "not a NIR graph"),
        (shapes_of_a_neuron, "not a NIR graph .*same shape"),
        (missing_weight, "not a NIR graph .*weight"),
        (loose_edge, "an edge leads from 'fc1' to 'nowhere'"),
        (huge_input, "node 'input' shape is .*at most"),
        (broken_input, "node 'input' shape is .*expected whole numbers"),
        (subtract, "reset is 'subtract'; axond maps 'zero' only"),
        (single_node, "not a NIR graph"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_file_that_no_graph_needs(tmp_path: Path, content: bytes, change: Any, reason: str) -> None:
    refused(edited(tmp_path / "net.nir", content, change), reason)


def test_missing_empty_and_cut_files(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path / "absent.nir", "no such file")
    refused(tmp_path, "no such file")
    for length in (0, 8, 100, len(content) // 2, len(content) - 1):
        path = tmp_path / "cut.nir"
        path.write_bytes(content[:length])
        refused(path, "not a NIR graph")


@given(at=st.integers(0, 1 << 20), value=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_flipped_bytes_give_a_graph_or_one_sentence(
    content: bytes, tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.nir"
    wrong = bytearray(content)
    wrong[at % len(wrong)] ^= value
    path.write_bytes(bytes(wrong))
    try:
        nir_graph.read(path, DT_S)
    except BadModel as error:
        assert str(path) in str(error)  # both ends are right
        assert "\n" not in str(error)


def nested(inner: Any, **outer: Any) -> Any:
    nodes = {"input": nir.Input(np.array([2])), "part": inner, "output": nir.Output(np.array([2])), **outer}
    return nir.NIRGraph(nodes, [("input", "part"), ("part", "output")], type_check=False)


def if_pair() -> dict[str, Any]:
    return {"a": nir.IF(np.ones(2), np.ones(2), np.zeros(2))}


def test_graphs_inside_the_graph(tmp_path: Path) -> None:
    door = {"in": nir.Input(np.array([2])), "out": nir.Output(np.array([2]))}
    inner = nir.NIRGraph({**door, **if_pair()}, [("in", "a"), ("a", "out")])
    nir.write(str(tmp_path / "net.nir"), nested(inner))
    assert [layer.name for layer in nir_graph.read(tmp_path / "net.nir", 1.0).layers] == ["part.a"]
    with pytest.raises(BadModel, match=r"two nodes are called 'part\.a'"):
        nir_graph.convert(nested(inner, **{"part.a": nir.Scale(np.ones(2))}), 1.0, "made")
    past = nir.NIRGraph({**door, **if_pair()}, [("in", "a"), ("a", "out"), ("in", "out")], type_check=False)
    with pytest.raises(BadModel, match="'part' inside the graph leads past its nodes"):
        nir_graph.convert(nested(past), 1.0, "made")
    doors = {**door, "in2": nir.Input(np.array([2]))}
    two = nir.NIRGraph({**doors, **if_pair()}, [("in", "a"), ("in2", "a"), ("a", "out")], type_check=False)
    with pytest.raises(BadModel, match="'part' inside the graph must have one Input"):
        nir_graph.convert(nested(two), 1.0, "made")


def chain(edges: list[tuple[str, str]], **nodes: Any) -> Any:
    ends = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    return nir.NIRGraph({**ends, **nodes}, edges, type_check=False)


def fires() -> Any:
    return nir.IF(np.ones(2), np.ones(2), np.zeros(2))


@pytest.mark.parametrize(
    ("edges", "reason"),
    [
        ([("input", "w"), ("w", "x"), ("x", "w"), ("w", "a"), ("a", "b"), ("b", "output")], "2 inputs, expected one"),
        ([("w", "x"), ("x", "w"), ("w", "a"), ("input", "b"), ("b", "output")], "node '.' "),
        ([("x", "w"), ("w", "x"), ("x", "a"), ("a", "b"), ("b", "output")], "loop without neurons"),
        ([("input", "a"), ("a", "b"), ("b", "w"), ("w", "a"), ("b", "output")], "node 'b' feeds back into"),
        ([("input", "a"), ("input", "b"), ("b", "output")], "node 'input' drives several populations"),
        ([("input", "a"), ("a", "w"), ("w", "a"), ("a", "x"), ("x", "a"), ("a", "output")], "several recurrent"),
        ([("input", "a"), ("a", "output"), ("b", "output")], "node 'b'|not a chain|expected one Output"),
        ([("input", "a"), ("a", "w"), ("w", "output")], "node 'w' leads to no neurons"),
        ([("input", "output")], "not a chain of populations"),
        ([("input", "a"), ("a", "b")], "expected one Output node, behind"),
    ],
)  # fmt: skip
def test_wirings_that_are_no_chain(edges: list[tuple[str, str]], reason: str) -> None:
    graph = chain(edges, a=fires(), b=fires(), w=nir.Linear(np.eye(2)), x=nir.Linear(np.eye(2)))
    used = {name for edge in edges for name in edge}
    graph.nodes = {name: node for name, node in graph.nodes.items() if name in used | {"input", "output"}}
    with pytest.raises(BadModel, match=reason):
        nir_graph.convert(graph, 1.0, "made")


def test_a_batch_of_one_in_front_of_the_input_is_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    neurons = nir.IF(np.ones((2, 4, 4)), np.ones((2, 4, 4)), np.zeros((2, 4, 4)))
    conv = nir.Conv2d((4, 4), rng.normal(size=(2, 1, 3, 3)), 1, 1, 1, 1, np.zeros(2))
    nodes = {
        "input": nir.Input(np.array([1, 1, 4, 4])),
        "c": conv,
        "n": neurons,
        "output": nir.Output(np.array([1, 2, 4, 4])),
    }
    nir.write(
        str(tmp_path / "net.nir"), nir.NIRGraph(nodes, [("input", "c"), ("c", "n"), ("n", "output")], type_check=False)
    )
    net = nir_graph.read(tmp_path / "net.nir", 1.0)
    assert net.layers[0].conv is not None
    assert net.layers[0].conv.in_shape == (1, 4, 4)
