"""One way to speak of something that fails and comes back: first failure WARNING, repeats DEBUG, recovery INFO."""

import logging
import random
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outage:
    """The present trouble of one thing, if any. One thread writes it."""

    log: logging.Logger
    recovery: str
    """What to say when it is over, for example ``outbox writes again``."""
    sentence: str | None = None
    """What is wrong now; None while all is well."""
    _since_ns: int = field(default=0)

    def failed(self, sentence: str) -> None:
        """Say that it failed, loudly the first time and whenever the reason is another one."""
        if self.sentence is None:
            self._since_ns = time.monotonic_ns()
        self.log.log(logging.DEBUG if sentence == self.sentence else logging.WARNING, "%s", sentence)
        self.sentence = sentence

    def over(self) -> None:
        """Say that it works again, and how long it did not; silent if it was well."""
        if self.sentence is not None:
            self.log.info("%s after %.1f s", self.recovery, (time.monotonic_ns() - self._since_ns) / 1e9)
            self.sentence = None


class Backoff:
    """Growing waits with jitter, so that many devices do not knock at the same time."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s
        self._random = random.Random()

    def next_s(self) -> float:
        """Seconds to wait now: between half and all of a time that doubles from call to call."""
        wait = self._next_s * self._random.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, self._longest_s)
        return wait

    def reset(self) -> None:
        """Begin again with the shortest wait."""
        self._next_s = self._first_s
