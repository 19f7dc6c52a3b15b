"""Fixtures that more than one folder of tests uses."""

import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.brokers import MOSQUITTO, Mosquitto

DEADLINE_S = 30.0


def eventually(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Asks again and again until ``condition`` is true and returns its value; fails the test after ``deadline_s``."""
    end_s = time.monotonic() + deadline_s
    pause = Event()
    while not (value := condition()):
        if time.monotonic() > end_s:
            pytest.fail(f"{what}: not within {deadline_s} s")
        pause.wait(0.01)
    return value


class Running:
    """A worker in a thread of its own, and what it died of, if it did."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.error: BaseException | None = None
        self.stop_flag = Event()
        self._thread = Thread(target=self._run, name=worker.name, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Stops it; fails the test if it does not end in time or ended with an error."""
        self.stop_flag.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            pytest.fail(f"{self.worker.name} did not stop within {timeout_s} s")
        if self.error is not None:
            raise self.error

    def wait(self, timeout_s: float = DEADLINE_S) -> BaseException | None:
        """Waits until it ends by itself and returns what it died of."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            pytest.fail(f"{self.worker.name} still runs after {timeout_s} s")
        error, self.error = self.error, None
        return error

    def _run(self) -> None:
        try:
            self.worker.run(self.stop_flag, lambda: None)
        except Exception as error:  # noqa: BLE001 - it is raised again by stop()
            self.error = error


def pytest_configure() -> None:
    """Started in the background by a shell, tests ignore Ctrl-C, and all that they start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_lasts() -> Iterator[None]:
    """What a test changes of the process, the next one would find: in another order it would fail."""
    before = _of_the_process()
    yield
    assert _of_the_process() == before


def _of_the_process() -> dict[str, object]:
    """Umask, Ctrl-C (``main`` sets the other signals, alike each time), garbage collection, folder, the root log."""
    os.umask(umask := os.umask(0o077))
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if not type(handler).__module__.startswith("_pytest")]
    return {
        "umask": oct(umask),
        "ctrl_c": signal.getsignal(signal.SIGINT),
        "gc": gc.isenabled(),
        "folder": Path.cwd(),
        "log": (ours, root.level),
    }


@pytest.fixture
def running() -> Iterator[Callable[[Any], Running]]:
    """Starts workers; whatever still runs at the end of the test is stopped, the last first."""
    with ExitStack() as stack:

        def start(worker: Any) -> Running:
            started = Running(worker)
            stack.callback(started.stop)
            return started

        yield start


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Starts brokers with the arguments of ``Mosquitto``."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    with ExitStack() as stack:

        def start(**arguments: Any) -> Mosquitto:
            broker = Mosquitto(tmp_path / f"broker{len(list(tmp_path.glob('broker*')))}", **arguments).start()
            stack.callback(broker.stop)
            return broker

        yield start


@pytest.fixture
def broker(make_broker: Callable[..., Mosquitto]) -> Mosquitto:
    """A broker with mosquitto's default limits."""
    return make_broker()
