"""The supervisor: restarts with back-off, parks, ends the process, and knows who hangs."""

from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from agent import supervisor as module
from agent.errors import ConfigError
from agent.supervisor import RESTARTS_ALLOWED, Supervisor
from models.base import BadModel


class Scripted:
    """A worker that fails ``failures`` times and then runs until told to stop."""

    def __init__(self, failures: int, *, critical: bool = False, error: Exception | None = None) -> None:
        self.name = "scripted"
        self.critical = critical
        self.runs = 0
        self.steady = Event()
        self._failures = failures
        self._error = error or RuntimeError("broken")

    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        self.runs += 1
        if self.runs <= self._failures:
            raise self._error
        beat()
        self.steady.set()
        stop.wait()


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(module, "RETRY_LONGEST_S", 0.002)
    return Supervisor()


def stop_all(supervisor: Supervisor) -> list[str]:
    return supervisor.stop(lambda _: True, 5.0)


def test_a_failing_worker_is_restarted(supervisor: Supervisor) -> None:
    worker = Scripted(3)
    supervisor.start(worker)
    assert worker.steady.wait(5)
    assert supervisor.restarts() == {"scripted": 3}
    assert supervisor.health() == {}
    assert stop_all(supervisor) == []
    assert not supervisor.ended.is_set()


def test_a_non_critical_worker_over_budget_is_parked(supervisor: Supervisor) -> None:
    parked, well = Scripted(1000), Scripted(0)
    well.name = "well"
    supervisor.start(parked)
    supervisor.start(well)
    assert supervisor.stop(lambda w: False, 0) == []
    for running in supervisor._running[:1]:
        assert running.thread is not None
        running.thread.join(5)
    assert parked.runs == RESTARTS_ALLOWED + 1
    assert "gave up after 5 restarts" in supervisor.health()["scripted"]
    assert "RuntimeError: broken" in supervisor.health()["scripted"]
    assert well.steady.wait(5)
    assert not supervisor.ended.is_set()
    assert stop_all(supervisor) == []


def test_a_critical_worker_over_budget_ends_the_process(supervisor: Supervisor) -> None:
    supervisor.start(Scripted(1000, critical=True))
    assert supervisor.ended.wait(5)
    assert supervisor.exit_code == 1
    assert "gave up" in str(supervisor.exit_reason)


def test_a_wrong_configuration_ends_the_process_at_once(supervisor: Supervisor) -> None:
    worker = Scripted(1000, error=ConfigError("axond.toml: sensors.x: wrong"))
    supervisor.start(worker)
    assert supervisor.ended.wait(5)
    assert supervisor.exit_code == 78
    assert worker.runs == 1


def test_a_bad_model_parks_its_pipeline_and_nothing_else(supervisor: Supervisor) -> None:
    bad, well = Scripted(1000, error=BadModel("golden vector 3 differs")), Scripted(0)
    well.name = "well"
    supervisor.start(bad)
    supervisor.start(well)
    assert well.steady.wait(5)
    for running in supervisor._running[:1]:
        assert running.thread is not None
        running.thread.join(5)
    assert supervisor.health() == {"scripted": "its model is given up: golden vector 3 differs"}
    assert bad.runs == 1
    assert not supervisor.ended.is_set()
    assert stop_all(supervisor) == []


def test_a_hanging_critical_worker_starves_the_watchdog(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Scripted(0, critical=True)
    supervisor.start(worker)
    assert worker.steady.wait(5)
    assert supervisor.critical_alive()
    monkeypatch.setattr(module, "BEAT_FRESH_S", -1.0)
    assert not supervisor.critical_alive()
    assert supervisor.hung() == ["scripted"]
    assert "hangs" in supervisor.health()["scripted"]
    assert stop_all(supervisor) == []


def test_stop_names_those_that_do_not(supervisor: Supervisor) -> None:
    release = Event()

    class Stubborn(Scripted):
        def run(self, stop: Event, beat: Callable[[], None]) -> None:
            self.steady.set()
            release.wait(10)

    worker = Stubborn(0)
    supervisor.start(worker)
    assert worker.steady.wait(5)
    assert supervisor.stop(lambda _: True, 0.01) == ["scripted"]
    release.set()
    assert stop_all(supervisor) == []


def test_a_hanging_sensor_starves_nobody(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Scripted(0, critical=False)
    supervisor.start(worker)
    assert worker.steady.wait(5)
    monkeypatch.setattr(module, "BEAT_FRESH_S", -1.0)
    assert supervisor.hung() == []
    assert "hangs" in supervisor.health()["scripted"]
    assert stop_all(supervisor) == []


def test_a_thread_has_the_name_of_its_worker(supervisor: Supervisor) -> None:
    worker = Scripted(0)
    worker.name = "capture:a-long-name"
    supervisor.start(worker)
    assert worker.steady.wait(5)
    assert "capture:a-long-" in [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert stop_all(supervisor) == []
