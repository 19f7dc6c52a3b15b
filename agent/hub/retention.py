"""Up to when old results may be removed, on a machine whose clock may leap as well.

What is removed is gone, so the clock must have earned it: it has gone on for a day without a leap. Restarts of the hub
count as going on if less than a day passed by the clock, so a hub that is switched off every night earns it as well.
Until then, and on a store that no hub has watched its clock for, the hub keeps everything.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from agent.clock import BUILT_US
from agent.clock_leap import GRAVE_US, Leaps

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """The clock of a hub went on between these times of its own."""

    since_us: int
    seen_us: int

    @classmethod
    def trusted(cls, at_us: int) -> "Stretch":
        """Of a clock that was trusted then, and is so still if it is a little less than that now."""
        return cls(at_us - 2 * DAY_US, at_us)


class Retention:
    """One thread calls it."""

    def __init__(self, keep_days: float, known: Iterable[Stretch], now_us: int) -> None:
        """``known``: what hubs on this database noted of their clocks, none of it if none ever has."""
        self._keep_us = int(keep_days * DAY_US)
        self._leaps = Leaps(GRAVE_US)
        going_on = (each.since_us for each in known if abs(now_us - each.seen_us) < DAY_US)
        self._since_us = min(going_on, default=now_us)
        self._leaps.look(time.monotonic_ns(), now_us - time.monotonic_ns() // 1000)

    def before_us(self, now_us: int) -> int | None:
        """What was received before then is too old; None: nobody can tell now."""
        now_ns = time.monotonic_ns()
        if self._leaps.look(now_ns, now_us - now_ns // 1000):
            self._since_us = now_us
        trusted = now_us >= BUILT_US and now_us - self._since_us >= DAY_US
        return now_us - self._keep_us if trusted else None

    def stretch(self, now_us: int) -> Stretch:
        """To be noted while nobody can tell, for the next start."""
        return Stretch(self._since_us, now_us)
