"""Branches side by side are, in integers and in NIR, the layers that training had."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch (extra 'train') is not installed")

from models import network, nir_graph  # noqa: E402
from models.quantize import quantize  # noqa: E402
from models.train import export, loop  # noqa: E402
from models.train.conv import ConvSpec  # noqa: E402
from models.train.fused import Branch, FusedSnn, settle  # noqa: E402
from models.train.lif import LayerSpec  # noqa: E402

READOUT = LayerSpec(neurons=3, k_u=2800, k_v=3800, limit=1.0)
HEARING = (LayerSpec(7, 2000, 3200, 1.0), LayerSpec(5, 2100, 3100, 1.0, recurrent=True))
SIGHT = (ConvSpec(3, 3, 2, 1, 1500, 3000, 1.0), ConvSpec(2, 2, 1, 0, 1400, 2900, 1.0))


def made(*branches: Branch) -> FusedSnn:
    loop.start(2)
    branches = branches or (Branch("hearing", 11, HEARING), Branch("sight", (2, 6, 6), SIGHT))
    return FusedSnn(branches, READOUT, 20, gain=1.0, dropout=0.0)


def rasters(seed: int) -> loop.Rasters:
    return (np.random.default_rng(seed).random((9, 20, 11 + 72)) < 0.3).astype(np.uint8)


def settled() -> FusedSnn:
    net, x = made(), loop.to_steps(rasters(0))
    settle(net, [x[:, :, :11], x[:, :, 11:]])
    return net


def test_the_layers_of_the_branches_stand_side_by_side() -> None:
    net = export.integer_network(made())
    assert [layer.name for layer in net.layers] == ["hearing0", "sight0", "hearing1", "sight1", "readout"]
    assert net.stages == ((0, 1), (2, 3), (4,))
    assert [layer.inputs for layer in net.layers] == [11, 72, 7, 27, 13]
    assert [layer.conv is not None for layer in net.layers] == [False, True, False, True, False]
    assert all(np.abs(layer.w_in).max() == 127 for layer in net.layers[:2]), "each has a grid of its own"


def test_the_integer_network_decides_as_the_trained_one() -> None:
    net = settled()
    some = np.concatenate([rasters(seed) for seed in range(1, 12)])
    said, _ = loop.predict_integer(export.integer_network(net), some)
    assert (said == loop.predict(net, some)).all()
    assert len(set(said.tolist())) > 1, "the same answer to everything would prove nothing"


def test_a_sensor_that_is_missing_changes_nothing_of_the_other() -> None:
    net = settled()
    x = loop.to_steps(rasters(2))
    deaf = x.clone()
    deaf[:, :, :11] = 0
    with torch.no_grad():
        both, alone = net.spikes(x), net.spikes(deaf)
    assert torch.equal(both[:, :, 5:], alone[:, :, 5:])
    assert alone[:, :, 5:].any()
    assert not alone[:, :, :5].any()
    assert len(net.rates) == 2, "nothing is to be learned from the neurons of a sensor that is missing"


def test_what_is_over_sooner_is_read_out_like_what_is_followed_by_silence() -> None:
    net, x = settled(), loop.to_steps(rasters(3))
    x[12:] = 0
    with torch.no_grad():
        short, whole = net.spikes(x[:12]), net.spikes(x)
        assert torch.equal(short[:12], whole[:12])
        whole[12:] = 0
        assert torch.equal(short, whole)
        assert torch.equal(net.out(short), net.out(whole))
    assert short.any()


def test_settled_branches_spike_neither_always_nor_never() -> None:
    net = settled()
    with torch.no_grad():
        net.spikes(loop.to_steps(rasters(0)))
    assert all(0.05 < float(rate) < 0.2 for rate in net.rates)


def test_the_graph_has_the_integers_of_training(tmp_path: Path) -> None:
    net = settled()
    export.write_nir(net, tmp_path / "network.nir", dt_s=0.02)
    again = quantize(nir_graph.read(tmp_path / "network.nir"))
    assert network.save(again) == network.save(export.integer_network(net))


def test_a_convolution_needs_rows_and_columns() -> None:
    with pytest.raises(ValueError, match="without rows and columns"):
        made(Branch("hearing", 11, HEARING), Branch("sight", 7, SIGHT))


def test_branches_have_names_in_order_and_one_length() -> None:
    with pytest.raises(ValueError, match="not in the order of their names"):
        made(Branch("sight", 11, HEARING), Branch("hearing", (2, 6, 6), SIGHT))
    with pytest.raises(ValueError, match="have not as many layers"):
        made(Branch("hearing", 11, HEARING[:1]), Branch("sight", (2, 6, 6), SIGHT))
