"""TFLite against the reference, to the bit, and files that are no step graph: refused, and no crash."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import network
from models.backends.reference import ReferenceBackend
from models.backends.tflite import TfliteBackend, unsupported
from models.base import BackendUnavailable, BadModel, State, Trace
from models.compile.tflite import compile_step
from models.compile.tflite_writer import GraphWriter
from models.convolution import ConvShape
from models.network import DECAY_ONE, STATE_MAX, WEIGHT_SHIFT, Layer, Network
from models.registry import open_bundle
from models.select import load_backend
from tests.models import networks
from tests.models.networks import random_network, random_raster

ROOT = Path(__file__).parents[2]
GROUPS, OF_A_GROUP = 12, 10
STEPS = 12
NET = random_network(np.random.default_rng(3))

pytestmark = pytest.mark.skipif(bool(TfliteBackend.survey().missing), reason=str(TfliteBackend.survey().missing))


@pytest.fixture
def tflite() -> Iterator[TfliteBackend]:
    backend = TfliteBackend()
    yield backend
    backend.close()


def neurons(rng: np.random.Generator, w_in: np.ndarray, n: int, conv: ConvShape | None, *, last: bool) -> Layer:
    """``n`` neurons with parameters of all sizes, the ends of their ranges among them."""
    k_u = rng.integers(0, 4090, n) if rng.random() < 0.6 else np.zeros(n)
    k_v = rng.choice([0, 1, 4095, DECAY_ONE, *rng.integers(0, DECAY_ONE + 1, 6)], n)
    bias = rng.integers(-50000, 50000, n) if rng.random() < 0.4 else np.zeros(n)
    spiking = not last or rng.random() < 0.5
    recurrent = spiking and n <= 64 and rng.random() < 0.5
    return Layer(
        name="made",
        w_in=w_in,
        w_rec=weights(rng, n, n) if recurrent else None,
        k_u=k_u.astype(np.int32),
        k_v=(np.full(n, DECAY_ONE) if rng.random() < 0.2 else k_v).astype(np.int32),
        bias=bias.astype(np.int32),
        v_th=rng.integers(1, 3000, n).astype(np.int32) if spiking else None,
        conv=conv,
    )


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


def convolution(rng: np.random.Generator, image: tuple[int, int, int], *, last: bool) -> Layer:
    padding = int(rng.integers(0, 3)), int(rng.integers(0, 3))
    height, width = (min(int(rng.integers(1, 5)), n + 2 * p) for n, p in zip(image[1:], padding, strict=True))
    kernel = weights(rng, int(rng.integers(1, 5)), image[0], height, width)
    shape = ConvShape(image, (int(rng.integers(1, 4)), int(rng.integers(1, 4))), padding)
    return neurons(rng, kernel, int(np.prod(shape.out_shape(kernel.shape))), shape, last=last)


def images(n: int) -> list[tuple[int, int, int]]:
    """Every image of ``n`` cells."""
    return [(c, h, n // c // h) for c in range(1, n + 1) if n % c == 0 for h in range(1, n // c + 1) if n // c % h == 0]


def any_network(rng: np.random.Generator) -> Network:
    """One to four layers, each dense or a convolution that takes what is before it for any image of that size."""
    size = int(rng.integers(1, 60))
    layers: list[Layer] = []
    depth = int(rng.integers(1, 5))
    for i in range(depth):
        last = i == depth - 1
        if rng.random() < 0.5:
            n = int(rng.integers(1, 40))
            layers.append(neurons(rng, weights(rng, n, size), n, None, last=last))
        else:
            choice = images(size)
            layers.append(convolution(rng, choice[int(rng.integers(len(choice)))], last=last))
        size = layers[-1].neurons
    return network.check(Network(tuple(layers)))


def farthest_state(rng: np.random.Generator, net: Network) -> State:
    """Potentials at the ends of their range, and currents as far as they can be without leaving 32 bits in a step."""
    state = State.rest(net.neurons)
    for i, layer in enumerate(net.layers):
        gain = np.abs(layer.w_in.astype(np.int64)).sum(axis=tuple(range(1, layer.w_in.ndim))).max()
        gain += 0 if layer.w_rec is None else np.abs(layer.w_rec.astype(np.int64)).sum(axis=1).max()
        most = (1 << 31) - 1 - (int(gain) << WEIGHT_SHIFT) - 2 * STATE_MAX - int(np.abs(layer.bias).max())
        state.u[i][:] = rng.choice([-most, most, *rng.integers(-most, most, 8)], layer.neurons)
        state.v[i][:] = rng.choice([-STATE_MAX, STATE_MAX, *rng.integers(-STATE_MAX, STATE_MAX, 8)], layer.neurons)
        if layer.v_th is not None:
            state.s[i][:] = rng.integers(0, 2, layer.neurons)
    return state


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_networks_differ_in_no_cell(tflite: TfliteBackend, group: int) -> None:
    rng = np.random.default_rng((77, group))
    reference = ReferenceBackend()
    for _ in range(OF_A_GROUP):
        net = any_network(rng)
        tflite.load_step(compile_step(net), net, "made")
        reference.load_network(net)
        for start in (State.rest(net.neurons), farthest_state(rng, net)):
            raster = random_raster(rng, STEPS, net.features, 0.4)
            here, there = start.copy(), start.copy()
            mine, expected = (Trace.empty(STEPS, net.neurons) for _ in range(2))
            outputs = tflite.infer(raster, here, mine)
            assert np.array_equal(outputs, reference.infer(raster, there, expected))
            assert mine.differing_cells(expected) == 0
            assert all(np.array_equal(a, b) for a, b in zip(here.arrays(), there.arrays(), strict=True))


def test_the_random_networks_are_of_every_kind() -> None:
    nets = [any_network(np.random.default_rng((77, group))) for group in range(60)]
    layers = [layer for net in nets for layer in net.layers]
    chained = [pair for net in nets for pair in zip(net.layers, net.layers[1:], strict=False)]
    assert any(layer.w_rec is not None and layer.conv is None for layer in layers)
    assert any(layer.w_rec is not None and layer.conv is not None for layer in layers)
    assert any(a.conv and b.conv and a.conv.out_shape(a.w_in.shape) != b.conv.in_shape for a, b in chained)
    assert any(net.layers[-1].conv is not None for net in nets)
    assert all(unsupported(net) is None for net in nets)


def test_every_trained_bundle_answers_its_golden_vectors() -> None:
    for name in ("activity", "spoken-digits"):
        load_backend(open_bundle(name, []), "tflite")[1].close()


def test_the_same_network_gives_the_same_bytes_in_every_process() -> None:
    program = (
        "import hashlib, numpy as np; from tests.models.networks import random_network;"
        "from models.compile.tflite import compile_step;"
        "print(hashlib.sha256(compile_step(random_network(np.random.default_rng(3)))).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == hashlib.sha256(compile_step(NET)).hexdigest()


def test_a_bundle_without_the_artefact_is_named_and_auto_goes_on(tmp_path: Path) -> None:
    made = networks.write_bundle(tmp_path / "made", NET)
    files = {name: made.artefact(name) for name in made.manifest.files if name != "model.tflite"}
    without = networks.bundle.write(tmp_path / "without", networks.manifest(NET), files)
    with pytest.raises(BadModel, match=r"the bundle has no model\.tflite; build it anew"):
        load_backend(without, "tflite")
    kind, backend = load_backend(without, ["tflite", "reference"])
    backend.close()
    assert kind == "reference"


def test_the_graph_of_another_network_is_refused(tflite: TfliteBackend) -> None:
    for other, odd in (
        (random_network(np.random.default_rng(3), 25), "x"),
        (random_network(np.random.default_rng(3), hidden=(9,)), "state"),
    ):
        with pytest.raises(BadModel, match=rf"model\.tflite is no step graph of network\.npz \(see its '{odd}'\)"):
            tflite.load_step(compile_step(other), NET, "made")


def test_no_runtime_at_all(tflite: TfliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TfliteBackend.survey().runtime.startswith(("ai-edge-litert ", "tflite-runtime "))
    assert TfliteBackend.survey().missing is None
    for module in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailable, match=r"neither .* is installed: pip install 'axond\[tflite\]'"):
        tflite.load_step(compile_step(NET), NET, "made")
    assert "pip install" in str(TfliteBackend.survey().missing)


@pytest.mark.skipif(np.__version__.startswith("1."), reason="numpy 1 is what tflite-runtime wants")
def test_the_old_runtime_beside_a_new_numpy(
    tflite: TfliteBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tflite_runtime").mkdir()
    (tmp_path / "tflite_runtime" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(BackendUnavailable, match=r"tflite-runtime works with numpy 1 only, here is numpy 2"):
        tflite.load_step(compile_step(NET), NET, "made")


def evil(write: Callable[[GraphWriter, int, int], int]) -> bytes:
    """A file with the right inputs, and the output that ``write`` makes of ``x`` and ``state``."""
    g = GraphWriter()
    n = 3 * sum(NET.neurons)
    g.output(write(g, g.input("x", (1, NET.features), np.float32), g.input("state", (1, n), np.int32)))
    return g.finish("evil")


def ints(g: GraphWriter, values: Any) -> int:
    return g.constant("c", np.array(values, np.int32))


def image(g: GraphWriter, x: int) -> int:
    return g.op("RESHAPE", [x, ints(g, [1, 4, 6, 1])], np.float32, (1, 4, 6, 1))


def out(g: GraphWriter, kind: str, inputs: list[int], **how: Any) -> int:
    """The last operator: its output is of the right shape and type."""
    return g.op(kind, inputs, np.int32, (1, 3 * sum(NET.neurons)), name="state_out", **how)


EVIL: dict[str, tuple[Callable[[GraphWriter, int, int], int], str]] = {
    "operator": (lambda g, _, s: out(g, "WHILE", [s]), "operator 119 is not one of axond's"),
    "custom operator": (lambda g, _, s: out(g, "CUSTOM", [s]), "operator 32 is not one of axond's"),
    "operand -1": (lambda g, _, s: out(g, "ADD", [s, -1], options="AddOptions"), "ADD takes a tensor that nothing"),
    "operand later": (lambda g, _, s: out(g, "ADD", [s, 2], options="AddOptions"), "ADD takes a tensor that nothing"),
    "operand missing": (lambda g, _, s: out(g, "ADD", [s], options="AddOptions"), r"ADD of int32 \[1, 117\] cannot"),
    "operand of another type": (
        lambda g, x, s: out(g, "ADD", [s, x], options="AddOptions"), r"ADD of int32 .*, float32 .* cannot give int32"
    ),
    "division by zero": (lambda g, _, s: out(g, "DIV", [s, ints(g, [0])], options="DivOptions"), "DIV of"),
    "two gigabytes": (
        lambda g, x, s: g.op(
            "PAD", [image(g, x), ints(g, [[0, 0], [30000, 0], [30000, 0], [0, 0]])], np.float32, (1, 30004, 30006, 1),
            options="PadOptions",
        ),
        "its tensors have more than",
    ),
    "margin below zero": (
        lambda g, x, s: g.op(
            "PAD", [image(g, x), ints(g, [[0, 0], [-1, 0], [0, 0], [0, 0]])], np.float32, (1, 3, 6, 1),
            options="PadOptions",
        ),
        "PAD of",
    ),
    "bias too short": (
        lambda g, x, s: g.op(
            "CONV_2D",
            [image(g, x), g.constant("w", np.ones((9, 1, 1, 1), np.float32)), g.constant("b", np.ones(1, np.float32))],
            np.float32, (1, 4, 6, 9), options="Conv2DOptions", Padding=1, StrideH=1, StrideW=1,
        ),
        "CONV_2D of",
    ),
    "places outside": (
        lambda g, x, s: g.op(
            "GATHER", [x, ints(g, [24])], np.float32, (1, 1), options="GatherOptions", Axis=1
        ),
        "GATHER of",
    ),
    "pieces that overlap": (
        lambda g, x, s: g.op(
            "SPLIT_V", [x, ints(g, [25, -1]), ints(g, [1])], np.float32, (1, 25), (1, 1), options="SplitVOptions",
            NumSplits=2,
        ),
        "SPLIT_V of",
    ),
    "nothing written": (lambda g, x, s: s, "see its 'state_out'"),
}  # fmt: skip


@pytest.mark.parametrize("what", EVIL)
def test_a_graph_that_the_runtime_must_not_see(tflite: TfliteBackend, what: str) -> None:
    write, reason = EVIL[what]
    with pytest.raises(BadModel, match=rf"^made: model\.tflite is no step graph of network\.npz \({reason}") as error:
        tflite.load_step(evil(write), NET, "made")
    assert "\n" not in str(error.value)


DAMAGE = """
import sys
import numpy as np
from models.backends.tflite import TfliteBackend
from models.base import BackendUnavailable, BadModel
from models.compile.tflite import compile_step
from tests.models.networks import random_network

net = random_network(np.random.default_rng(3))
good = compile_step(net)
rng = np.random.default_rng(int(sys.argv[1]))
refused = ran = 0
for turn in range(int(sys.argv[2])):
    bad = bytearray(good)
    if turn % 4 == 0:
        bad = bytearray(rng.bytes(int(rng.integers(1, 5000))))
        bad[4:8] = b"TFL3"
    elif turn % 4 == 1:
        del bad[int(rng.integers(1, len(bad))):]
    elif turn % 4 == 2:
        bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
    else:
        at = 4 * int(rng.integers(len(bad) // 4))
        word = int(rng.choice([-1, 0, 1, 127, 2**31 - 1, -2**31, rng.integers(-300, 300)]))
        bad[at:at + 4] = word.to_bytes(4, "little", signed=True)
    backend = TfliteBackend()
    try:
        backend.load_step(bytes(bad), net, "made")
        backend.infer(np.ones((2, net.features), np.uint8))
        ran += 1
    except (BadModel, BackendUnavailable) as error:
        refused += 1
        assert "\\n" not in str(error)
    backend.close()
print(refused, ran)
"""


def test_random_damage_never_crashes_the_process() -> None:
    told = subprocess.run(
        [sys.executable, "-c", DAMAGE, "1", "600"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert told.returncode == 0, told.stderr[-2000:]
    refused, ran = map(int, told.stdout.split())
    assert refused > 300
    # What changes weights or decays only is a step graph still; the golden vectors find it.
    assert ran > 30
