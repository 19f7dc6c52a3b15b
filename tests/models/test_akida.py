"""Akida against the reference, to the bit, in the software model of the SDK. Skipped without the package ``akida``.

Nothing here measures or prints how fast it is: its licence forbids to publish such figures.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models import network
from models.backends.akida import AkidaBackend
from models.base import BackendUnavailable, BadModel, State
from models.compile.akida import VIRTUAL_DEVICES, digits, fits, not_installed, unsupported
from models.contract_networks import beside_network
from models.convolution import ConvShape
from models.isolate import Isolated
from models.network import DECAY_ONE, Layer, Network
from models.select import load_backend, verify
from tests.models.exact import assert_equal, some_state, spikes_in
from tests.models.networks import random_network, random_raster, write_bundle

NETWORKS = 50
STEPS = 25

installed = pytest.mark.skipif(importlib.util.find_spec("akida") is None, reason=not_installed())


@pytest.fixture
def akida() -> Iterator[AkidaBackend]:
    backend = AkidaBackend()
    yield backend
    backend.close()


def population(rng: np.random.Generator, w_in: np.ndarray, conv: ConvShape | None = None, **is_a: bool) -> Layer:
    """Thresholds, decays and biases of their own for all neurons; ``is_a`` recurrent, integrator."""
    n = len(w_in) if conv is None else int(np.prod(conv.out_shape(w_in.shape)))
    return Layer(
        name="made",
        w_in=w_in,
        w_rec=weights(rng, n, n) if is_a["recurrent"] and not is_a["integrator"] else None,
        k_u=rng.integers(0, 4090, n).astype(np.int32),
        k_v=rng.integers(0, DECAY_ONE + 1, n).astype(np.int32),
        bias=rng.integers(-5000, 5000, n).astype(np.int32),
        v_th=None if is_a["integrator"] else rng.integers(1, 3000, n).astype(np.int32),
        conv=conv,
    )


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Of 8 bits, or of fewer as a 4-bit network has them."""
    most = int(rng.choice([7, 112, 127]))
    return rng.integers(-most - (most == 127), most + 1, shape).astype(np.int8)


def image_layer(rng: np.random.Generator, **is_a: bool) -> Layer:
    """Kernels of any shape up to 9x9, most of which Akida has not."""
    kernel = rng.integers(1, 10, 2)
    padding = rng.integers(0, kernel)
    sides = np.maximum(kernel - 2 * padding, 1) + rng.integers(0, 7, 2)
    stride = rng.integers(1, 4, 2)
    channels = int(rng.integers(1, 4))
    shape = ConvShape((channels, int(sides[0]), int(sides[1])), tuple(stride.tolist()), tuple(padding.tolist()))
    return population(rng, weights(rng, int(rng.integers(1, 5)), channels, *kernel.tolist()), shape, **is_a)


def made(seed: int) -> Network:
    """Dense, recurrent or convolutional, of one to four layers."""
    rng = np.random.default_rng(seed)
    recurrent = seed % 3 == 1 or seed % 6 == 5
    layers = []
    inputs = int(rng.integers(1, 40))
    if seed % 3 == 2:
        layers.append(image_layer(rng, recurrent=recurrent, integrator=False))
        inputs = layers[0].neurons
    depth = int(rng.integers(1, 4))
    for i in range(depth):
        integrator = i == depth - 1 and seed % 2 == 0
        w_in = weights(rng, int(rng.integers(1, 30)), inputs)
        layers.append(population(rng, w_in, recurrent=recurrent, integrator=integrator))
        inputs = layers[-1].neurons
    return network.check(Network(tuple(layers)))


@installed
@pytest.mark.parametrize("generation", ["v1", "v2"])
@pytest.mark.parametrize("seed", range(NETWORKS))
def test_no_cell_of_a_random_network_differs(akida: AkidaBackend, seed: int, generation: str) -> None:
    rng = np.random.default_rng(seed)
    net = made(seed)
    akida.load_network(net, "made", generation=generation)
    state = State.rest(net.neurons)
    spikes = spikes_in(assert_equal(akida, net, random_raster(rng, STEPS, net.features, 0.3), state))
    spikes += spikes_in(assert_equal(akida, net, random_raster(rng, 1, net.features, 0.5), state))
    spikes += spikes_in(assert_equal(akida, net, random_raster(rng, 7, net.features, 0.1), some_state(rng, net)))
    before = state.copy()
    assert akida.infer(random_raster(rng, 0, net.features), state).shape == (0, net.classes)
    assert all(np.array_equal(a, b) for a, b in zip(state.arrays(), before.arrays(), strict=True))
    assert spikes or net.layers[0].v_th is None


@installed
@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_layers_side_by_side(akida: AkidaBackend, generation: str) -> None:
    net = beside_network()
    akida.load_network(net, "made", generation=generation)
    raster = random_raster(np.random.default_rng(1), STEPS, net.features, 0.3)
    assert spikes_in(assert_equal(akida, net, raster, State.rest(net.neurons)))


@installed
@pytest.mark.parametrize("generation", ["v1", "v2"])
@pytest.mark.parametrize("value", [-128, 127])
def test_the_largest_sums_that_a_network_can_have(akida: AkidaBackend, generation: str, value: int) -> None:
    inputs = 60_000  # times 128 is close to 2^23
    none = np.zeros(2, np.int32)
    wide = Layer("wide", np.full((2, inputs), value, np.int8), None, none, none, none, none + 1)
    net = network.check(Network((wide,)))
    akida.load_network(net, "made", generation=generation)
    assert_equal(akida, net, np.ones((2, inputs), np.uint8), State.rest(net.neurons))


def test_digits_give_the_weights_again() -> None:
    every = np.arange(-128, 128).astype(np.int8)
    parts = digits(every)
    assert len(parts) == 3
    assert all(np.abs(part).max() <= 7 for part in parts)
    assert np.array_equal(sum(part.astype(int) * 15**i for i, part in enumerate(parts)), every)
    assert [len(digits(np.array([most], np.int8))) for most in (0, 7, -7, 8, 112, 113)] == [1, 1, 1, 2, 2, 3]


def huge() -> Network:
    rng = np.random.default_rng(0)
    shape = ConvShape((2, 128, 128), (1, 1), (4, 4))
    layer = population(rng, np.ones((1, 2, 9, 9), np.int8), shape, recurrent=False, integrator=False)
    return network.check(Network((layer,)))


def test_what_it_cannot_take_has_a_reason(akida: AkidaBackend) -> None:
    assert all(unsupported(made(seed)) is None for seed in range(12))
    reason = r"layer 'made' has a kernel of 9x9; Akida convolves up to 7x7"
    with pytest.raises(BadModel, match=reason):
        akida.load_network(huge(), "made")


def test_without_the_package_it_says_what_to_install(
    akida: AkidaBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "akida", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'axond\[akida\]'"):
        akida.load(write_bundle(tmp_path / "made", made(0)))
    with pytest.raises(BackendUnavailable, match=r"pip install 'axond\[akida\]'"):
        fits(made(0))


def test_before_load_and_after_close_it_is_unavailable(akida: AkidaBackend) -> None:
    with pytest.raises(BackendUnavailable, match="no network loaded"):
        akida.infer(np.zeros((1, 1), np.uint8))


@installed
def test_a_failed_step_leaves_the_state(akida: AkidaBackend) -> None:
    net = random_network(np.random.default_rng(0))
    akida.load_network(net, "made")
    state = some_state(np.random.default_rng(1), net)
    before = state.copy()
    # The first layer runs and changes its state; the synapses of the second refuse an input of another width.
    akida._populations[1] = akida._populations[0]
    with pytest.raises(BackendUnavailable, match="Akida failed in a step"):
        akida.infer(random_raster(np.random.default_rng(2), 5, net.features, 0.3), state)
    assert all(np.array_equal(a, b) for a, b in zip(state.arrays(), before.arrays(), strict=True))


@installed
def test_survey_knows_the_version_and_loads_nothing() -> None:
    survey = AkidaBackend.survey()
    assert survey.runtime.startswith("akida 2.")
    assert survey.missing is None


@installed
def test_fits_names_the_layer_that_does_not() -> None:
    rng = np.random.default_rng(0)
    small = fits(random_network(rng))
    assert small == dict.fromkeys(VIRTUAL_DEVICES)
    wide = fits(random_network(rng, features=3000))
    assert {name: reason is None for name, reason in wide.items()} == {
        "AKD1000": True, "AKD1500": True, "TwoNodesIPv2": False, "SixNodesIPv2": False,
    }  # fmt: skip
    assert str(wide["SixNodesIPv2"]).startswith("layer 'l0': ")
    assert all(str(reason).startswith("layer 'made' has a kernel") for reason in fits(huge()).values())


@installed
def test_images_fit_whatever_the_kernel() -> None:
    rng = np.random.default_rng(0)
    for size, stride, padding in (((16, 2, 5, 5), 2, 1), ((8, 2, 6, 6), 2, 2), ((4, 2, 1, 3), 1, 0)):
        shape = ConvShape((2, 34, 34), (stride, stride), (padding, padding))
        layer = population(rng, weights(rng, *size), shape, recurrent=False, integrator=False)
        assert fits(Network((layer,))) == dict.fromkeys(VIRTUAL_DEVICES)


@installed
def test_a_chip_that_it_does_not_fit_on_is_a_bad_model(akida: AkidaBackend) -> None:
    import akida as sdk

    net = random_network(np.random.default_rng(0), features=3000)
    with pytest.raises(BadModel, match="made: Akida cannot take layer 'l0': "):
        akida.load_network(net, "made", device=sdk.TwoNodesIPv2())
    with pytest.raises(BackendUnavailable, match="of generation 'pico'; only v1 and v2"):
        akida.load_network(net, "made", device=sdk.PicoIP())


@installed
def test_in_a_process_of_its_own_and_first_of_all(tmp_path: Path) -> None:
    net = random_network(np.random.default_rng(1))
    bundle = write_bundle(tmp_path / "made", net)
    kind, backend = load_backend(bundle, "auto")
    try:
        assert kind == "akida"
        assert isinstance(backend, Isolated)
        verify(backend, bundle)
        raster = random_raster(np.random.default_rng(2), STEPS, net.features, 0.3)
        assert spikes_in(assert_equal(backend, net, raster, State.rest(net.neurons)))
    finally:
        backend.close()
