"""Training on a 4-bit grid against rounding to it afterwards, on made data."""

from pathlib import Path

import numpy as np
import pytest

from models import batch, nir_graph
from models.base import BadModel
from models.network import Network
from models.quantize import quantize

pytest.importorskip("torch", reason="torch (extra 'train') is not installed")
from models.train import export, loop  # behind the skip
from models.train.lif import LayerSpec, Snn

CLASSES, STEPS, FEATURES = 4, 20, 16


def items(rng: np.random.Generator, count: int) -> tuple[loop.Rasters, loop.Labels]:
    """Noisy copies of four random rasters, with spikes missing and spikes too many."""
    prototypes = np.random.default_rng(3).random((CLASSES, STEPS, FEATURES)) < 0.22
    labels = rng.integers(0, CLASSES, count).astype(np.int64)
    kept = prototypes[labels] & (rng.random((count, STEPS, FEATURES)) < 0.7)
    return (kept | (rng.random(kept.shape) < 0.12)).astype(np.uint8), labels


def trained(bits: int) -> Snn:
    rng = loop.start(0)
    given = items(rng, 512)
    hidden = LayerSpec(24, 2000, 3000, 1.0, weight_bits=bits)
    net = Snn(FEATURES, [hidden], LayerSpec(CLASSES, 2000, 3500, 1.0, weight_bits=bits), gain=0.8, dropout=0.0)
    loop.fit(
        net, lambda _: given, lambda x: x, epochs=12, batch=64, peak_rate=1e-2, weight_decay=0.0, averaged_epochs=1,
        report=lambda *_: None,
    )  # fmt: skip
    return net


def accuracy(network: Network) -> float:
    rasters, labels = items(np.random.default_rng(9), 600)
    return float((batch.run(network, rasters)[0].argmax(axis=1) == labels).mean())


def through_nir(net: Snn, path: Path, bits: int) -> Network:
    export.write_nir(net, path, dt_s=0.01)
    return quantize(nir_graph.read(path), "layer", bits)  # type: ignore[arg-type]


def test_training_on_the_grid_beats_rounding_afterwards(tmp_path: Path) -> None:
    afterwards = through_nir(trained(8), tmp_path / "eight.nir", 4)
    aware = trained(4)
    mine = export.integer_network(aware)
    assert all(np.abs(layer.w_in).max() == 7 for layer in mine.layers)
    assert accuracy(mine) >= accuracy(afterwards) + 0.03
    read = through_nir(aware, tmp_path / "four.nir", 4)
    for a, b in zip(mine.layers, read.layers, strict=True):
        assert np.array_equal(a.w_in, b.w_in)
        assert (a.v_th is None and b.v_th is None) or np.array_equal(a.v_th, b.v_th)  # type: ignore[arg-type]


def test_less_than_a_batch_cannot_be_trained_with() -> None:
    rng = loop.start(0)
    net = Snn(FEATURES, [], LayerSpec(CLASSES, 2000, 3500, 1.0), gain=0.8, dropout=0.0)
    with pytest.raises(BadModel, match="5 windows to train with are less than one batch of 64"):
        loop.fit(
            net, lambda _: items(rng, 5), lambda x: x, epochs=1, batch=64, peak_rate=1e-2, weight_decay=0.0,
            averaged_epochs=1, report=lambda *_: None,
        )  # fmt: skip
