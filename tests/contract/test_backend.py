"""What every backend must do; finds the backends by itself. One that is not installed here is skipped, by name."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.backends.reference import ReferenceBackend
from models.base import Backend, BackendUnavailable, BadModel, State, Trace
from models.bundle import Bundle
from models.registry import backends, make_backend
from models.select import verify
from tests.models.networks import random_network, random_raster, write_bundle

STEPS = 40


@pytest.fixture(params=backends())
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    made = make_backend(request.param)
    yield made
    made.close()


def loaded(backend: Backend, bundle: Bundle) -> Backend:
    try:
        backend.load(bundle)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    return backend


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "made", random_network(np.random.default_rng(1)))


def test_load_says_what_goes_in_and_out(backend: Backend, bundle: Bundle) -> None:
    loaded(backend, bundle)
    spec = backend.load(bundle)
    assert (spec.features, spec.classes) == (24, 3)


def test_answers_the_golden_vectors(backend: Backend, bundle: Bundle) -> None:
    verify(loaded(backend, bundle), bundle)


def test_a_wrong_golden_vector_is_a_bad_model(backend: Backend, bundle: Bundle) -> None:
    loaded(backend, bundle)
    bundle.golden.spikes[0][3, 20, 5] ^= 1
    with pytest.raises(BadModel, match=r"golden vector 3 differently in 1 cells"):
        verify(backend, bundle)


@pytest.mark.parametrize("seed", range(6))
def test_spikes_and_state_equal_the_reference(backend: Backend, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, recurrent=seed % 2 == 0, integrator=seed % 3 != 0, bias=seed >= 3)
    loaded(backend, write_bundle(tmp_path / "made", net))
    reference = ReferenceBackend()
    reference.load_network(net)
    neurons = tuple(layer.neurons for layer in net.layers)
    for density in (0.02, 0.3):
        raster = random_raster(rng, STEPS, net.features, density)
        mine, expected = Trace.empty(STEPS, neurons), Trace.empty(STEPS, neurons)
        outputs = backend.infer(raster, trace=mine)
        assert np.array_equal(outputs, reference.infer(raster, trace=expected))
        assert mine.differing_cells(expected) == 0
        assert any(layer.any() for layer in expected.spikes)


def test_state_is_the_callers(backend: Backend, bundle: Bundle) -> None:
    loaded(backend, bundle)
    raster = random_raster(np.random.default_rng(2), STEPS, 24, 0.3)
    whole = backend.infer(raster)
    state = State.rest(bundle.network.neurons)
    parts = [backend.infer(raster[:15], state), backend.infer(raster[15:15], state)]
    other = backend.infer(raster)
    parts.append(backend.infer(raster[15:], state))
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(other, whole)
    assert not np.array_equal(backend.infer(raster, state), whole)


def test_state_moves_between_backends(backend: Backend, tmp_path: Path) -> None:
    net = random_network(np.random.default_rng(4), bias=True)
    loaded(backend, write_bundle(tmp_path / "made", net))
    raster = random_raster(np.random.default_rng(2), STEPS, net.features, 0.3)
    reference = ReferenceBackend()
    reference.load_network(net)
    here, there = State.rest(net.neurons), State.rest(net.neurons)
    turns = [backend if t % 2 else reference for t in range(STEPS)]
    mixed = [one.infer(raster[t : t + 1], here) for t, one in enumerate(turns)]
    assert np.array_equal(np.concatenate(mixed), reference.infer(raster, there))
    assert all(np.array_equal(a, b) for a, b in zip(here.arrays(), there.arrays(), strict=True))


def test_the_answer_is_the_callers_own(backend: Backend, bundle: Bundle) -> None:
    loaded(backend, bundle)
    raster = random_raster(np.random.default_rng(3), STEPS, 24, 0.3)
    answer = backend.infer(raster)
    kept = answer.copy()
    backend.infer(random_raster(np.random.default_rng(4), STEPS, 24, 0.3))
    assert np.array_equal(answer, kept)
    assert answer.dtype == np.int32


def test_close_is_idempotent_and_load_works_again(backend: Backend, bundle: Bundle) -> None:
    loaded(backend, bundle)
    backend.close()
    backend.close()
    backend.load(bundle)
    verify(backend, bundle)
