"""Convolutions in training: the spikes of the float network are those of the exported integers, and NIR has them."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch (extra 'train') is not installed")

from models import batch, nir_graph  # noqa: E402
from models.quantize import quantize  # noqa: E402
from models.train import export, loop  # noqa: E402
from models.train.conv import START_RATE, ConvSnn, ConvSpec, settle  # noqa: E402
from models.train.lif import LayerSpec  # noqa: E402

CONVOLUTIONS = [ConvSpec(4, 3, 2, 1, k_u=1500, k_v=3000, limit=1.0), ConvSpec(6, 3, 1, 0, k_u=0, k_v=3000, limit=1.0)]
READOUT = LayerSpec(neurons=3, k_u=2800, k_v=3800, limit=1.0)
HIDDEN = [LayerSpec(neurons=12, k_u=1000, k_v=3400, limit=1.0, recurrent=True)]
SHAPE = (2, 9, 8)


def rasters(count: int, seed: int = 0) -> loop.Rasters:
    rng = np.random.default_rng(seed)
    return (rng.random((count, 12, 2 * 9 * 8)) < 0.2).astype(np.uint8)


def settled(hidden: list[LayerSpec]) -> ConvSnn:
    torch.manual_seed(1)
    net = ConvSnn(SHAPE, CONVOLUTIONS, hidden, READOUT, gain=1.0, dropout=0.0)
    settle(net, loop.to_steps(rasters(16)))
    return net


def test_training_begins_with_spikes_in_every_layer() -> None:
    net = settled(HIDDEN)
    with torch.no_grad():
        net(loop.to_steps(rasters(16)))
    assert len(net.rates) == 3
    assert all(START_RATE / 2 < float(rate) < START_RATE * 2 for rate in net.rates)


def test_integers_are_what_was_trained() -> None:
    for hidden in ([], HIDDEN):
        net = settled(hidden)
        network = export.integer_network(net)
        assert [layer.conv is not None for layer in network.layers] == [True, True, *[False] * (len(hidden) + 1)]
        seen = rasters(20, seed=3)
        potentials, _ = batch.run(network, seen)
        with torch.no_grad():
            logits = net(loop.to_steps(seen)).numpy()
        unit = float(net.out.scale()) * 128 * seen.shape[1]
        # The integers truncate their decays, the float network does not: now and then a spike comes a step later.
        assert np.median(np.abs(potentials / unit - logits)) < 0.002 * np.abs(logits).max()
        assert (potentials.argmax(1) == logits.argmax(1)).mean() >= 0.95


def test_the_graph_quantises_to_the_same_integers(tmp_path: Path) -> None:
    for hidden in ([], HIDDEN):
        net = settled(hidden)
        export.write_nir(net, tmp_path / "network.nir", dt_s=0.02)
        found, wanted = quantize(nir_graph.read(tmp_path / "network.nir")), export.integer_network(net)
        for mine, theirs in zip(found.layers, wanted.layers, strict=True):
            assert mine.conv == theirs.conv
            for field in ("w_in", "w_rec", "k_u", "k_v", "bias", "v_th"):
                a, b = getattr(mine, field), getattr(theirs, field)
                assert (a is None and b is None) or np.array_equal(a, b)


def test_a_convolution_learns_where_something_is() -> None:
    """A blob in the left, the middle or the right third, anywhere in height."""
    rng = loop.start(2)
    labels = rng.integers(0, 3, 256)
    images = rng.random((256, 12, 2, 9, 8)) < 0.02
    for i, label in enumerate(labels):
        row, column = rng.integers(0, 7), 3 * label
        images[i, :, 0, row : row + 2, column : column + 2] |= rng.random((12, 2, 2)) < 0.6
    seen = images.reshape(256, 12, -1).astype(np.uint8)
    net = settled([])
    loop.fit(
        net,
        lambda _epoch: (seen[:192], labels[:192]),
        lambda x: x,
        epochs=12,
        batch=32,
        peak_rate=5e-3,
        weight_decay=0.0,
        averaged_epochs=1,
        report=lambda *_: None,
    )
    said, _ = loop.predict_integer(export.integer_network(net), seen[192:])
    assert (said == labels[192:]).mean() > 0.9
