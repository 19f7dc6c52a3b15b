"""Normalised convolutions in training: folded, they are the exported integers, biases and all, and NIR has them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch (extra 'train') is not installed")

from models import batch, build, nir_graph, statistics, teach  # noqa: E402
from models.backends.lava import _loihi_bias  # noqa: E402
from models.quantize import quantize  # noqa: E402
from models.train import export, loop  # noqa: E402
from models.train.conv import ConvSpec  # noqa: E402
from models.train.lif import LayerSpec, Lif  # noqa: E402
from models.train.normconv import NormConvSnn, rate  # noqa: E402

SHAPE = (2, 12, 8)
STEPS = 3
CONVOLUTIONS = [
    ConvSpec(8, 3, (2, 1), 1, k_u=0, k_v=3000, limit=1.0),
    ConvSpec(6, 3, (1, 2), 1, k_u=0, k_v=3000, limit=1.0),
]
READOUT = LayerSpec(neurons=5, k_u=0, k_v=3800, limit=1.0)
KEPT = 3


def images(labels: loop.Labels, rng: np.random.Generator) -> loop.Rasters:
    """One step each: a blob in the left, the middle or the right third, at any height."""
    made = rng.random((len(labels), *SHAPE)) < 0.03
    for image, label in zip(made, labels, strict=True):
        row, column = rng.integers(0, 10), 3 * (label % 3)
        image[0, row : row + 2, column : column + 2] |= rng.random((2, 2)) < 0.8
    return made.reshape(len(labels), 1, -1).astype(np.uint8)


@pytest.fixture(scope="module")
def trained() -> NormConvSnn:
    rng = loop.start(2)
    net = NormConvSnn(SHAPE, CONVOLUTIONS, READOUT, STEPS, dropout=0.1)
    labels = rng.integers(0, 3, 384)
    seen = images(labels, rng)

    net.grade(True)

    def items(epoch: int) -> tuple[loop.Rasters, loop.Labels]:
        if epoch == 5:
            net.grade(False)
        if epoch == 10:
            net.fold()
        return seen, labels

    loop.fit(
        net, items, lambda x: x,
        epochs=14, batch=32, peak_rate=5e-3, weight_decay=0.0, averaged_epochs=2, report=lambda *_: None,
    )  # fmt: skip
    net.out.keep(KEPT)
    return net


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_a_rate_is_the_line_through_the_stairs_of_the_spikes(steps: int) -> None:
    k_v = 0.75
    currents = torch.linspace(-0.5, 2, 501).reshape(1, 1, -1)
    spikes = Lif.apply(currents.expand(steps, -1, -1).contiguous(), None, 0.0, k_v, 1.0).mean(0)
    off = (rate(currents, steps, k_v)[0] - spikes).abs()
    assert float(off.max()) < 0.51, "the highest stair: from every second step to each"
    assert float(off.mean()) < 0.15
    assert float(off[0, :100].max()) == 0, "too little is nothing"
    assert float(off[0, -100:].max()) == 0, "much is a spike in each step"


@pytest.mark.parametrize("last_rate", [None, 2e-3])
def test_learning_ends_at_the_rate_that_was_said(last_rate: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.AdamW] = []
    adam = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *some, **named: made.append(adam(*some, **named)) or made[0])
    rng = loop.start(3)
    labels = rng.integers(0, 3, 64)
    seen = images(labels, rng)
    loop.fit(
        NormConvSnn(SHAPE, CONVOLUTIONS, READOUT, STEPS, dropout=0.1), lambda _: (seen, labels), lambda x: x,
        epochs=8, batch=32, peak_rate=5e-3, weight_decay=0.0, averaged_epochs=2, last_rate=last_rate,
        report=lambda *_: None,
    )  # fmt: skip
    assert made[0].param_groups[0]["lr"] == pytest.approx(last_rate or 0.0, abs=1e-4)


@pytest.fixture(scope="module")
def judged() -> tuple[loop.Rasters, loop.Labels]:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 3, 120)
    return images(labels, rng).repeat(STEPS, axis=1), labels


def test_it_learns_what_is_where_and_forgets_the_other_classes(
    trained: NormConvSnn, judged: tuple[loop.Rasters, loop.Labels]
) -> None:
    network = export.integer_network(trained)
    said, _ = loop.predict_integer(network, judged[0])
    assert network.classes == KEPT
    assert (said == judged[1]).mean() > 0.9


def test_integers_are_what_was_trained(trained: NormConvSnn, judged: tuple[loop.Rasters, loop.Labels]) -> None:
    potentials, _ = batch.run(export.integer_network(trained), judged[0])
    trained.eval()
    with torch.no_grad():
        once = trained(loop.to_steps(judged[0][:, :1])).numpy()
        logits = trained(loop.to_steps(judged[0])).numpy()
    assert np.array_equal(once, logits), "an image is shown for all steps"
    unit = float(trained.out.scale()) * 128 * STEPS / float(torch.exp(trained.log_gain.detach()))
    assert np.quantile(np.abs(potentials / unit - logits), 0.9) < 0.02 * np.abs(logits).max()
    assert (potentials.argmax(1) == logits.argmax(1)).mean() >= 0.95


def test_biases_are_in_use_and_fit_loihi(trained: NormConvSnn) -> None:
    for layer in export.integer_network(trained).layers[:-1]:
        assert len(np.unique(layer.bias)) > 1
        assert _loihi_bias(layer.bias)


def test_the_graph_quantises_to_the_same_integers(trained: NormConvSnn, tmp_path: Path) -> None:
    export.write_nir(trained, tmp_path / "network.nir", dt_s=0.001)
    found, wanted = quantize(nir_graph.read(tmp_path / "network.nir")), export.integer_network(trained)
    for mine, theirs in zip(found.layers, wanted.layers, strict=True):
        assert mine.conv == theirs.conv
        for field in ("w_in", "k_u", "k_v", "bias", "v_th"):
            a, b = getattr(mine, field), getattr(theirs, field)
            assert (a is None and b is None) or np.array_equal(a, b), field


def test_phi_is_the_mean_over_the_rows_where_the_readout_does_not_tell_them_apart(
    trained: NormConvSnn, judged: tuple[loop.Rasters, loop.Labels]
) -> None:
    network = export.integer_network(trained)
    channels, rows, columns = statistics.pooling(network)
    assert (channels, rows, columns) == (6, 6, 4)
    seen = statistics.look(network, judged[0])
    assert seen.phi.shape == (120, 24)
    weights = network.layers[-1].w_in.reshape(KEPT, 6, 6, 4)[:, :, 0].reshape(KEPT, -1).astype(np.float64)
    linear = statistics.unit(STEPS, network.layers[-1]) * rows * (seen.phi @ weights.T)
    assert np.abs(linear - seen.potentials).max() < 0.01 * np.abs(seen.potentials).max()
    untied = network.layers[-1].w_in.copy()
    untied[0, 0] ^= 1
    row = teach._for_all_rows(np.arange(24, dtype=np.int8), (6, 6, 4))
    child = teach._with_row(network, row, None)
    assert child.classes == KEPT + 1
    assert statistics.pooling(child) == (6, 6, 4), "what is taught does not tell the rows apart either"
    assert (child.layers[-1].w_in[-1].reshape(6, 6, 4)[3, 5] == [12, 13, 14, 15]).all()
    other = replace(network, layers=(*network.layers[:-1], replace(network.layers[-1], w_in=untied)))
    assert statistics.pooling(other) == (144, 1, 1)


def test_what_was_not_folded_has_no_integers() -> None:
    with pytest.raises(ValueError, match="fold first"):
        export.integer_network(NormConvSnn(SHAPE, CONVOLUTIONS, READOUT, STEPS, dropout=0.1))
    with pytest.raises(ValueError, match="k_u must be 0"):
        NormConvSnn(SHAPE, [replace(CONVOLUTIONS[0], k_u=1000)], READOUT, STEPS, dropout=0.1)


def test_golden_vectors_of_a_large_network_are_shorter(trained: NormConvSnn, monkeypatch: pytest.MonkeyPatch) -> None:
    network = export.integer_network(trained)
    assert build.golden(network).rasters.shape[1] == build.GOLDEN_STEPS
    cells = build.GOLDEN_VECTORS * (network.features + sum(network.neurons))
    monkeypatch.setattr(build, "GOLDEN_CELLS", 5 * cells)
    assert build.golden(network).rasters.shape[1] == 5
    monkeypatch.setattr(build, "GOLDEN_CELLS", 1)
    assert build.golden(network).rasters.shape[1] == 2
