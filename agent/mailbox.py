"""The hand-over from a capture thread to a pipeline thread: bounded, drops the oldest, counts what it dropped."""

from collections import deque
from threading import Condition

from drivers.packet import Packet

CAPACITY = 256
"""Packets: some seconds of any sensor. A pipeline that is further behind had better see what is fresh."""


class Mailbox:
    """One writer, one reader."""

    def __init__(self, ready: Condition | None = None) -> None:
        """``ready``: what several mailboxes of one reader share."""
        self._packets: deque[tuple[Packet, int]] = deque()
        self._ready = ready or Condition()
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

    def first_ns(self) -> int | None:
        """When the oldest packet arrived; None where there is none."""
        with self._ready:
            return self._packets[0][1] if self._packets else None

    def __len__(self) -> int:
        return len(self._packets)


class Inbox:
    """The mailboxes of a reader of several sensors, one for each: who floods drops of its own."""

    def __init__(self, count: int) -> None:
        self._ready = Condition()
        self.mailboxes = tuple(Mailbox(self._ready) for _ in range(count))

    def get(self, timeout: float) -> tuple[int, Packet, int] | None:
        """What arrived first of all, with the number of its mailbox and its arrival time; None after ``timeout`` s."""
        with self._ready:
            if not any(self.mailboxes) and not self._ready.wait_for(lambda: any(self.mailboxes), timeout):
                return None
            waiting = [
                (first_ns, i) for i, box in enumerate(self.mailboxes) if (first_ns := box.first_ns()) is not None
            ]
            _, index = min(waiting)
            item = self.mailboxes[index].get(0)
            return None if item is None else (index, *item)
