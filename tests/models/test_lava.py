"""Lava against the reference, to the bit; and what is left of the sidecar when something dies. Skipped without Lava."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from models import network
from models.backends.lava import LavaBackend, home, python, unsupported
from models.backends.reference import ReferenceBackend
from models.base import BackendUnavailable, BadModel, State, Trace
from models.contract_networks import beside_network
from models.convolution import ConvShape
from models.network import DECAY_ONE, STATE_MAX, Layer, Network
from tests.conftest import eventually
from tests.models.exact import assert_equal, some_state
from tests.models.networks import random_network, random_raster

ROOT = Path(__file__).parents[2]
NETWORKS = int(os.environ.get("AXOND_LAVA_NETWORKS", "6"))
"""How many random networks; `make lava` asks for 50."""
SHARED_MEMORY = Path("/dev/shm")

installed = pytest.mark.skipif(
    not python(home()).exists(), reason=f"Lava is not installed ({home()} is not there): axond lava install"
)


@pytest.fixture
def lava() -> Iterator[LavaBackend]:
    backend = LavaBackend()
    yield backend
    backend.close()


def population(
    rng: np.random.Generator, w_in: np.ndarray, n: int, conv: ConvShape | None = None, **what: bool
) -> Layer:
    """A layer as Lava takes it: one threshold and one decay each for all of its neurons."""
    k_u, k_v = rng.integers(0, 3500), rng.integers(1, DECAY_ONE + 1)
    bias = rng.integers(-4096, 4096, n) << rng.integers(0, 3, n) if what["bias"] else np.zeros(n)
    return Layer(
        name="made",
        w_in=w_in,
        w_rec=rng.integers(-60, 61, (n, n)).astype(np.int8) if what["recurrent"] else None,
        k_u=np.full(n, k_u, np.int32),
        k_v=np.full(n, k_v, np.int32),
        bias=bias.astype(np.int32),
        v_th=None if what["integrator"] else np.full(n, rng.integers(1, 800), np.int32),
        conv=conv,
    )


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


def made(seed: int) -> Network:
    """Dense, recurrent or convolutional, of one to four layers."""
    rng = np.random.default_rng(seed)
    inputs = int(rng.integers(1, 40))
    layers = []
    if seed % 3 == 2:
        shape = ConvShape(
            (int(rng.integers(1, 4)), int(rng.integers(1, 9)), int(rng.integers(3, 9))),
            (int(rng.integers(1, 3)), int(rng.integers(1, 3))),
            (int(rng.integers(0, 3)), int(rng.integers(0, 3))),
        )
        size = (int(rng.integers(1, 6)), shape.in_shape[0], int(rng.integers(1, shape.in_shape[1] + 1)), 3)
        inputs = int(np.prod(shape.out_shape(size)))
        what = {"recurrent": False, "integrator": False, "bias": seed % 2 == 0}
        layers.append(population(rng, weights(rng, *size), inputs, shape, **what))
    depth = int(rng.integers(1, 4))
    for i in range(depth):
        n = int(rng.integers(1, 30))
        integrator = i == depth - 1 and seed % 2 == 0
        what = {"recurrent": seed % 3 == 1 and not integrator, "integrator": integrator, "bias": seed % 4 == 3}
        layers.append(population(rng, weights(rng, n, inputs), n, **what))
        inputs = n
    return network.check(Network(tuple(layers)))


@installed
@pytest.mark.parametrize("seed", range(NETWORKS))
def test_no_cell_of_a_random_network_differs(lava: LavaBackend, seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = made(seed)
    lava.load_network(net, "made")
    state = State.rest(net.neurons)
    assert_equal(lava, net, random_raster(rng, 40, net.features, 0.3), state)
    assert_equal(lava, net, random_raster(rng, 7, net.features, 0.5), state)
    assert_equal(lava, net, random_raster(rng, 1, net.features, 0.5), some_state(rng, net))
    spikes = assert_equal(lava, net, random_raster(rng, 30, net.features, 0.2), some_state(rng, net)).spikes
    assert any(layer.any() for layer in spikes) or net.layers[0].v_th is None


@installed
def test_longer_than_the_shared_memory(lava: LavaBackend) -> None:
    net = made(1)
    lava.load_network(net, "made")
    assert_equal(lava, net, random_raster(np.random.default_rng(0), 600, net.features), State.rest(net.neurons))


@installed
@pytest.mark.parametrize("value", [-128, 0, 127])
def test_the_ends_of_the_numbers(lava: LavaBackend, value: int) -> None:
    """Weights of one sign (Lava would guess another format), a bias of 2^19 - 128, no decay, the highest threshold."""
    n = 3
    full = {"k_u": np.zeros(n, np.int32), "k_v": np.full(n, DECAY_ONE, np.int32)}
    bias = np.array([4095 * 128, -4096 * 128, 3], np.int32)
    w_in, kernel = np.full((n, 24), value, np.int8), np.full((1, 2, 2, 2), value, np.int8)
    image = ConvShape((2, 2, 4), (1, 1), (0, 0))
    first = Layer("image", kernel, None, **full, bias=np.zeros(n, np.int32), v_th=np.full(n, 1, np.int32), conv=image)
    last = Layer("top", w_in[:, :3], None, **full, bias=bias, v_th=np.full(n, network.THRESHOLD_MAX, np.int32))
    for layer in (first, last):
        net = network.check(Network((layer,)))
        lava.load_network(net, "made")
        assert_equal(lava, net, np.ones((30, net.features), np.uint8), State.rest(net.neurons))


@installed
def test_an_integrator_saturates_without_a_spike(lava: LavaBackend) -> None:
    layer = Layer(
        "out",
        np.array([[127], [-127]], np.int8),
        None,
        np.full(2, 4000, np.int32),
        np.full(2, DECAY_ONE, np.int32),
        np.zeros(2, np.int32),
        None,
    )
    net = network.check(Network((layer,)))
    lava.load_network(net, "made")
    trace = assert_equal(lava, net, np.ones((100, 1), np.uint8), State.rest(net.neurons))
    assert trace.v[0][-1].tolist() == [STATE_MAX, -STATE_MAX]


@installed
def test_a_current_beyond_24_bits_is_no_silent_difference(lava: LavaBackend) -> None:
    layer = Layer(
        "wide",
        np.full((1, 20), 127, np.int8),
        None,
        np.full(1, 4060, np.int32),
        np.full(1, 100, np.int32),
        np.zeros(1, np.int32),
        np.full(1, 3000, np.int32),
    )
    net = network.check(Network((layer,)))
    lava.load_network(net, "made")
    state = State.rest(net.neurons)
    assert_equal(lava, net, np.ones((10, 20), np.uint8), state)
    before = state.copy()
    with pytest.raises(BackendUnavailable, match="layer 'wide': a synaptic current left the 24 bits"):
        lava.infer(np.ones((100, 20), np.uint8), state)
    assert all(np.array_equal(a, b) for a, b in zip(state.arrays(), before.arrays(), strict=True))
    assert_equal(lava, net, np.ones((10, 20), np.uint8), State.rest(net.neurons))


@pytest.mark.parametrize(
    ("field", "values", "reason"),
    [
        ("v_th", [5, 6], "more than one threshold"),
        ("k_u", [5, 6], "more than one tau_syn"),
        ("k_v", [5, 6], "more than one tau_mem"),
        ("k_u", [4096, 4096], "never decays"),
        ("k_v", [0, 0], "forgets its potential"),
        ("bias", [0, 4097], "a bias that is no 13-bit number"),
        ("bias", [0, -4096 * 256], "a bias that is no 13-bit number"),
    ],
)
def test_says_what_lava_cannot_take(lava: LavaBackend, field: str, values: list[int], reason: str) -> None:
    fields = {"k_u": [5, 5], "k_v": [6, 6], "bias": [0, 0], "v_th": [9, 9]}

    def net(**changed: list[int]) -> Network:
        arrays = {name: np.array(numbers, np.int32) for name, numbers in (fields | changed).items()}
        return Network((Layer("a", np.ones((2, 3), np.int8), None, **arrays),))

    assert unsupported(net()) is None
    assert reason in str(unsupported(net(**{field: values})))
    with pytest.raises(BadModel, match=f"made: layer 'a' .*{reason}"):
        lava.load_network(net(**{field: values}), "made")


def test_without_lava_it_says_what_to_do(lava: LavaBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXOND_LAVA", str(tmp_path))
    with pytest.raises(BackendUnavailable, match=r"Lava is not installed .*: axond lava install"):
        lava.load_network(made(0), "made")
    with pytest.raises(BackendUnavailable, match="no network loaded"):
        lava.infer(np.zeros((1, made(0).features), np.uint8))
    assert "axond lava install" in str(LavaBackend.survey().missing)


@installed
def test_survey_finds_the_version() -> None:
    survey = LavaBackend.survey()
    assert survey.missing is None
    assert survey.runtime.startswith("Lava 0.")


AGENT = """
import os, sys
import numpy as np
from models.backends.lava import LavaBackend
from tests.models.test_lava import made
lava, net = LavaBackend(), made(1)
lava.load_network(net, "made")
print("loaded", flush=True)
while True:
    lava.infer(np.ones((100, net.features), np.uint8))
"""


def gone(process: psutil.Process) -> bool:
    """True for a zombie as well: whether somebody reaps an orphan is not ours."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@installed
@pytest.mark.parametrize("victim", ["agent", "sidecar"])
def test_kill_nine_leaves_no_process_and_no_segment(victim: str) -> None:
    segments = set(SHARED_MEMORY.glob("psm_*"))
    agent = subprocess.Popen([sys.executable, "-c", AGENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "loaded\n"
        family = psutil.Process(agent.pid).children(recursive=True)
        sidecar = family[0]
        assert len(family) > 4
        assert set(SHARED_MEMORY.glob("psm_*")) == segments
        (agent if victim == "agent" else sidecar).kill()
        eventually(lambda: all(map(gone, family)), "all processes end", 10)
    finally:
        agent.kill()
        agent.communicate()
    assert set(SHARED_MEMORY.glob("psm_*")) == segments


@installed
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_of_the_network_that_dies_or_hangs(lava: LavaBackend, number: signal.Signals) -> None:
    net = made(1)
    lava.load_network(net, "made")
    raster = random_raster(np.random.default_rng(0), 20, net.features)
    lava.infer(raster)
    family = [
        each
        for each in psutil.Process().children(recursive=True)
        if any("lava_sidecar" in part for part in each.cmdline())
    ]
    state = some_state(np.random.default_rng(0), net)
    before = state.copy()
    os.kill(family[-1].pid, number)
    with pytest.raises(BackendUnavailable, match="the process of Lava "):
        lava.infer(raster, state)
    assert all(np.array_equal(a, b) for a, b in zip(state.arrays(), before.arrays(), strict=True))
    eventually(lambda: all(map(gone, family)), "all processes end", 10)
    lava.load_network(net, "made")
    assert_equal(lava, net, raster, state)


CHIP = """
import io, mmap, os, sys
import numpy as np
sys.path.insert(0, sys.argv[1] + "/models/lava_sidecar")
from serve import _find_models
_find_models()
from models.lava_sidecar import chip, graph, layout, memory
with open(sys.argv[2], "rb") as file:
    stages = graph.read(file.read())
raster, neurons = np.load(sys.argv[3]), [graph.neurons_of(layer) for stage in stages for layer in stage]
steps, features = raster.shape
shared = layout.views(memoryview(mmap.mmap(-1, layout.bytes_of(features, neurons, steps))), features, neurons, steps)
with memory.contained():
    network = chip.Chip(stages, shared, board=False)
for _ in range(2):
    shared.raster[:] = raster
    network.run(steps)
np.savez(sys.argv[4], *[each for p in shared.populations for each in (p.u, p.v, p.s)])
os._exit(0)
"""


@installed
@pytest.mark.parametrize("net", [made(0), made(4), beside_network()], ids=["0", "4", "side by side"])
def test_stepping_a_chip_is_right_in_the_simulation(tmp_path: Path, net: Network) -> None:
    """The same code but for the board's input adapter; twice, the second time from rest again."""
    raster = random_raster(np.random.default_rng(0), 25, net.features, 0.4)
    (tmp_path / "net.npz").write_bytes(network.save(net))
    np.save(tmp_path / "raster.npy", raster)
    files = [tmp_path / "net.npz", tmp_path / "raster.npy", tmp_path / "found.npz"]
    subprocess.run([python(home()), "-E", "-s", "-c", CHIP, ROOT, *files], check=True, timeout=60)
    reference, expected = ReferenceBackend(), Trace.empty(len(raster), net.neurons)
    reference.load_network(net)
    reference.infer(raster, trace=expected)
    with np.load(tmp_path / "found.npz") as arrays:
        found = [arrays[name] for name in arrays.files]
    assert Trace(tuple(found[2::3]), tuple(found[0::3]), tuple(found[1::3])).differing_cells(expected) == 0
    assert any(layer.any() for layer in expected.spikes)


def test_random_networks_of_others_are_refused_with_a_reason() -> None:
    assert "more than one" in str(unsupported(random_network(np.random.default_rng(0))))
