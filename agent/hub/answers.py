"""Answers on their way to devices: never more than the broker takes, and the newest of each stream only."""

import math
import time
from collections.abc import Callable
from itertools import count

from agent.hub.books import Stream
from agent.link import Message

WINDOW = 100
"""Answers that the broker has not acknowledged."""
MAX_WAITING = 10_000
"""Answers that wait for room in the window; a device whose answer is dropped sends again and is answered then."""
PATIENCE_S = 0.2
"""An answer that nobody needs yet waits so long for a newer one to take its place: each wakes a device."""
PATIENT_MOST = 3
"""When a device sends more than this meanwhile, it has more to send."""
STUCK_S = 30.0
"""A broker that acknowledges nothing for so long is left."""


class Answers:
    """One thread calls it."""

    def __init__(self, send: Callable[[int, Message], None]) -> None:
        """``send`` publishes with a number that comes back in ``acked``."""
        self._send = send
        self._seq = count(1)
        self._window = 1
        self._widened = False
        self._flying: set[int] = set()
        self._waiting: dict[tuple[Stream, bool], Message] = {}
        self._patient: dict[tuple[Stream, bool], tuple[Message, float, int]] = {}
        """With the time when they are due, in that order, and how many answers one stands for."""
        self._moved_s = 0.0
        self.dropped = 0

    def reconnect(self) -> None:
        """A new connection begins; what waits goes over it once it stands."""
        self._window, self._widened, self._flying = 1, False, set()

    def widen(self, receive_max: int) -> None:
        """The broker has said how many messages it takes at a time."""
        self._window, self._widened = min(WINDOW, receive_max), True
        self._flush()

    def put(self, stream: Stream, message: Message, *, patient: bool = False) -> None:
        """Sends now or later, unless a newer answer of the same kind to the same stream takes its place.

        ``patient``: the device has nothing else to send at this moment, it can wait for ``PATIENCE_S``.
        """
        what = (stream, message.retain)
        _, due_s, number = self._patient.get(what, (None, time.monotonic() + PATIENCE_S, 0))
        patient = patient and number < PATIENT_MOST
        if patient and number:
            self._patient[what] = message, due_s, number + 1
            return
        self._patient.pop(what, None)
        if what not in self._waiting and len(self._waiting) + len(self._patient) >= MAX_WAITING:
            self.dropped += 1
        elif patient and what not in self._waiting:
            self._patient[what] = message, due_s, 1
        else:
            self._waiting[what] = message
            self._flush()

    def due_s(self) -> float:
        """Seconds until ``hurry`` has something to do; infinite if it has not, or no connection stands."""
        if not self._widened:
            return math.inf
        return next((due_s - time.monotonic() for _, due_s, _ in self._patient.values()), math.inf)

    def hurry(self, *, all_of_them: bool = False) -> None:
        """Sends what has been patient long enough, or all; nothing while the broker has not said how much it takes."""
        while self._patient and self._widened and (all_of_them or self.due_s() <= 0):
            what = next(iter(self._patient))
            self._waiting[what], *_ = self._patient.pop(what)
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
