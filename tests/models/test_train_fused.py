"""A layer of blocks is, in integers, the dense layer that it says it is."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch (extra 'train') is not installed")

from models.train import export, loop  # noqa: E402
from models.train.fused import BlockLayer, ConvBlock, DenseBlock, FusedSnn, settle  # noqa: E402
from models.train.lif import LayerSpec  # noqa: E402

NEURONS = LayerSpec(neurons=0, k_u=2000, k_v=3200, limit=1.0)
READOUT = LayerSpec(neurons=3, k_u=2800, k_v=3800, limit=1.0)


def network() -> FusedSnn:
    loop.start(3)
    layers = [
        [DenseBlock(7), ConvBlock(channels=3, kernel=3, stride=2, padding=1)],
        [DenseBlock(5, recurrent=True), ConvBlock(channels=2, kernel=2, stride=1, padding=0)],
    ]
    return FusedSnn([11, (2, 6, 6)], layers, NEURONS, READOUT, gain=1.0, dropout=0.0)


def rasters(seed: int) -> loop.Rasters:
    return (np.random.default_rng(seed).random((9, 20, 11 + 72)) < 0.3).astype(np.uint8)


def test_no_weight_joins_two_sensors_before_the_readout() -> None:
    layer = network().hidden[1]
    assert isinstance(layer, BlockLayer)
    w_in, w_rec, _ = layer.integers()
    assert w_in.shape == (5 + 2 * 2 * 2, 7 + 3 * 3 * 3)
    assert not w_in[:5, 7:].any() and not w_in[5:, :7].any()
    assert w_in[:5, :7].any() and w_in[5:, 7:].any()
    assert w_rec is not None and w_rec[:5, :5].any()
    assert not w_rec[5:].any() and not w_rec[:, 5:].any()


def test_the_integer_network_decides_as_the_trained_one() -> None:
    net = network()
    settle(net, loop.to_steps(rasters(0)))
    some = rasters(1)
    said, _ = loop.predict_integer(export.integer_network(net), some)
    assert (said == loop.predict(net, some)).all()
    assert len(set(said.tolist())) > 1, "the same answer to everything would prove nothing"


def test_settled_blocks_spike_neither_always_nor_never() -> None:
    net = network()
    x = loop.to_steps(rasters(2))
    settle(net, x)
    with torch.no_grad():
        for layer in net.populations:
            x = layer(x)
            for part in x.split(layer.sizes, dim=2):
                assert 0.05 < float(part.mean()) < 0.2


def test_a_convolution_needs_rows_and_columns() -> None:
    with pytest.raises(ValueError, match="without rows and columns"):
        FusedSnn([5, 7], [[DenseBlock(2), ConvBlock(2, 3, 1, 1)]], NEURONS, READOUT, gain=1.0, dropout=0.0)
