"""Selection and fail-over: who takes over goes on exactly where the other one was."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from models import bundle as bundles
from models.backends.reference import ReferenceBackend
from models.base import BackendUnavailable, BadModel, Outputs, State
from models.bundle import Bundle
from models.failover import Runner
from models.select import load_backend, order
from tests.models.networks import manifest, random_network, random_raster, write_bundle

NET = random_network(np.random.default_rng(1))
WINDOWS = [random_raster(np.random.default_rng(n), 20, NET.features, 0.3) for n in range(50)]
SOON_S = 20.0


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "made", NET)


class Run:
    """A stream of windows that carries its state from one to the next."""

    def __init__(self, bundle: Bundle, *kinds: str) -> None:
        self.runner = Runner(kinds)
        self.runner.load(bundle)
        self.state = State.rest(NET.neurons)
        self.outputs: list[Outputs] = []

    def step(self) -> None:
        self.outputs.append(self.runner.infer(WINDOWS[len(self.outputs) % len(WINDOWS)], self.state))

    def until(self, condition: Callable[[], bool]) -> None:
        until_s = time.monotonic() + SOON_S
        while not condition():
            assert time.monotonic() < until_s, f"{self.runner.kind}: {self.runner.reason}"
            self.step()

    def settled(self) -> bool:
        """Nothing is being loaded: the spare is there."""
        return self.runner._attempt is None and self.runner._spare is not None

    def check(self) -> None:
        """As if nothing had happened."""
        reference = ReferenceBackend()
        reference.load_network(NET)
        state = State.rest(NET.neurons)
        for n, outputs in enumerate(self.outputs):
            assert np.array_equal(outputs, reference.infer(WINDOWS[n % len(WINDOWS)], state)), n
        assert all(np.array_equal(a, b) for a, b in zip(state.arrays(), self.state.arrays(), strict=True))


@pytest.fixture
def run(bundle: Bundle, fault: Path) -> Iterator[Run]:
    made = Run(bundle, "faulty", "reference")
    yield made
    made.runner.close()


def test_preferences() -> None:
    assert order("auto") == ("akida", "lava", "onnx", "tflite", "reference")
    assert order("onnx") == ("onnx",)
    assert order(["tflite", "auto"]) == ("tflite", "akida", "lava", "onnx", "reference")


def test_a_list_is_tried_in_order_and_says_why_nobody_can(bundle: Bundle, fault: Path) -> None:
    fault.write_text("missing")
    kind, backend = load_backend(bundle, ["faulty", "reference"])
    backend.close()
    assert kind == "reference"
    with pytest.raises(BackendUnavailable, match=r"^the chip is not plugged in$"):
        load_backend(bundle, "faulty")
    with pytest.raises(
        BackendUnavailable, match=r"no backend can run made@1.0.0: abacus: unknown .*; faulty: the chip"
    ):
        load_backend(bundle, ["abacus", "faulty"])


def test_a_wrong_answer_is_passed_over(bundle: Bundle) -> None:
    wrong = bundle.golden.u[0].copy()
    wrong[0, 0] += 1
    bundle.golden = replace(bundle.golden, u=(wrong, *bundle.golden.u[1:]))
    with pytest.raises(BadModel, match="reference answers golden vector 0 differently in 1 cells"):
        Runner("reference").load(bundle)


@pytest.mark.parametrize("what", ["crash", "hang", "fill", "error"])
def test_the_next_one_takes_over_with_the_state(run: Run, fault: Path, what: str) -> None:
    run.until(run.settled)
    assert (run.runner.kind, run.runner.degraded, run.runner.incidents) == ("faulty", False, 0)
    fault.write_text(what)
    begun_s = time.monotonic()
    run.step()
    assert time.monotonic() - begun_s < 1.0
    assert (run.runner.kind, run.runner.degraded, run.runner.incidents) == ("reference", True, 1)
    assert run.runner.reason.startswith("faulty failed: the ")
    fault.unlink()
    run.until(lambda: run.runner.kind == "faulty")
    assert not run.runner.degraded
    run.step()
    run.check()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_signals_to_the_child(run: Run, number: signal.Signals) -> None:
    run.until(run.settled)
    pid = run.runner._backend.pid  # type: ignore[union-attr]
    os.kill(pid, number)
    begun_s = time.monotonic()
    run.step()
    assert time.monotonic() - begun_s < 1.0
    assert run.runner.kind == "reference"
    run.until(lambda: run.runner.kind == "faulty")
    run.check()
    assert not psutil.pid_exists(pid)


def test_what_stays_broken_is_tried_again_ever_more_rarely(run: Run, fault: Path) -> None:
    run.until(run.settled)
    fault.write_text("error")
    run.step()
    waits = []
    while len(waits) < 2:
        begun_s = time.monotonic()
        run.until(lambda: run.runner._attempt is not None)
        waits.append(time.monotonic() - begun_s)
        run.until(lambda: run.runner._attempt is None)
    assert waits[0] > 0.8
    assert waits[1] > 1.5
    assert run.runner.kind == "reference"
    run.check()


def test_alone_it_is_started_again_at_once(bundle: Bundle, fault: Path) -> None:
    run = Run(bundle, "faulty")
    run.step()
    os.kill(run.runner._backend.pid, signal.SIGKILL)  # type: ignore[union-attr]
    run.step()
    assert (run.runner.kind, run.runner.incidents, run.runner.degraded) == ("faulty", 1, False)
    fault.write_text("error")
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="the chip does not answer"):
            run.step()
    fault.unlink()
    run.step()
    run.check()
    run.runner.close()


def test_a_kind_that_cannot_run_the_bundle_does_not_end_the_others(bundle: Bundle, fault: Path, tmp_path: Path) -> None:
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files if name != "model.tflite"}
    run = Run(bundles.write(tmp_path / "no_tflite", manifest(NET), files), "faulty", "tflite")
    run.step()
    os.kill(run.runner._backend.pid, signal.SIGKILL)  # type: ignore[union-attr]
    run.step()
    assert (run.runner.kind, run.runner.incidents) == ("faulty", 1)
    fault.write_text("missing")
    os.kill(run.runner._backend.pid, signal.SIGKILL)  # type: ignore[union-attr]
    with pytest.raises(BackendUnavailable, match=r"faulty: the chip is not plugged in; tflite: .* no model.tflite"):
        run.step()
    fault.unlink()
    run.step()
    run.check()
    run.runner.close()


def test_close_leaves_nothing_even_while_loading(bundle: Bundle, fault: Path) -> None:
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    run = Run(bundle, "faulty", "reference")
    run.until(run.settled)
    fault.write_text("error")
    run.step()
    fault.unlink()
    run.until(lambda: run.runner._attempt is not None)
    attempt = run.runner._attempt
    run.runner.close()
    run.runner.close()
    assert attempt is not None and attempt.finished.wait(SOON_S)
    assert {child.pid for child in me.children(recursive=True)} <= before
