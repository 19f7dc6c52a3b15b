"""What the broker does not take. A stream that it refuses has a pause of its own and holds up no other."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.link import QUOTA_EXCEEDED, Acked
from agent.outage import Backoff, Outage
from agent.outbox import Outbox
from agent.record import Record
from agent.uplink_flight import Flight

log = logging.getLogger(__name__)

FIRST_S = 1.0
LONGEST_S = 60.0


@dataclass(slots=True)
class Refusal:
    """One stream's."""

    outage: Outage
    due_s: float = 0.0
    """When to try again."""
    sample: Record | None = None
    """What is tried then, alone, and is leased; None while it is under way."""
    pause: Backoff = field(default_factory=lambda: Backoff(FIRST_S, LONGEST_S))


class RefusedStreams:
    """One record of each refused stream is kept here and tried again; the outbox keeps the others to itself."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._streams: dict[str, Refusal] = {}
        self._quota = Outage(log, "the broker takes results again")
        self._pause = Backoff(FIRST_S, LONGEST_S)
        self._paused_until_s = 0.0

    @property
    def sentence(self) -> str | None:
        """What is refused first of all, and why; any thread may ask."""
        return next((one.outage.sentence for one in list(self._streams.values())), self._quota.sentence)

    def begin(self) -> None:
        """A connection begins, perhaps to another broker: all is tried again."""
        self._streams = {}
        self._outbox.shelve(())

    def is_paused(self, now_s: float) -> bool:
        """Whether nothing at all is to be sent."""
        return now_s < self._paused_until_s

    def refused(self, record: Record, answer: Acked, topic: str, flight: Flight, now_s: float) -> None:
        """``answer`` is the broker's to ``record``, which was sent on ``topic``."""
        sentence = f"the broker refuses results on {topic}: {answer.name}"
        under_way, refusal = flight.remove(record), self._streams.get(record.stream)
        if answer.code == QUOTA_EXCEEDED and refusal is None:
            self._quota.failed(sentence)
            if now_s >= self._paused_until_s:
                self._paused_until_s = now_s + self._pause.next_s()
            if under_way:
                self._outbox.settle((), [record])
            return
        if not under_way and (refusal is None or refusal.sample is not None):
            return
        if refusal is None:
            refusal = Refusal(Outage(log, f"the broker takes results on {topic} again"))
            self._streams[record.stream] = refusal
        refusal.outage.failed(sentence)
        refusal.sample, refusal.due_s = record, now_s + refusal.pause.next_s()
        self._outbox.shelve(self._streams)
        self._outbox.settle((), flight.take_stream(record.stream))

    def due(self, now_s: float, room: int) -> list[Record]:
        """What to try again now, at most ``room`` of it; it counts as under way."""
        records: list[Record] = []
        for refusal in self._streams.values():
            if refusal.sample is not None and now_s >= refusal.due_s and len(records) < room:
                records.append(refusal.sample)
                refusal.sample = None
        return records

    def taken(self, stream: str) -> None:
        """The broker takes a message of ``stream``."""
        refusal = self._streams.pop(stream, None)
        if refusal is None:
            return
        refusal.outage.over()
        self._outbox.shelve(self._streams)
        if refusal.sample is not None:
            self._outbox.settle((), [refusal.sample])

    def accepted(self, records: Iterable[Record]) -> None:
        """These are where they should be."""
        self._pause.reset()
        self._quota.over()
        if self._streams:
            for record in records:
                self.taken(record.stream)
