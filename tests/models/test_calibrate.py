"""Quantisation: the batch arithmetic, the choice of scales, and what they lose, on made and on reference networks."""

from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest

from models import batch, nir_graph
from models.backends.reference import ReferenceBackend
from models.base import BadModel, Trace
from models.calibrate import calibrate, float_decisions, temperature
from models.datasets.load import find
from models.float_network import FloatNetwork
from models.network import STATE_MAX
from models.quantize import quantize, quantize_layer
from tests.models import networks


def recorded(name: str) -> Path:
    folder = find(name)
    if folder is None:
        pytest.skip(f"no recordings: {name} is neither in AXOND_DATA nor in ../shared/data")
    return folder


def made(seed: int = 0, outlier: float = 1.0) -> FloatNetwork:
    graph = networks.nir_graph(np.random.default_rng(seed), hidden=20)
    graph.nodes["fc1"].weight[0, 0] *= outlier
    return nir_graph.convert(graph, 0.01, "made")


def rasters(seed: int, count: int, features: int = 6, steps: int = 40) -> np.ndarray:  # type: ignore[type-arg]
    return (np.random.default_rng(seed).random((count, steps, features)) < 0.2).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_batches_equal_the_reference_cell_by_cell(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = networks.random_network(rng, recurrent=seed % 2 == 0, integrator=seed < 2, bias=seed == 3)
    given = rasters(seed, 5, 24)
    backend = ReferenceBackend()
    backend.load_network(net)
    traces = [Trace.empty(40, net.neurons) for _ in given]
    expected = [backend.infer(one, trace=trace) for one, trace in zip(given, traces, strict=True)]
    potentials, reach = batch.run(net, given)
    assert np.array_equal(potentials, [out.sum(axis=0) for out in expected])
    for i, one in enumerate(reach):
        assert one.u_seen == max(int(np.abs(trace.u[i]).max()) for trace in traces)
        assert one.u_seen <= one.u_bound
        assert one.v_seen <= min(one.v_bound, STATE_MAX)


def test_the_bound_of_u_is_met_by_the_worst_input() -> None:
    net = networks.random_network(np.random.default_rng(1), hidden=(4,), recurrent=False)
    layer = net.layers[0]
    worst = (layer.w_in > 0).astype(np.uint8)
    _, reach = batch.run(net, np.repeat(worst[:, None], 400, axis=1))
    positive = int((layer.w_in.astype(int) * worst).sum(axis=1).max())
    assert reach[0].u_seen == positive << 7
    assert reach[0].u_bound >= reach[0].u_seen


def test_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = networks.random_network(np.random.default_rng(2)), rasters(3, 7, 24)
    whole = batch.run(net, given)
    monkeypatch.setattr(batch, "MOST_CELLS", 40 * 24 * 2)
    parts = batch.run(net, given)
    assert np.array_equal(parts[0], whole[0])
    assert parts[1] == whole[1]


@pytest.mark.parametrize("bits", [8, 4])
def test_an_outlier_makes_calibration_cut_the_grid(bits: int) -> None:
    """One large weight coarsens all others; the rasters show that cutting it is better."""
    net, given = made(outlier=30.0), rasters(1, 40)
    plain, fitted = calibrate(net, "layer", bits), calibrate(net, "layer", bits, given)  # type: ignore[arg-type]
    assert plain.clips == (1.0, 1.0)
    assert bits == 8 or fitted.clips[0] < 1.0
    float_spikes = batch_spikes(net, given)
    errors = [
        int(np.count_nonzero(batch.run_layer(q.network.layers[0], given).out != float_spikes)) for q in (plain, fitted)
    ]
    assert errors[1] <= errors[0] if bits == 8 else errors[1] < errors[0]
    assert fitted.spikes_differ == errors[1] / float_spikes.size
    assert (fitted.rounding[0].clipped > 0) == (fitted.clips[0] < 1.0)
    assert np.abs(fitted.network.layers[0].w_in).max() == (127 if bits == 8 else 7)


def batch_spikes(net: FloatNetwork, given: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    from models import float_network

    return float_network.run(net, given).spikes[0]


def test_without_rasters_calibration_is_plain_quantisation() -> None:
    net = made()
    for granularity in ("layer", "neuron"):
        mine, plain = calibrate(net, granularity, 8).network, quantize(net, granularity)  # type: ignore[arg-type]
        assert all(np.array_equal(a.w_in, b.w_in) for a, b in zip(mine.layers, plain.layers, strict=True))


def test_thresholds_are_exact_where_neurons_share_one() -> None:
    net = made()
    for granularity in ("layer", "neuron"):
        _, loss = quantize_layer(net.layers[0], granularity, 8)  # type: ignore[arg-type]
        assert loss.threshold < 1e-4
        assert loss.weights < 0.01


def test_rounding_tells_what_was_lost() -> None:
    graph = networks.nir_graph(np.random.default_rng(0))
    graph.nodes["lif1"].v_threshold = np.linspace(0.5, 1.5, 8)
    graph.nodes["fc1"] = nir.Affine(graph.nodes["fc1"].weight, np.linspace(-0.1, 0.1, 8))
    layer = nir_graph.convert(graph, 0.01, "made").layers[0]
    integer, loss = quantize_layer(layer, "layer", 4)
    unit = loss.unit / 128
    effect = (layer.gain_i * layer.gain_v)[:, None] * layer.w_in
    recurrent = (layer.gain_i * layer.gain_v)[:, None] * layer.w_rec
    errors = np.concatenate([(integer.w_in / unit - effect).ravel(), (integer.w_rec / unit - recurrent).ravel()])
    peak = max(np.abs(effect).max(), np.abs(recurrent).max())
    assert loss.weights == pytest.approx(np.sqrt((errors**2).mean()) / peak)
    assert loss.threshold == pytest.approx(np.abs(integer.v_th / (2 * unit) / layer.threshold - 1).max())
    assert loss.threshold > 0
    assert 0 < loss.bias < 0.01
    assert loss.clipped == 0


def test_a_neuron_without_weights_is_silent_and_a_layer_without_is_refused() -> None:
    graph = networks.nir_graph(np.random.default_rng(0))
    graph.nodes["fc1"].weight[2] = 0
    graph.nodes["rec"].weight[2] = 0
    net = quantize(nir_graph.convert(graph, 0.01, "made"), "neuron")
    assert not net.layers[0].w_in[2].any()
    graph.nodes["fc2"].weight[:] = 0
    with pytest.raises(BadModel, match="layer 'out': all weights are zero"):
        quantize(nir_graph.convert(graph, 0.01, "made"))


def test_an_integrator_before_the_last_layer_is_refused_with_and_without_rasters() -> None:
    network = made()
    first = replace(network.layers[0], threshold=None)
    broken = replace(network, layers=(first, *network.layers[1:]))
    for given in (None, rasters(1, 4)):
        with pytest.raises(BadModel, match="is an integrator, which can only be the last layer"):
            calibrate(broken, "layer", 8, given)


def test_temperature_fits_the_scores_to_how_often_they_are_right() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 3, 4000)
    logits = rng.normal(0, 2, (4000, 3))
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (chance.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    potentials = np.rint(logits * 5000).astype(np.int64)
    assert temperature(potentials, truth) == pytest.approx(5000, rel=0.15)
    assert temperature(potentials, None) == pytest.approx(np.median(np.diff(np.sort(potentials), axis=1)[:, -1]))


@pytest.mark.parametrize("name", ["braille_noDelay_bias_zero", "braille_noDelay_noBias_subtract"])
def test_braille_int8_stays_within_half_a_point(name: str) -> None:
    """One scale per neuron; calibrated on every seventh sample, judged on the others."""
    folder = recorded("nir_reference")
    archive = np.load(folder / "braille.npz")
    given, labels = np.unpackbits(archive["X"], axis=1), archive["Y"]
    net = nir_graph.read(folder / f"{name}.nir", 1e-4)
    apart = np.arange(len(labels)) % 7 == 0
    in_float = float((float_decisions(net, given[~apart]) == labels[~apart]).mean())
    fitted = calibrate(net, "neuron", 8, given[apart]).network
    in_integers = float((batch.run(fitted, given[~apart])[0].argmax(axis=1) == labels[~apart]).mean())
    assert in_float > (0.955 if "zero" in name else 0.97)
    assert abs(in_integers - in_float) <= 0.005
