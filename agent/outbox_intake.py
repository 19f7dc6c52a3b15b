"""What was put into the outbox and is not committed yet."""

from collections import Counter, deque
from threading import Condition, Lock
from typing import TypeAlias

from agent.outbox_books import Books
from agent.outbox_group import Queued
from agent.record import Priority
from agent.wire import Row

GROUP_ROWS = 64
"""So many hurry the next commit."""
_ALARM = int(Priority.ALARM)
Put: TypeAlias = tuple[str, Row, int, int]
"""What ``Queued`` is made of, later and by another thread: ``put`` runs on cold caches, where each call costs."""


class Intake:
    """``put`` may be called from any thread and nearly always takes no lock; the rest is called under the outbox's."""

    __slots__ = (
        *("_books", "_change", "_inbox", "_lock", "_max_rows", "_rung", "_work"),
        *("alarm", "busy", "patient", "queue"),
    )

    def __init__(self, lock: Lock, work: Condition, change: Condition, books: Books, max_rows: int) -> None:
        """``work`` is notified when there is something to do, ``change`` when there is less; they share ``lock``."""
        self._lock = lock
        self._work = work
        self._change = change
        self._books = books
        self._max_rows = max_rows
        self._inbox: deque[Put] = deque()
        self._rung = False
        self.patient = False
        """The outbox's thread looks again by itself when the next commit is due: a single row need not wake it."""
        self.alarm = False
        self.queue: list[Queued] = []
        """Counted, and waiting for the next commit."""
        self.busy: list[Queued] = []
        """In the commit that is being made."""

    def __len__(self) -> int:
        return len(self._inbox) + len(self.queue) + len(self.busy)

    def put(self, row: Put) -> None:
        """Takes a row or, without room for it, counts it as refused."""
        inbox, waiting = self._inbox, len(self._inbox) + len(self.queue)
        if waiting + len(self.busy) >= self._max_rows and self._refuses(row[0]):
            return
        hurries = row[2] >= _ALARM  # first: what is no priority fails here, and not on the outbox's thread
        inbox.append(row)
        if hurries:
            with self._lock:
                self.alarm = True
                self._work.notify()
        elif not self._rung and waiting >= (GROUP_ROWS - 1 if self.patient else 0):
            with self._lock:
                self._rung = True
                self._work.notify()

    def admit(self) -> None:
        """Counts and queues what was put; what no topic can carry is counted as refused."""
        self._rung = refused = False
        while self._inbox:
            row = Queued(*self._inbox.popleft())
            if self._books.admit(row.stream, full=False):
                self.queue.append(row)
            else:
                refused = True
        if refused:
            self._change.notify_all()

    def hurries(self) -> bool:
        return self.alarm or len(self.queue) >= GROUP_ROWS

    def take(self) -> list[Queued]:
        """Everything that waits, for a commit."""
        self.busy, self.queue, self.alarm = self.queue, [], False
        return self.busy

    def requeue(self) -> Counter[str]:
        """What is not committed waits again; how much that is of each stream."""
        self.admit()
        self.busy, self.queue = [], self.busy + self.queue
        return Counter(row.stream for row in self.queue)

    def _refuses(self, stream: str) -> bool:
        with self._lock:
            self.admit()
            full = len(self) >= self._max_rows
            if full:
                self._books.admit(stream, full)
        return full
