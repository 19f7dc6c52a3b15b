"""Every linear node and every chain of them against torch in double precision; every neuron against its equations."""

import math
from types import SimpleNamespace
from typing import Any

import nir
import numpy as np
import pytest

from models import float_network, nir_graph
from models.base import BadModel
from models.convolution import convolve
from models.linear import MAX_CELLS
from models.nir_nodes import through

torch = pytest.importorskip("torch", reason="torch (extra 'train') is not installed")
from torch.nn import functional  # noqa: E402  # behind the skip

Chain = list[tuple[Any, Any]]
"""Nodes, each with the function of torch that it stands for."""


def conv2d(rng: np.random.Generator, channels: int) -> tuple[Any, Any, int]:
    groups = int(rng.choice([g for g in (1, 2, 3) if channels % g == 0]))
    out = groups * int(rng.integers(1, 4))
    weight = rng.normal(size=(out, channels // groups, *rng.integers(1, 4, 2)))
    bias, padding = rng.normal(size=out), tuple(rng.integers(0, 3, 2))
    stride, dilation = tuple(rng.integers(1, 4, 2)), tuple(rng.integers(1, 3, 2))
    node = nir.Conv2d(None, weight, stride, padding, dilation, groups, bias)

    def run(x: Any) -> Any:
        kernel = torch.from_numpy(weight)
        whole = [tuple(int(n) for n in pair) for pair in (stride, padding, dilation)]
        return functional.conv2d(x, kernel, torch.from_numpy(bias), *whole, groups)

    return node, run, out


def pool2d(rng: np.random.Generator) -> tuple[Any, Any]:
    size = tuple(int(n) for n in rng.integers(1, 4, 2))
    stride = tuple(int(n) for n in rng.integers(1, 4, 2))
    padding = tuple(int(rng.integers(0, n // 2 + 1)) for n in size)
    arrays = [np.array(pair) for pair in (size, stride, padding)]
    if rng.random() < 0.5:
        return nir.AvgPool2d(*arrays), lambda x: functional.avg_pool2d(x, size, stride, padding)
    area = math.prod(size)
    return nir.SumPool2d(*arrays), lambda x: functional.avg_pool2d(x, size, stride, padding) * area


def random_chain(rng: np.random.Generator, shape: tuple[int, int, int], length: int) -> tuple[Chain, Any]:
    """Nodes that fit behind one another, and what torch makes of a batch; shorter where an image becomes too small."""
    x = torch.from_numpy(rng.normal(size=(3, *shape)))
    chain: Chain = []
    for _ in range(length):
        kind = rng.integers(0, 4)
        if kind == 0:
            node, run = pool2d(rng)
        elif kind == 1:
            factor = rng.normal(size=x.shape[1])
            node, run = scale(np.broadcast_to(factor[:, None, None], x.shape[1:]))
        else:
            node, run, _ = conv2d(rng, x.shape[1])
        try:
            after = run(x)
        except RuntimeError:  # the image is too small for it
            continue
        chain.append((node, run))
        x = after
    return chain, x


def scale(factor: np.ndarray) -> tuple[Any, Any]:  # type: ignore[type-arg]
    return nir.Scale(factor.copy()), lambda x: x * torch.from_numpy(factor.copy())


def composed(chain: list[Any], x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:  # type: ignore[type-arg]
    synapse = None
    for i, node in enumerate(chain):
        synapse, shape = through(node, synapse, shape, f"node {i}:")
    assert synapse is not None
    result = synapse(x.reshape(len(x), -1))
    assert result.shape == (len(x), math.prod(shape)) == (len(x), synapse.neurons)
    return result


@pytest.mark.parametrize("seed", range(60))
def test_one_convolution_or_pool_equals_torch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 7)), int(rng.integers(5, 12)), int(rng.integers(5, 12)))
    x = rng.normal(size=(4, *shape))
    node, run = conv2d(rng, shape[0])[:2] if seed % 3 else pool2d(rng)
    expected = run(torch.from_numpy(x)).numpy()
    assert np.allclose(composed([node], x, shape), expected.reshape(4, -1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_one_dimensional_convolution_equals_torch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels, groups = (4, 2) if seed % 2 else (3, 1)
    weight, bias = rng.normal(size=(6, channels // groups, 3)), rng.normal(size=6)
    stride, padding, dilation = (int(n) for n in rng.integers((1, 0, 1), (4, 3, 3)))
    node = nir.Conv1d(None, weight, stride, padding, dilation, groups, bias)
    x = rng.normal(size=(4, channels, 17))
    kernel, offset = torch.from_numpy(weight), torch.from_numpy(bias)
    expected = functional.conv1d(torch.from_numpy(x), kernel, offset, stride, padding, dilation, groups).numpy()
    assert np.allclose(composed([node], x, (channels, 17)), expected.reshape(4, -1), rtol=0, atol=1e-10)
    assert np.allclose(composed([node], x, (1, channels, 17)), expected.reshape(4, -1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("text", ["same", b"same", "valid"])
def test_padding_in_words(text: Any) -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(2, 3, 3, 5)), rng.normal(size=(2, 3, 9, 9))
    node = SimpleNamespace(
        weight=weight, stride=1, padding=text, dilation=2, groups=1, bias=np.zeros(2), input_shape=None
    )
    node = type("Conv2d", (SimpleNamespace,), {})(**vars(node))
    padding = text if isinstance(text, str) else text.decode()
    expected = functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding=padding, dilation=2).numpy()
    assert np.allclose(composed([node], x, (3, 9, 9)), expected.reshape(2, -1), rtol=0, atol=1e-10)


def test_chains_equal_torch_or_are_refused_for_their_padding() -> None:
    """What cannot be one convolution is refused; everything else is exact."""
    exact = refused = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(1, 5)), int(rng.integers(8, 16)), int(rng.integers(8, 16)))
        state = rng.bit_generator.state
        chain, expected = random_chain(rng, shape, 3)
        rng.bit_generator.state = state
        x = rng.normal(size=(3, *shape))
        nodes = [node for node, _ in chain]
        if not nodes:
            continue
        try:
            mine = composed(nodes, x, shape)
        except BadModel as error:
            assert "padding behind overlapping windows" in str(error)  # both ends are counted
            refused += 1
            continue
        exact += 1
        assert np.allclose(mine, expected.numpy().reshape(3, -1), rtol=0, atol=1e-9)
    assert exact > 30
    assert refused > 10


def test_matrices_behind_and_before_convolutions_equal_torch() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 2, 8, 8))
    weight, first, second = rng.normal(size=(3, 2, 3, 3)), rng.normal(size=(7, 108)), rng.normal(size=(5, 7))
    offset = rng.normal(size=7)
    factor = rng.normal(size=7)
    nodes = [
        nir.Conv2d((8, 8), weight, 1, 0, 1, 1, np.ones(3)), nir.Flatten({"input": np.array([3, 6, 6])}, 0, -1),
        nir.Affine(first, offset), nir.Scale(factor), nir.Linear(second),
    ]  # fmt: skip
    image = functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight), torch.ones(3).double()).flatten(1).numpy()
    expected = ((image @ first.T + offset) * factor) @ second.T
    assert np.allclose(composed(nodes, x, (2, 8, 8)), expected, rtol=0, atol=1e-9)
    unflat = [
        nir.Linear(rng.normal(size=(32, 10))),
        nir.Conv2d((4, 4), rng.normal(size=(3, 2, 3, 3)), 1, 1, 1, 1, np.zeros(3)),
    ]
    x = rng.normal(size=(4, 10))
    middle = torch.from_numpy((x @ unflat[0].weight.T).reshape(4, 2, 4, 4))
    expected = functional.conv2d(middle, torch.from_numpy(unflat[1].weight), padding=1).numpy().reshape(4, -1)
    assert np.allclose(composed(unflat, x, (10,)), expected, rtol=0, atol=1e-9)


def test_a_part_of_the_dimensions_is_flattened() -> None:
    rng = np.random.default_rng(6)
    weight, x = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 5, 4))
    nodes = [nir.Flatten({"input": np.array([3, 5, 4])}, 1, 2), nir.Conv1d(20, weight, 1, 0, 1, 1, np.zeros(2))]
    expected = functional.conv1d(torch.from_numpy(x.reshape(2, 3, 20)), torch.from_numpy(weight)).numpy()
    assert np.allclose(composed(nodes, x, (3, 5, 4)), expected.reshape(2, -1), rtol=0, atol=1e-10)


def test_convolution_in_several_turns_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    synapse, _ = through(
        nir.Conv2d((9, 9), rng.normal(size=(2, 2, 3, 3)), 1, 1, 1, 1, np.zeros(2)), None, (2, 9, 9), "n"
    )
    assert synapse is not None and synapse.conv is not None
    x = rng.normal(size=(7, 162))
    whole = convolve(x, synapse.w, synapse.conv)
    monkeypatch.setattr("models.convolution._PATCH_CELLS", 81 * 18 * 2)
    assert np.array_equal(convolve(x, synapse.w, synapse.conv), whole)


def conv(**changes: Any) -> Any:
    fields = {
        "weight": np.ones((2, 3, 3, 3)),
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "bias": np.zeros(2),
    }
    return type("Conv2d", (SimpleNamespace,), {})(**{**fields, "input_shape": None, **changes})


@pytest.mark.parametrize(
    ("node", "shape", "reason"),
    [
        (conv(weight=np.full((2, 3, 3, 3), np.inf)), (3, 9, 9), "weights must be finite"),
        (conv(weight=np.ones((2, 3, 3))), (3, 9, 9), r"weight has shape \(2, 3, 3\), expected 4"),
        (conv(), (4, 9, 9), r"takes \(3, 9, 9\), but \(4, 9, 9\) comes"),
        (conv(), (3, 2, 9), "does not fit into its input"),
        (conv(stride=0), (3, 9, 9), "make no sense"),
        (conv(stride=1.5), (3, 9, 9), "one or two whole numbers"),
        (conv(stride=np.nan), (3, 9, 9), "one or two whole numbers"),
        (conv(padding=-1), (3, 9, 9), "make no sense"),
        (conv(padding="reflect"), (3, 9, 9), "padding 'reflect'"),
        (conv(dilation=0), (3, 9, 9), "dilation .* makes no sense"),
        (conv(dilation=1 << 20), (3, 9, 9), "weights, more than"),
        (conv(groups=0), (3, 9, 9), "groups must be a whole number"),
        (conv(groups=3), (9, 9, 9), "2 channels cannot be split into 3 groups"),
        (conv(bias=np.zeros(3)), (3, 9, 9), "bias must be 2 finite numbers"),
        (conv(bias="none"), (3, 9, 9), "bias must be numbers"),
        (conv(input_shape=(9, 9, 9)), (3, 9, 9), "wrong number of dimensions"),
        (nir.Linear(np.ones((2, 5))), (6,), "takes 5 inputs, but 6 come"),
        (nir.Scale(np.ones(5)), (6,), "scale must be 6 finite numbers"),
        (nir.Scale(np.ones(1)), (MAX_CELLS,), "one weight for each of"),
        (nir.SumPool2d(2, 2, 0), (6,), "pools an image"),
        (nir.SumPool2d(1 << 12, 1, 1 << 12), (3, 9, 9), "larger than"),
    ],
)  # fmt: skip
def test_refusals_say_what_is_wrong(node: Any, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(BadModel, match=rf"^node 'n'.*{reason}"):
        through(node, None, shape, "node 'n':")


def test_a_scale_within_a_channel_is_refused() -> None:
    with pytest.raises(BadModel, match="differs within a channel"):
        composed([nir.Scale(np.arange(1.0, 13).reshape(3, 2, 2))], np.zeros((1, 12)), (3, 2, 2))


def scalar_trace(node: Any, dt: float, drive: np.ndarray) -> tuple[list[float], list[bool]]:  # type: ignore[type-arg]
    """One neuron, straight from the equations of NIR by forward Euler."""
    kind, i, v = type(node).__name__, 0.0, 0.0
    potentials, spikes = [], []
    for x in drive:
        if kind == "Threshold":
            v = x
        elif kind == "IF":
            v += dt * node.r[0] * x
        elif kind in ("LIF", "LI"):
            v += dt / node.tau[0] * (node.v_leak[0] - v + node.r[0] * x)
        else:
            i += dt / node.tau_syn[0] * (-i + node.w_in[0] * x)
            v += dt / node.tau_mem[0] * (node.v_leak[0] - v + node.r[0] * i)
        level = getattr(node, "v_threshold", getattr(node, "threshold", None))
        fired = level is not None and v > level[0]
        v = float(getattr(node, "v_reset", np.zeros(1))[0]) if fired else v
        potentials.append(v)
        spikes.append(bool(fired))
    return potentials, spikes


ONE = {"v_leak": np.array([0.3]), "r": np.array([1.7])}
FIRES = {"v_threshold": np.array([0.8]), "v_reset": np.array([-0.2])}
TAUS = {"tau_syn": np.array([0.004]), "tau_mem": np.array([0.011])}


@pytest.mark.parametrize(
    "neuron",
    [
        nir.Threshold(np.array([0.8])),
        nir.IF(r=np.array([170.0]), **FIRES),
        nir.LI(tau=np.array([0.011]), **ONE),
        nir.LIF(tau=np.array([0.011]), **ONE, **FIRES),
        nir.CubaLI(**TAUS, **ONE, w_in=np.array([1.3])),
        nir.CubaLIF(**TAUS, **ONE, **FIRES, w_in=np.array([1.3])),
    ],
    ids=lambda node: type(node).__name__,
)
def test_every_neuron_follows_its_equations(neuron: Any) -> None:
    drive = np.random.default_rng(8).normal(1, 2, 200)
    if isinstance(neuron, nir.Threshold):
        neuron.v_reset = np.zeros(1)
    ends = {"input": nir.Input(np.array([1])), "output": nir.Output(np.array([1]))}
    edges = [("input", "neuron"), ("neuron", "output")]
    net = nir_graph.convert(nir.NIRGraph({**ends, "neuron": neuron}, edges), 0.001, "made")
    trace = float_network.run(net, drive[None, :, None])
    potentials, spikes = scalar_trace(neuron, 0.001, drive)
    assert trace.spikes[0][0, :, 0].tolist() == spikes
    if not isinstance(neuron, nir.Threshold):
        assert np.allclose(trace.v_last[0, :, 0], potentials, rtol=0, atol=1e-12)
    assert any(spikes) or type(neuron).__name__ in ("LI", "CubaLI")
