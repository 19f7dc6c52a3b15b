"""Answers on their way to devices: never more than the broker takes, and the newest of each stream only."""

import time
from collections.abc import Callable
from itertools import count

from agent.hub.books import Stream
from agent.link import Message

WINDOW = 100
"""Answers that the broker has not acknowledged."""
MAX_WAITING = 10_000
"""Answers that wait for room in the window; a device whose answer is dropped sends again and is answered then."""
STUCK_S = 30.0
"""A broker that acknowledges nothing for so long is left."""


class Answers:
    """Of one connection. One thread calls it."""

    def __init__(self, send: Callable[[int, Message], None]) -> None:
        """``send`` publishes with a number that comes back in ``acked``."""
        self._send = send
        self._seq = count(1)
        self._window = 1
        self._flying: set[int] = set()
        self._waiting: dict[tuple[Stream, bool], Message] = {}
        self._moved_s = 0.0
        self.dropped = 0

    def widen(self, receive_max: int) -> None:
        """The broker has said how many messages it takes at a time."""
        self._window = min(WINDOW, receive_max)
        self._flush()

    def put(self, stream: Stream, message: Message) -> None:
        """Sends now or later, unless a newer answer of the same kind to the same stream takes its place."""
        what = (stream, message.retain)
        if what not in self._waiting and len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting[what] = message
        self._flush()

    def acked(self, seq: int) -> None:
        self._flying.discard(seq)
        self._moved_s = time.monotonic()
        self._flush()

    def is_stuck(self) -> bool:
        return bool(self._flying) and time.monotonic() - self._moved_s > STUCK_S

    def _flush(self) -> None:
        while self._waiting and len(self._flying) < self._window:
            if not self._flying:
                self._moved_s = time.monotonic()
            what = next(iter(self._waiting))
            seq = next(self._seq)
            self._flying.add(seq)
            self._send(seq, self._waiting.pop(what))
