"""What the outbox says about its disk and its room, and how long it waits before it tries again: to lock, to write."""

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from agent.outage import Backoff, Outage
from agent.outbox_evict import Eviction
from agent.outbox_file import claimed
from agent.outbox_schema import Damaged, passes
from agent.worker import rest

log = logging.getLogger("agent.outbox")

IO_ERRORS = 10
"""So many in a row, over half a minute, are no hiccup of the disk: the file is rebuilt on other sectors."""


class DiskTrouble:
    """A disk that does not let the outbox write. Only the outbox thread calls; ``sentence`` is for any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outage = Outage(log, "outbox writes again")
        self._backoff = Backoff(0.2, 10.0)
        self._io_errors = 0
        self.retry_at_s = 0.0

    @property
    def sentence(self) -> str | None:
        """What is wrong now, else None."""
        return self._outage.sentence

    def failed(self, error: sqlite3.DatabaseError) -> None:
        """Notes what may pass, and when to try again; raises the error, or ``Damaged``, if it does not pass."""
        if not passes(error):
            raise error
        self._io_errors = self._io_errors + 1 if "disk I/O error" in str(error) else 0
        if self._io_errors >= IO_ERRORS:
            self._io_errors = 0
            raise Damaged(f"{IO_ERRORS} times in a row: {error}") from error
        self._outage.failed(f"outbox {self._path} cannot be written: {error}; results wait in memory")
        self.retry_at_s = time.monotonic() + self._backoff.next_s()

    def claim(self, claim: ExitStack, stop: Event, beat: Callable[[], None]) -> bool:
        """Locks the file until ``claim`` closes, waits for a disk that does not let it. False: stopped.

        ``ConfigError`` as ``claimed``.
        """
        while not stop.is_set():
            try:
                claim.enter_context(claimed(self._path))
                return True
            except OSError as error:
                self.wait(error, stop, beat)
        return False

    def wait(self, error: Exception, stop: Event, beat: Callable[[], None]) -> None:
        """Notes that the file cannot be opened, and waits a while."""
        self._outage.failed(f"outbox {self._path} cannot be opened: {error}; results wait in memory")
        rest(self._backoff.next_s(), stop, beat)

    def hurry(self) -> None:
        """Tries again now and then often: room may just have been made, and there is no later."""
        self.retry_at_s = 0.0
        self._backoff = Backoff(0.1, 0.3)

    def over(self) -> None:
        self._backoff.reset()
        self._io_errors = 0
        self._outage.over()


class RoomTrouble:
    """Results that are refused or given up. Only the outbox thread calls."""

    def __init__(self) -> None:
        self._crowd = Outage(log, "outbox keeps up again")
        self._quota = Outage(log, "outbox is empty again")
        self._refused_told = 0

    def tell(self, gone: Eviction, crowded: bool, refused: int, batches: int) -> None:
        """After a commit: what it gave up, how many were refused so far, and how many batches are stored."""
        if gone.rows and crowded:
            self._quota.failed("outbox is full: the oldest results of the lowest class are given up, see evicted")
        elif gone.rows:
            log.info("%d results were too old to be sent", sum(gone.rows.values()))
        elif not batches:
            self._quota.over()
        if refused > self._refused_told:
            self._refused_told = refused
            self._crowd.failed(
                "results come faster than the outbox can write, under a bad name, or cannot be stored: see refused"
            )
        else:
            self._crowd.over()
