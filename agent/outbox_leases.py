"""Which stored records are offered, leased and settled. In memory only; the outbox calls it under its lock."""

from collections import deque
from collections.abc import Iterable

from agent.record import Record

READY_LOW = 128
READY_FULL = 512


class Leases:
    """Holds a bounded stretch of the oldest records; what lies beyond is read from the file when it runs low."""

    def __init__(self) -> None:
        self.ready: deque[Record] = deque()
        """Offered, oldest first."""
        self.leased: dict[int, Record] = {}
        self.settled: list[int] = []
        """Accepted, to be deleted with the next commit."""
        self.given_up: list[Record] = []
        """Gap records that take the place of the stored record with the same id at the next commit."""
        self._cursor = 0
        self._backlog = True

    def lease(self, limit: int) -> list[Record]:
        records = [self.ready.popleft() for _ in range(min(limit, len(self.ready)))]
        self.leased.update((record.id, record) for record in records)
        return records

    def accept(self, records: Iterable[Record]) -> list[Record]:
        """Those of the records that were leased; they are settled now."""
        accepted = [record for record in records if self.leased.pop(record.id, None) is not None]
        self.settled += [record.id for record in accepted]
        return accepted

    def release(self, records: Iterable[Record]) -> None:
        """Offers again those of the records that are leased."""
        self._offer([record for record in records if self.leased.pop(record.id, None) is not None])

    def give_up(self, gap: Record) -> bool:
        """Offers ``gap`` in place of the leased record with its id; False if that is not leased."""
        if self.leased.pop(gap.id, None) is None:
            return False
        self.given_up.append(gap)
        self._offer([gap])
        return True

    def added(self, records: list[Record]) -> None:
        """Newly stored records: offered at once unless older ones wait in the file."""
        if self._backlog or len(self.ready) + len(records) > READY_FULL:
            self._backlog = True
        elif records:
            self.ready.extend(records)
            self._cursor = records[-1].id

    def untouchable(self) -> set[int]:
        """Ids that must not be evicted: on their way, or counted already."""
        return {*self.leased, *self.settled, *(gap.id for gap in self.given_up)}

    def reread(self) -> None:
        """Takes back what is offered: it may be evicted now and is read from the file again afterwards."""
        self.ready.clear()
        self._cursor, self._backlog = 0, True

    def wants_more(self) -> bool:
        return self._backlog and len(self.ready) < READY_LOW

    def next_read(self) -> tuple[int, int]:
        """After which id and how many records to read."""
        return self._cursor, READY_FULL - len(self.ready) + len(self.leased) + len(self.settled)

    def read(self, found: list[Record], asked: int) -> None:
        """What the file gave for ``next_read``."""
        passed = {*self.leased, *self.settled, *(record.id for record in self.ready)}
        instead = {gap.id: gap for gap in self.given_up}
        self._offer([instead.get(record.id, record) for record in found if record.id not in passed])
        if found:
            self._cursor = found[-1].id
        self._backlog = len(found) == asked

    def _offer(self, records: list[Record]) -> None:
        if records:
            self.ready = deque(sorted((*records, *self.ready), key=lambda record: record.id))
