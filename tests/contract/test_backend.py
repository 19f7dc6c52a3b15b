"""What every backend must do; finds the backends by itself. One that is not installed here is skipped, by name."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.backends.reference import ReferenceBackend
from models.base import Backend, BackendUnavailable, BadModel, Trace
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
        backend.reset()
        reference.reset()
        potentials = backend.infer(raster, mine)
        assert np.array_equal(potentials, reference.infer(raster, expected))
        assert mine.differing_cells(expected) == 0
        assert any(layer.any() for layer in expected.spikes)


def test_state_is_carried_until_reset(backend: Backend, bundle: Bundle) -> None:
    loaded(backend, bundle)
    raster = random_raster(np.random.default_rng(2), STEPS, 24, 0.3)
    backend.reset()
    whole = backend.infer(raster)
    backend.reset()
    first, second = backend.infer(raster[:15]), backend.infer(raster[15:])
    assert np.array_equal(first + second, whole)
    assert not np.array_equal(backend.infer(raster), whole)
    backend.reset()
    assert np.array_equal(backend.infer(raster), whole)


def test_the_answer_is_the_callers_own(backend: Backend, bundle: Bundle) -> None:
    loaded(backend, bundle)
    raster = random_raster(np.random.default_rng(3), STEPS, 24, 0.3)
    backend.reset()
    answer = backend.infer(raster)
    kept = answer.copy()
    backend.infer(raster)
    assert np.array_equal(answer, kept)
    assert answer.dtype == np.int64


def test_close_is_idempotent_and_load_works_again(backend: Backend, bundle: Bundle) -> None:
    loaded(backend, bundle)
    backend.close()
    backend.close()
    backend.load(bundle)
    verify(backend, bundle)
