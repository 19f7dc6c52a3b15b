"""The contract of every mirror: it sends copies of durable results to a place that cannot acknowledge them to us.

A mirror hangs beside the primary path and can do nothing to it: results reach it after they are committed, through a
bounded hand-over that drops the oldest and counts, and it frees nothing in the outbox.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from agent.outbox_group import Queued

CAPACITY = 10_000
"""Copies that wait for the peer: minutes of most sensors, a few MB."""


class MirrorConfig(BaseModel):
    """Base of every mirror's own table in the TOML; unknown keys and other types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True, slots=True)
class Device:
    """What a mirror tells of the device. The functions may be called from any thread."""

    id: str
    agent_version: str
    info: Callable[[], Mapping[str, Any]]
    """The birth document: ``streams`` by name, with ``columns`` and ``model``; ``boot``, ``sensors``."""
    metrics: Callable[[], Mapping[str, float]]
    health: Callable[[], Mapping[str, Any]]
    """``state`` (ok, degraded, failed) and a ``summary``."""


@dataclass(frozen=True, slots=True)
class MirrorState:
    """A snapshot for displays; the counts are results since the start."""

    connected: bool
    error: str | None
    sent: int
    """Handed over; acknowledged where the peer acknowledges."""
    dropped: int
    """Given up: they were the oldest when too many waited, or the peer refused them."""
    skipped: int
    """Not sent, because a later one of the same stream took their place, where the peer wants only the latest."""
    waiting: int
    """Neither of these yet, what is under way included: ``offered = sent + dropped + skipped + waiting`` at rest."""


class Copies:
    """The hand-over from the outbox's thread: bounded, drops the oldest, counts. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[Queued] = deque()
        self.dropped = 0

    def put(self, rows: Sequence[Queued]) -> None:
        """Never waits."""
        with self._lock:
            self._waiting.extend(rows)
            while len(self._waiting) > CAPACITY:
                self._waiting.popleft()
                self.dropped += 1

    def take(self, limit: int) -> list[Queued]:
        """Up to ``limit``, the oldest first."""
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    def give_back(self, rows: Sequence[Queued]) -> None:
        """What was taken and not delivered, oldest first, goes to the front; beyond the bound the oldest is dropped."""
        with self._lock:
            room = max(0, CAPACITY - len(self._waiting))
            kept = rows[len(rows) - min(room, len(rows)) :]
            self.dropped += len(rows) - len(kept)
            self._waiting.extendleft(reversed(kept))

    def __len__(self) -> int:
        return len(self._waiting)


C = TypeVar("C", bound=MirrorConfig)


class Mirror(ABC, Generic[C]):
    """A ``Worker`` with a connection of its own; the constructor opens nothing."""

    Config: ClassVar[type[MirrorConfig]]
    critical = False

    def __init__(self, name: str, cfg: C, device: Device) -> None:
        self.name = f"mirror-{name}"
        self.cfg = cfg
        self.device = device
        self.copies = Copies()
        self.sent = 0
        self.refused = 0
        self.skipped = 0

    def offer(self, rows: Sequence[Queued]) -> None:
        """Takes what was just committed; on the outbox's thread: never waits, never raises."""
        self.copies.put(rows)

    def state(self) -> MirrorState:
        """May be called from any thread."""
        connected, error = self.connection()
        dropped = self.copies.dropped + self.refused
        waiting = len(self.copies) + self.under_way()
        return MirrorState(connected, error, self.sent, dropped, self.skipped, waiting)

    @abstractmethod
    def connection(self) -> tuple[bool, str | None]:
        """Whether the peer answers, and the present trouble as a sentence. May be called from any thread."""

    @abstractmethod
    def under_way(self) -> int:
        """Results that were taken and are neither delivered nor given up. May be called from any thread."""

    @abstractmethod
    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        """Sends until ``stop``, then sends what it can at once and returns within 2 s, whatever the peer does."""


def captured_ns(row: Queued) -> int:
    """CLOCK_MONOTONIC when the result's window was captured."""
    time_ns = row.payload.get("t_ns")
    return time_ns if type(time_ns) is int else row.put_ns


def columns(row: Queued) -> Iterable[tuple[str, Any]]:
    """The columns of a result but its time."""
    return ((name, value) for name, value in row.payload.items() if name != "t_ns")
