"""The contract of everything that runs in a thread of its own."""

import time
from collections.abc import Callable
from threading import Event
from typing import Protocol


class Worker(Protocol):
    """One thread's work. The supervisor starts, watches and restarts it.

    ``run`` returns when ``stop`` is set, or when its work is done for good (a recording ended). It calls ``beat`` at
    least once a second while healthy. It raises to say that it failed; the supervisor decides what happens next.
    """

    name: str
    critical: bool

    def run(self, stop: Event, beat: Callable[[], None]) -> None: ...


def rest(wait_s: float, stop: Event, beat: Callable[[], None]) -> None:
    """Waits, beating, for ``wait_s`` seconds or until ``stop``."""
    end_s = time.monotonic() + wait_s
    while not stop.is_set() and (left_s := end_s - time.monotonic()) > 0:
        beat()
        stop.wait(min(left_s, 0.25))
