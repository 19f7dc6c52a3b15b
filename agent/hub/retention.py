"""Up to when old results may be removed, on a machine whose clock may leap as well.

What is removed is gone, so the clock must have earned it: it goes on from where a clock that was trusted has been less
than a day before, or it has not leapt for a day. Until then the hub keeps everything.
"""

import time

from agent.clock import BUILT_US
from agent.clock_leap import GRAVE_US, Leaps

DAY_US = 86_400_000_000


class Retention:
    """One thread calls it."""

    def __init__(self, keep_days: float, trusted_us: int | None, now_us: int) -> None:
        """``trusted_us``: the last time at which a hub on this database trusted its clock; None if none ever has."""
        self._keep_us = int(keep_days * DAY_US)
        self._leaps = Leaps(GRAVE_US)
        self._goes_on = trusted_us is None or abs(now_us - trusted_us) < DAY_US
        self._leaps.look(time.monotonic_ns(), now_us - time.monotonic_ns() // 1000)

    def before_us(self, now_us: int) -> int | None:
        """What was received before then is too old; None: nobody can tell now."""
        now_ns = time.monotonic_ns()
        if self._leaps.look(now_ns, now_us - now_ns // 1000):
            self._goes_on = False
        trusted = now_us >= BUILT_US and (self._goes_on or self._leaps.is_settled(now_ns))
        return now_us - self._keep_us if trusted else None
