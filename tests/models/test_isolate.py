"""A backend in a child process: the numbers of the one inside, failures as sentences, nothing left."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from models.backends.reference import ReferenceBackend
from models.base import BackendUnavailable, BadModel, State, Trace
from models.bundle import Bundle
from models.isolate import CALL_DEADLINE_S, Isolated
from models.select import load_kind, verify
from tests.models.networks import random_network, random_raster, write_bundle

NET = random_network(np.random.default_rng(1))
RASTER = random_raster(np.random.default_rng(2), 50, NET.features, 0.3)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "made", NET)


@pytest.fixture(params=["onnx", "reference"])
def isolated(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Isolated]:
    made = Isolated(request.param)
    try:
        made.load(bundle)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    yield made
    made.close()


def reference() -> ReferenceBackend:
    made = ReferenceBackend()
    made.load_network(NET)
    return made


def same(a: State, b: State) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.arrays(), b.arrays(), strict=True))


def test_outputs_state_and_trace_equal_the_reference(isolated: Isolated, bundle: Bundle) -> None:
    verify(isolated, bundle)
    for steps in (0, 1, 50, 2500):  # the last in more than one part
        raster = random_raster(np.random.default_rng(steps), steps, NET.features, 0.3)
        mine, theirs = (Trace.empty(steps, NET.neurons) for _ in range(2))
        here, there = (State.rest(NET.neurons) for _ in range(2))
        for _ in range(2):  # from rest, then from where it was left
            outputs = isolated.infer(raster, here, mine)
            assert np.array_equal(outputs, reference().infer(raster, there, theirs))
            assert mine.differing_cells(theirs) == 0
            assert same(here, there)
        assert np.array_equal(isolated.infer(raster), reference().infer(raster))
        assert steps < 50 or outputs.any()


def test_bad_models_are_bad_models(bundle: Bundle) -> None:
    (bundle.path / "network.npz").write_bytes(b"damaged")
    damaged = Isolated("reference")
    with pytest.raises(BadModel, match="the file was changed or damaged"):
        damaged.load(bundle)
    assert damaged.pid is None


def test_a_bundle_that_was_replaced_meanwhile_is_not_taken_for_the_old_one(bundle: Bundle) -> None:
    _ = bundle.network, bundle.golden
    write_bundle(bundle.path, random_network(np.random.default_rng(9)))
    late = Isolated("reference")
    with pytest.raises(BadModel, match=r"is another bundle by now .*; start axond again"):
        late.load(bundle)
    late.close()


def test_a_python_without_names_for_system_calls(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("memfd_create", "pidfd_open"):  # that of uv, until 2026
        monkeypatch.delattr(os, name, raising=False)
    load_kind(bundle, "reference", isolate=True).close()


def test_unknown_kinds_are_unavailable(bundle: Bundle) -> None:
    with pytest.raises(BackendUnavailable, match="unknown backend 'abacus'"):
        Isolated("abacus").load(bundle)


@pytest.mark.parametrize(
    ("what", "sentence", "within_s"),
    [
        ("crash", "of faulty was ended by SIGSEGV", 5.0),
        ("exit", "of faulty ended with exit code 9", 5.0),
        ("hang", r"of faulty gave no answer within 0\.", 0.9),
        ("fill", r"of faulty (gave no answer within 0\.|ended with exit code 1: .*MemoryError)", 0.9),
        ("error", "^the chip does not answer$", 5.0),
    ],
)
def test_a_failure_leaves_the_callers_state_alone(
    bundle: Bundle, fault: Path, what: str, sentence: str, within_s: float
) -> None:
    backend = load_kind(bundle, "faulty")
    assert isinstance(backend, Isolated)
    pid = backend.pid
    state = State.rest(NET.neurons)
    backend.infer(RASTER, state)
    before = state.copy()
    fault.write_text(what)
    begun_s = time.monotonic()
    with pytest.raises(BackendUnavailable, match=sentence):
        backend.infer(RASTER, state)
    assert time.monotonic() - begun_s < within_s
    assert same(state, before)
    backend.close()
    assert pid is not None and not psutil.pid_exists(pid)
    fault.unlink()
    backend.load(bundle)
    backend.infer(RASTER, state)
    twice = State.rest(NET.neurons)
    reference().infer(np.concatenate([RASTER, RASTER]), twice)
    assert same(state, twice)
    backend.close()


def test_a_stopped_child_is_given_up_soon(isolated: Isolated) -> None:
    isolated.infer(RASTER)
    isolated.infer(RASTER)
    assert isolated.pid is not None
    os.kill(isolated.pid, signal.SIGSTOP)
    begun_s = time.monotonic()
    with pytest.raises(BackendUnavailable, match="gave no answer"):
        isolated.infer(RASTER)
    assert CALL_DEADLINE_S <= time.monotonic() - begun_s < 0.9


def test_close_is_idempotent_and_then_it_is_unavailable(isolated: Isolated) -> None:
    isolated.close()
    isolated.close()
    with pytest.raises(BackendUnavailable, match="does not run"):
        isolated.infer(RASTER)


def test_isolate_is_asked_for_or_demanded(bundle: Bundle, fault: Path) -> None:
    for kind, isolate, expected in (("reference", False, False), ("reference", True, True), ("faulty", False, True)):
        backend = load_kind(bundle, kind, isolate=isolate)
        assert isinstance(backend, Isolated) == expected
        backend.close()
