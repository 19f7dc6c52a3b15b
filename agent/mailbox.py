"""The hand-over from a capture thread to a pipeline thread: bounded, drops the oldest, counts what it dropped."""

from collections import deque
from threading import Condition

from drivers.packet import Packet

CAPACITY = 256
"""Packets: some seconds of any sensor. A pipeline that is further behind had better see what is fresh."""


class Mailbox:
    """One writer, one reader."""

    def __init__(self) -> None:
        self._packets: deque[tuple[Packet, int]] = deque()
        self._ready = Condition()
        self.dropped_packets = 0
        self.dropped_samples = 0

    def put(self, packet: Packet, arrived_ns: int) -> None:
        """Hand over ``packet``, which arrived at CLOCK_MONOTONIC ``arrived_ns``. Never waits."""
        with self._ready:
            if len(self._packets) >= CAPACITY:
                oldest, _ = self._packets.popleft()
                self.dropped_packets += 1
                self.dropped_samples += len(oldest.data)
            self._packets.append((packet, arrived_ns))
            self._ready.notify_all()

    def get(self, timeout: float) -> tuple[Packet, int] | None:
        """The oldest packet and its arrival time, or None after ``timeout`` seconds."""
        with self._ready:
            if not self._packets and not self._ready.wait_for(lambda: bool(self._packets), timeout):
                return None
            item = self._packets.popleft()
            self._ready.notify_all()
            return item

    def wait_room(self, timeout: float) -> bool:
        """For sources that can wait: True as soon as ``put`` would drop nothing, False after ``timeout`` seconds."""
        with self._ready:
            return self._ready.wait_for(lambda: len(self._packets) < CAPACITY, timeout)

    def __len__(self) -> int:
        return len(self._packets)
