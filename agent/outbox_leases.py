"""Which stored records are offered, leased and settled. In memory only; the outbox calls it under its lock.

Two lanes: the newest records are *fresh* and are handed out first, so that a new result does not wait behind what piled
up during an outage. What does not find room among them is *backlog*, which is read from the file piece by piece.
"""

import math
import time
from bisect import insort
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter

from agent.record import Lane, Record

FRESH_FULL = 64
"""At the pace of the commits more than six seconds of one stream."""
READY_LOW = 128
READY_FULL = 512
SETTLE_LINGER_S = 1.0
"""Deletions wait this long for new rows to share their transaction: one write to the flash instead of two."""
SETTLE_RECORDS = 256

_by_id = attrgetter("id")


class Leases:
    """Every stored record up to the cursor is known here: offered, leased, settled or given up.

    Beyond the cursor some are (all of them, while nothing is ``unread``); the others are read from the file when the
    backlog in memory runs low.
    """

    def __init__(self) -> None:
        self.fresh: deque[Record] = deque()
        """Offered first, oldest first."""
        self.backlog: deque[Record] = deque()
        """Offered next, oldest first."""
        self.leased: dict[int, Record] = {}
        self.settled: list[int] = []
        """Accepted, to be deleted with the next commit."""
        self.given_up: list[Record] = []
        """Gap records that take the place of the stored record with the same id at the next commit."""
        self._settled_since_s = 0.0
        self._shelved: dict[str, float] = {}
        """Streams that are not offered now, with the lowest id that was left out for that: it is in the file only."""
        self._leased_fresh: set[int] = set()
        self._cursor = 0
        self._asked_after = 0
        self._unread = True

    @property
    def oldest(self) -> Record | None:
        """Of those in memory that are not settled."""
        firsts = (*self.leased.values(), *list(self.backlog)[:1], *list(self.fresh)[:1])
        return min(firsts, key=_by_id, default=None)

    def leasable(self, backlog: int | None) -> bool:
        """Whether ``lease`` has something, with at most ``backlog`` records of that lane (None: any number)."""
        return bool(self.fresh or (self.backlog and backlog != 0))

    def lease(self, limit: int, backlog: int | None) -> list[Record]:
        records = [self.fresh.popleft() for _ in range(min(limit, len(self.fresh)))]
        self._leased_fresh.update(record.id for record in records)
        room = limit - len(records) if backlog is None else min(limit - len(records), backlog)
        records += [self.backlog.popleft() for _ in range(min(room, len(self.backlog)))]
        self.leased.update((record.id, record) for record in records)
        return records

    def lane(self, record: Record) -> Lane:
        """The lane that a leased record came from."""
        return "fresh" if record.id in self._leased_fresh else "backlog"

    def accept(self, records: Iterable[Record]) -> list[Record]:
        """Those of the records that were leased; they are settled now."""
        accepted = [record for record in records if self._pop(record.id)]
        if not self.settled:
            self._settled_since_s = time.monotonic()
        self._leased_fresh.difference_update(map(_by_id, accepted))
        self.settled += map(_by_id, accepted)
        return accepted

    def settle_due_s(self, now_s: float) -> float:
        """Seconds until what is settled or given up should be written; infinite if nothing is."""
        if len(self.settled) >= SETTLE_RECORDS:
            return 0.0
        return self._settled_since_s + SETTLE_LINGER_S - now_s if self.settled or self.given_up else math.inf

    def release(self, records: Iterable[Record]) -> None:
        """Offers again, in their lane, those of the records that are leased."""
        for record in records:
            if self._pop(record.id):
                self._offer(record)
        self._overflow()

    def give_up(self, gap: Record) -> bool:
        """Offers ``gap`` in place of the leased record with its id; False if that is not leased."""
        if not self._pop(gap.id):
            return False
        self.given_up.append(gap)
        self._offer(gap)
        self._overflow()
        return True

    def added(self, records: Iterable[Record]) -> None:
        """Newly stored records are fresh; they push the oldest of that lane into the backlog."""
        self.fresh.extend(filter(self._is_offered, records) if self._shelved else records)
        self._overflow()

    def shelve(self, streams: Collection[str]) -> None:
        """Exactly these streams are not offered from now on, and fill no memory; the others are read again."""
        for stream in self._shelved.keys() - streams:
            if (left_out := self._shelved.pop(stream)) < math.inf:
                self._cursor, self._unread = min(self._cursor, int(left_out) - 1), True
        self._shelved.update((stream, math.inf) for stream in streams if stream not in self._shelved)
        self.fresh = deque(filter(self._is_offered, self.fresh))
        self.backlog = deque(filter(self._is_offered, self.backlog))

    def untouchable(self) -> set[int]:
        """Ids that must not be evicted: on their way, or counted already."""
        return {*self.leased, *self.settled, *map(_by_id, self.given_up)}

    def all(self) -> list[Record]:
        """Every record in memory that is not settled, those first that the file does not have yet."""
        return [*self.given_up, *self.leased.values(), *self.fresh, *self.backlog]

    def withdraw(self) -> "Leases":
        """Takes back what is offered, because it may be evicted now; ``offer_again`` ends that."""
        offered = Leases()
        offered.fresh, self.fresh = self.fresh, offered.fresh
        offered.backlog, self.backlog = self.backlog, offered.backlog
        return offered

    def offer_again(self, offered: "Leases", changed: Mapping[int, Record | None]) -> None:
        """``changed`` names the records that are other ones now, or (None) gone."""

        def kept(lane: Iterable[Record]) -> list[Record]:
            now = (changed.get(record.id, record) for record in lane)
            return [record for record in now if record is not None and self._is_offered(record)]

        self.fresh = deque(sorted((*kept(offered.fresh), *self.fresh), key=_by_id))
        self.backlog = deque(sorted((*kept(offered.backlog), *self.backlog), key=_by_id))
        self._overflow()

    def wants_more(self) -> bool:
        return self._unread and len(self.backlog) < READY_LOW

    def next_read(self) -> tuple[int, int]:
        """After which id and how many records to read."""
        known = len(self.fresh) + len(self.leased) + len(self.settled)
        self._asked_after = self._cursor
        return self._cursor, max(0, READY_FULL - len(self.backlog)) + known

    def read(self, found: list[Record], asked: int) -> None:
        """What the file gave for ``next_read``."""
        if self._cursor < self._asked_after:  # streams are offered again meanwhile: it must be read from there
            return
        known = {*self.leased, *self.settled, *map(_by_id, self.fresh), *map(_by_id, self.backlog)}
        instead = {gap.id: gap for gap in self.given_up}
        new = [instead.get(one.id, one) for one in found if one.id not in known and self._is_offered(one)]
        if new:
            self.backlog = deque(sorted((*self.backlog, *new), key=_by_id))
        if found:
            self._cursor = found[-1].id
        self._unread = len(found) == asked

    def _pop(self, record_id: int) -> bool:
        return self.leased.pop(record_id, None) is not None

    def _offer(self, record: Record) -> None:
        lane = self.fresh if record.id in self._leased_fresh else self.backlog
        self._leased_fresh.discard(record.id)
        if self._is_offered(record):
            _insert(lane, record)

    def _is_offered(self, record: Record) -> bool:
        left_out = self._shelved.get(record.stream)
        if left_out is not None:
            self._shelved[record.stream] = min(left_out, record.id)
        return left_out is None

    def _overflow(self) -> None:
        while len(self.fresh) > FRESH_FULL:
            record = self.fresh.popleft()
            if record.id <= self._cursor or not (self._unread or len(self.backlog) >= READY_FULL):
                _insert(self.backlog, record)
            elif not self._unread:
                self._cursor, self._unread = record.id - 1, True


def _insert(lane: deque[Record], record: Record) -> None:
    """Keeps the order of the ids; nearly always the record belongs to one of the ends."""
    if not lane or lane[-1].id < record.id:
        lane.append(record)
    elif record.id < lane[0].id:
        lane.appendleft(record)
    else:
        insort(lane, record, key=_by_id)
