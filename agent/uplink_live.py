"""The last result of each stream for displays: seen at once, gone if nobody looks."""

from collections.abc import Iterable
from threading import Lock

from agent.outbox_group import Queued

LIVE_S = 1.0
"""Of each stream at most one result in this time."""


class Live:
    """Keeps the last result of each stream until it is its turn. ``put`` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last: dict[str, Queued] = {}
        self._due_s: dict[str, float] = {}

    def put(self, rows: Iterable[Queued]) -> None:
        """Newer results take the place of older ones that nobody has seen."""
        last = {row.stream: row for row in rows}
        with self._lock:
            self._last.update(last)

    def take(self, now_s: float) -> list[Queued]:
        """The results whose turn it is."""
        if not self._last:
            return []
        with self._lock:
            streams = [stream for stream in self._last if self._due_s.get(stream, 0.0) <= now_s]
            rows = [self._last.pop(stream) for stream in streams]
        self._due_s.update((stream, now_s + LIVE_S) for stream in streams)
        return rows
