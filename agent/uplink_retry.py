"""When to knock at the broker again: soon in a young outage, later in a long one, at once when the network is back."""

import logging
import time
from collections.abc import Callable
from threading import Event as Flag

from agent.outage import Backoff
from agent.uplink_network import NetworkWatch

log = logging.getLogger(__name__)

SOON_S = 120.0
SOON_LONGEST_S = 1.5
"""An outage that is this young is most likely a restart: it is worth knocking often."""
LATER_LONGEST_S = 30.0


class Retry:
    """The uplink's thread calls it. Between ``open`` and ``close`` it listens to the kernel."""

    def __init__(self) -> None:
        self._network = NetworkWatch()
        self._soon = Backoff(0.5, SOON_LONGEST_S)
        self._later = Backoff(SOON_LONGEST_S, LATER_LONGEST_S)
        self._lost_s = time.monotonic()

    def open(self) -> None:
        self._network.open()
        self.begin()

    def close(self) -> None:
        self._network.close()

    def begin(self) -> None:
        """An outage begins, or another one: a connection that held has ended, or the network has changed."""
        self._lost_s = time.monotonic()
        self._soon.reset()
        self._later.reset()

    def attempt(self) -> None:
        """A connection is tried now, with the network as it is."""
        self._network.forget()

    def wait_s(self) -> float:
        """How long to wait this time, with jitter."""
        return (self._soon if time.monotonic() - self._lost_s < SOON_S else self._later).next_s()

    def rest(self, stop: Flag, beat: Callable[[], None]) -> None:
        """Waits, beating, until it is time for the next attempt or ``stop`` is set."""
        end_s = time.monotonic() + self.wait_s()
        while not stop.is_set() and (left_s := end_s - time.monotonic()) > 0:
            beat()
            if self._network.rest(left_s, stop):
                log.debug("the network has changed, connecting at once")
                self.begin()
                return
