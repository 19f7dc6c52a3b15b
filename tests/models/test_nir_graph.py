"""NIR import: equations against recorded traces, and what is refused."""

from pathlib import Path

import nir
import numpy as np
import pytest

from models import float_network, nir_graph
from models.backends.reference import ReferenceBackend
from models.base import BadModel
from models.datasets.load import find
from models.quantize import quantize
from tests.models import networks


@pytest.fixture
def recorded() -> Path:
    folder = find("nir_reference")
    if folder is None:
        pytest.skip("no recordings: nir_reference is neither in AXOND_DATA nor in ../shared/data")
    return folder


def test_braille_reproduces_the_recorded_snntorch_spikes(recorded: Path) -> None:
    net = nir_graph.read(recorded / "braille_noDelay_bias_zero.nir", 1e-4)
    sample = np.load(recorded / "braille_sample0.npy")
    activity = np.load(recorded / "snntorch_activity_noDelay_bias_zero.npy").astype(bool)
    trace = float_network.run(net, sample[None])
    assert trace.spikes[0][0].size == 9728
    assert int((trace.spikes[0][0] != activity).sum()) == 0


@pytest.mark.parametrize(("trace", "tolerance"), [("lif_exact.csv", 0.01), ("lif_norse.csv", 1e-6)])
def test_lif_reproduces_its_recorded_trace(recorded: Path, trace: str, tolerance: float) -> None:
    net = nir_graph.read(recorded / "lif.nir", 1e-4)
    given, potential, spikes = np.genfromtxt(recorded / trace, delimiter=",").T
    mine = float_network.run(net, given[None, :, None])
    assert int((mine.spikes[0][0, :, 0] != spikes.astype(bool)).sum()) == 0
    assert float(np.abs(mine.v_last[0, :, 0] - potential).max()) < tolerance


def test_braille_int8_is_close_to_float(recorded: Path) -> None:
    net = nir_graph.read(recorded / "braille_noDelay_bias_zero.nir", 1e-4)
    archive = np.load(recorded / "braille.npz")
    rasters, labels = np.unpackbits(archive["X"], axis=1)[:100], archive["Y"][:100]
    backend = ReferenceBackend()
    backend.load_network(quantize(net, "neuron"))
    right = 0
    for raster, label in zip(rasters, labels, strict=True):
        right += int(backend.infer(raster).sum(axis=0).argmax() == label)
    in_float = int((float_network.run(net, rasters).readout.argmax(axis=1) == labels).sum())
    assert in_float >= 93
    assert abs(right - in_float) <= 2


def test_a_written_graph_is_read_back_with_its_time_step(tmp_path: Path) -> None:
    nir.write(str(tmp_path / "net.nir"), networks.nir_graph(np.random.default_rng(0)))
    net = nir_graph.read(tmp_path / "net.nir")
    assert net.dt_s == 0.01
    assert [layer.name for layer in net.layers] == ["lif1", "out"]
    assert net.layers[0].w_rec is not None
    assert net.layers[1].threshold is None
    assert np.allclose(net.layers[0].decay_i, 0.5)
    assert np.allclose(net.layers[0].gain_i * net.layers[0].gain_v, 1.0)


def test_on_grid_weights_survive_quantisation_and_spike_alike() -> None:
    """What quantisation-aware training exports: the integer network then differs by truncation only."""
    rng = np.random.default_rng(4)
    graph = networks.nir_graph(rng)
    for name in ("fc1", "fc2"):
        weight = graph.nodes[name].weight
        steps = np.rint(weight / np.abs(weight).max() * 127)
        graph.nodes[name].weight = steps / 100.0
    graph.nodes["rec"].weight = np.rint(graph.nodes["rec"].weight * 100) / 100.0
    net = nir_graph.convert(graph, 0.01, "made")
    integer = quantize(net)
    assert np.array_equal(integer.layers[0].w_in, np.rint(graph.nodes["fc1"].weight * 100))
    raster = networks.random_raster(rng, 60, 6, 0.2)
    backend = ReferenceBackend()
    backend.load_network(integer)
    potentials = backend.infer(raster).sum(axis=0)
    readout = float_network.run(net, raster[None]).readout[0]
    assert np.corrcoef(potentials, readout)[0, 1] > 0.999


def test_the_time_step_must_be_known(tmp_path: Path) -> None:
    graph = networks.nir_graph(np.random.default_rng(0))
    graph.metadata = {}
    nir.write(str(tmp_path / "net.nir"), graph)
    with pytest.raises(BadModel, match=r"does not state its time step"):
        nir_graph.read(tmp_path / "net.nir")


def test_refusals_name_the_node_and_the_reason(tmp_path: Path) -> None:
    graph = networks.nir_graph(np.random.default_rng(0))
    graph.nodes["wait"] = nir.Delay(np.array([0.1]))
    with pytest.raises(BadModel, match=r"node 'wait' is a Delay"):
        nir_graph.convert(graph, 0.01, "made")

    graph = networks.nir_graph(np.random.default_rng(0))
    graph.nodes["fc1"].weight[0, 0] = np.nan
    with pytest.raises(BadModel, match=r"node 'fc1': weights must be finite"):
        nir_graph.convert(graph, 0.01, "made")

    graph = networks.nir_graph(np.random.default_rng(0))
    graph.nodes["last"] = nir.Linear(np.ones((5, 3)))
    graph.edges = [*(e for e in graph.edges if e[1] != "output"), ("out", "last"), ("last", "output")]
    with pytest.raises(BadModel, match=r"node 'last' leads to no neurons"):
        nir_graph.convert(graph, 0.01, "made")

    with pytest.raises(BadModel, match=r"node 'lif1': tau_mem of 0.05 s is shorter than the time step"):
        nir_graph.convert(networks.nir_graph(np.random.default_rng(0)), 0.1, "made")

    garbage = tmp_path / "garbage.nir"
    garbage.write_bytes(b"not HDF5")
    with pytest.raises(BadModel, match=r"garbage.nir: not a NIR graph"):
        nir_graph.read(garbage, 0.01)


def test_quantiser_refuses_what_integers_cannot_say() -> None:
    graph = networks.nir_graph(np.random.default_rng(0))
    graph.nodes["lif1"].v_reset = np.full(8, 0.5)
    with pytest.raises(BadModel, match=r"layer 'lif1': reset to 0.5"):
        quantize(nir_graph.convert(graph, 0.01, "made"))

    graph = networks.nir_graph(np.random.default_rng(0))
    graph.nodes["lif1"].v_threshold = np.full(8, 1e6)
    with pytest.raises(BadModel, match=r"layer 'lif1': the threshold 1e\+06 of neuron 0"):
        quantize(nir_graph.convert(graph, 0.01, "made"))
