"""The thread of one sensor: opens the driver, reads packets, hands them to the pipelines, opens again after a loss."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from agent.mailbox import Mailbox
from agent.outage import Backoff, Outage
from drivers.base import Driver, EndOfInput, Unavailable
from drivers.packet import EVENT, Packet

READ_TIMEOUT_S = 0.5
RETRY_FIRST_S = 0.25
RETRY_LONGEST_S = 5.0
LOOK_S = 0.2
"""Tries are rare, since each costs something; where the device appears is looked at so often, so it is back at once."""
RATE_SPAN_NS = 5_000_000_000


@dataclass(slots=True)
class SensorState:
    """What is known of a sensor now. Its capture thread writes, status readers read single fields."""

    state: str = "opening"
    """``opening``, ``live``, ``missing`` or ``ended``."""
    since_ns: int = 0
    """Capture time of the first sample since the last open."""
    packets: int = 0
    taken: tuple[int, int] = (0, 0)
    """Samples so far, and the capture time just behind the last of them (of events: of the last one), as one object."""
    rate_hz: float = 0.0
    """Measured over the last seconds."""
    lost: int = 0
    reopened: int = 0


class Capture:
    """Worker around one driver."""

    critical = False

    def __init__(self, driver: Driver[Any], mailboxes: Sequence[Mailbox]) -> None:
        self.name = f"capture:{driver.name}"
        self.driver = driver
        self.info = SensorState()
        self._mailboxes = mailboxes
        self._end_ns: int | None = None
        self.outage = Outage(logging.getLogger(__name__), f"sensor {driver.name} works again")

    @property
    def dropped_samples(self) -> int:
        """Samples that a pipeline did not take in time."""
        return sum(mailbox.dropped_samples for mailbox in self._mailboxes)

    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        backoff = Backoff(RETRY_FIRST_S, RETRY_LONGEST_S)
        while not stop.is_set():
            beat()
            before = _identity(self.driver.place)
            try:
                self.driver.open()
                self._read(stop, beat, backoff)
            except EndOfInput:
                self.info.state = "ended"
                return
            except Unavailable as error:
                self.info.state = "missing"
                self.info.rate_hz = 0.0
                self.outage.failed(f"{self.name.partition(':')[2]}: {error}")
            finally:
                # Before the wait: a port that somebody still holds comes back under another number.
                self.driver.close()
            self._wait(stop, beat, backoff, before)

    def _wait(self, stop: Event, beat: Callable[[], None], backoff: Backoff, before: object) -> None:
        """Until the next try: as long as the back-off says, or until the place is not what it was before the last."""
        end_s = time.monotonic() + backoff.next_s()
        while (left_s := end_s - time.monotonic()) > 0 and not stop.wait(min(left_s, LOOK_S)):
            beat()
            if _identity(self.driver.place) != before:
                backoff.reset()
                return

    def _read(self, stop: Event, beat: Callable[[], None], backoff: Backoff) -> None:
        state = self.info
        first = True
        span_start_ns, span_samples = time.monotonic_ns(), 0
        while not stop.is_set():
            beat()
            if not self.driver.live and not all(mailbox.wait_room(READ_TIMEOUT_S) for mailbox in self._mailboxes):
                continue
            packet = self.driver.read(READ_TIMEOUT_S)
            now_ns = time.monotonic_ns()
            if now_ns - span_start_ns > RATE_SPAN_NS:
                state.rate_hz = span_samples * 1e9 / (now_ns - span_start_ns)
                span_start_ns, span_samples = now_ns, 0
            if packet is None:
                continue
            if first:
                first = False
                self._begin(packet)
                backoff.reset()
            for mailbox in self._mailboxes:
                mailbox.put(packet, now_ns)
            state.packets += 1
            span_samples += len(packet.data)
            state.lost += packet.lost
            self._end_ns = _end_ns(packet)
            state.taken = state.taken[0] + len(packet.data), self._end_ns

    def _begin(self, packet: Packet) -> None:
        """The first packet since an open; what a live sensor measured while it was away is lost, and counted."""
        state = self.info
        state.state, state.since_ns = "live", packet.t0_ns
        self.outage.over()
        if self._end_ns is not None:
            state.reopened += 1
            if self.driver.live and packet.dt_ns:
                state.lost += max(0, round((packet.t0_ns - self._end_ns) / packet.dt_ns))


def _end_ns(packet: Packet) -> int:
    if packet.data.dtype == EVENT:
        return int(packet.data[-1]["t_ns"])
    return packet.t0_ns + packet.dt_ns * len(packet.data)


def _identity(place: str | None) -> tuple[int, int, int] | None:
    """What is another one after a device came, went, or was made accessible; None for nothing there."""
    if place is None:
        return None
    try:
        found = Path(place).stat()
    except OSError:
        return None
    return found.st_ino, found.st_rdev, found.st_ctime_ns
