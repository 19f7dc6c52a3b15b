"""Starts, watches and restarts workers; decides when the process must end."""

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread, get_native_id

from agent.errors import EXIT_CONFIG, EXIT_FAILED, ConfigError
from agent.outage import Backoff
from agent.worker import Worker
from drivers.base import Misconfigured
from models.base import BadModel

RESTARTS_ALLOWED = 5
RESTART_WINDOW_S = 60.0
RETRY_FIRST_S = 0.2
RETRY_LONGEST_S = 10.0
BEAT_FRESH_S = 15.0
"""A critical worker that has not beaten for this long counts as hung."""
THREAD_NAME_CHARACTERS = 15
"""Of which Linux takes no more."""

_log = logging.getLogger(__name__)


class _Running:
    """One worker and its thread."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.stop = Event()
        self.thread: Thread | None = None
        self.beat_s = time.monotonic()
        self.restarts = 0
        self.parked: str | None = None

    def beat(self) -> None:
        self.beat_s = time.monotonic()


class Supervisor:
    """Owns the threads of all workers. Only the main thread calls it, but for ``health``."""

    def __init__(self, place: Callable[[Worker], None] = lambda worker: None) -> None:
        """``place`` is called in each worker's thread before the worker runs."""
        self._place = place
        self._running: list[_Running] = []
        self.ended = Event()
        """Set when the process has to end: a critical worker gave up, or the configuration turned out to be wrong."""
        self.exit_code = 0
        self.exit_reason: str | None = None

    def start(self, worker: Worker) -> None:
        """Run ``worker`` in a thread of its own."""
        running = _Running(worker)
        running.thread = Thread(target=self._run, args=(running,), name=worker.name, daemon=True)
        self._running.append(running)
        running.thread.start()

    def stop(self, chosen: Callable[[Worker], bool], timeout_s: float) -> list[str]:
        """Ask the chosen workers to stop and wait; returns the names of those that did not in time."""
        picked = [running for running in self._running if chosen(running.worker)]
        for running in picked:
            running.stop.set()
        deadline_s = time.monotonic() + timeout_s
        for running in picked:
            if running.thread is not None:
                running.thread.join(max(0.0, deadline_s - time.monotonic()))
        return [running.worker.name for running in picked if running.thread is not None and running.thread.is_alive()]

    def health(self) -> dict[str, str]:
        """Worker name -> what is wrong with it; empty when all is well."""
        now_s = time.monotonic()
        wrong = {}
        for running in self._running:
            if running.parked:
                wrong[running.worker.name] = running.parked
            elif running.thread and running.thread.is_alive() and now_s - running.beat_s > BEAT_FRESH_S:
                wrong[running.worker.name] = f"hangs: no beat for {now_s - running.beat_s:.0f} s"
        return wrong

    def hung(self) -> list[str]:
        """Critical workers without a fresh beat: while there are any, the watchdog must not be fed."""
        now_s = time.monotonic()
        critical = [r for r in self._running if r.worker.critical and not r.stop.is_set()]
        return [r.worker.name for r in critical if now_s - r.beat_s > BEAT_FRESH_S]

    def critical_alive(self) -> bool:
        """True while every critical worker's beat is fresh."""
        return not self.hung()

    def restarts(self) -> dict[str, int]:
        """Restarts per worker since start, for those that had any."""
        return {r.worker.name: r.restarts for r in self._running if r.restarts}

    def _run(self, running: _Running) -> None:
        worker = running.worker
        _show_name(worker.name)
        self._place(worker)
        recent: deque[float] = deque(maxlen=RESTARTS_ALLOWED)
        backoff = Backoff(RETRY_FIRST_S, RETRY_LONGEST_S)
        while not running.stop.is_set():
            running.beat()
            try:
                worker.run(running.stop, running.beat)
                return
            except (Misconfigured, ConfigError) as error:
                self._end(EXIT_CONFIG, f"{worker.name}: {error}")
                return
            except BadModel as error:
                running.parked = f"its model is given up: {error}"
                _log.error("%s: %s", worker.name, running.parked)
                return
            except Exception as error:  # noqa: BLE001 - the one place: whatever a worker dies of is reported
                now_s = time.monotonic()
                reason = f"{type(error).__name__}: {error}"
                if len(recent) == RESTARTS_ALLOWED and now_s - recent[0] < RESTART_WINDOW_S:
                    running.parked = (
                        f"gave up after {RESTARTS_ALLOWED} restarts in {now_s - recent[0]:.0f} s; last: {reason}"
                    )
                    _log.exception("%s: %s", worker.name, running.parked)
                    if worker.critical:
                        self._end(EXIT_FAILED, f"{worker.name} {running.parked}")
                    return
                recent.append(now_s)
                running.restarts += 1
                _log.warning("%s failed and is restarted: %s", worker.name, reason, exc_info=len(recent) == 1)
                running.stop.wait(backoff.next_s())

    def _end(self, code: int, reason: str) -> None:
        if not self.ended.is_set():
            self.exit_code, self.exit_reason = code, reason
            self.ended.set()


def _show_name(name: str) -> None:
    """Names the calling thread for ``top -H`` and debuggers, as Python itself does from 3.14 on."""
    try:
        Path(f"/proc/self/task/{get_native_id()}/comm").write_text(name[:THREAD_NAME_CHARACTERS], "utf-8")
    except OSError:  # no /proc in some containers: nothing depends on it
        return
