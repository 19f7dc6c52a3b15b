"""Plays samples that exist already, at the time at which a sensor would have captured them."""

import threading
import time
from typing import Literal, TypeAlias

from drivers.lib.clock import NS_PER_S

Pace: TypeAlias = Literal["real", "fast"]
"""``real``: a packet comes when its last sample would have been captured. ``fast``: at once, with the same times."""


class Pacer:
    """The time grid of one source since ``start``: sample i is captured at start + i / rate, exactly, for ever."""

    def __init__(self, pace: Pace, rate_hz: float) -> None:
        self._pace = pace
        self._rate_hz = rate_hz
        self._start_ns = 0
        self._never = threading.Event()

    def start(self) -> None:
        """Sample 0 is captured now."""
        self._start_ns = time.monotonic_ns()

    def t_ns(self, sample: int) -> int:
        """CLOCK_MONOTONIC ns of sample ``sample``; at ``fast`` pace it may lie in the future."""
        return self._start_ns + round(sample * NS_PER_S / self._rate_hz)

    def wait(self, sample: int, timeout: float) -> bool:
        """Wait until everything before ``sample`` is captured, at most ``timeout`` s; tell whether it is."""
        return self.wait_until(self.t_ns(sample), timeout)

    def wait_until(self, due_ns: int, timeout: float) -> bool:
        """The same for a time on this source's grid."""
        if self._pace == "fast":
            return True
        left_s = (due_ns - time.monotonic_ns()) / NS_PER_S
        if left_s > 0:
            self._never.wait(max(0.0, min(left_s, timeout)))
        return time.monotonic_ns() >= due_ns
