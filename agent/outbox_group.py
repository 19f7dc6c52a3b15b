"""One transaction's worth of results: numbered and encoded once, so that a retry writes the same bytes."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.ledger import Entry
from agent.record import Key, Record
from agent.wire import MAX_ROWS, MAX_WIRE_BYTES, Clock, Row, encode

log = logging.getLogger("agent.outbox")

GROUP_S = 0.085
"""A steady flow is committed this often: flash memory wears by commits."""
BURST_S = 1.0
"""What came less often is saved up, so long at most: a lone result is durable at once."""


class CommitPace:
    """When the next commit is due: one per interval in the long run, at once while some of those are saved up."""

    def __init__(self, interval_s: float = GROUP_S) -> None:
        self._interval_s = interval_s
        self._spent_until_s = 0.0

    def due_s(self, now_s: float) -> float:
        """Seconds from ``now_s`` on; not above 0 means now."""
        return self._spent_until_s - BURST_S - now_s

    def committed(self, now_s: float) -> None:
        """One commit is spent. Hurried ones, as many as there were, delay the next by no more than an interval."""
        spent_until_s = max(self._spent_until_s, now_s) + self._interval_s
        self._spent_until_s = min(spent_until_s, now_s + BURST_S + self._interval_s)


class Queued(NamedTuple):
    """A result on its way to the disk. A tuple, because it is made for each result."""

    stream: str
    payload: Row
    priority: int
    put_ns: int


@dataclass(slots=True)
class Taken:
    """Everything that waited at one moment, and the ledger at that moment."""

    rows: list[Queued]
    settled: list[int]
    given_up: list[Record]
    ledger: Mapping[Key, Entry]
    """Copies, without the rows above."""


@dataclass(slots=True)
class Group:
    records: list[Record]
    replaced: list[Record]
    settled: list[int]
    ledger: Mapping[Key, Entry]
    """The accounts that change, with the records above."""
    rows: list[Queued]
    refused: list[Queued] = field(default_factory=list)
    """What goes into no record, whatever is done with it."""

    @property
    def settling(self) -> set[int]:
        """Ids that it deletes or replaces."""
        return {*self.settled, *(gap.id for gap in self.replaced)}

    def evicted_before(self, rows_by_key: Mapping[Key, int]) -> None:
        """Another transaction came first and gave up so many results."""
        for key in rows_by_key.keys() & self.ledger.keys():
            self.ledger[key].counts.evicted += rows_by_key[key]


NOTHING = Group([], [], [], {}, [])
"""For a transaction that only gives up something."""


class Batcher:
    """Makes groups of bounded size."""

    def __init__(self, group_bytes: int) -> None:
        """A group takes records until they have ``group_bytes``; no record has more than half of that."""
        self._group_bytes = group_bytes
        self._record_bytes = min(group_bytes // 2, MAX_WIRE_BYTES // 2)
        self._part_rows = MAX_ROWS
        self._told: set[str] = set()

    def build(self, taken: Taken, boot: str, next_id: int, clock: Clock) -> tuple[Group, list[Queued]]:
        """A batch per stream, or several, entered in the accounts that were taken; and the rows that found no room.

        A row that alone is too large, or is nothing that JSON can carry, is counted as refused and takes no number.
        """
        created_us, created_ns = now(clock)
        streams: dict[str, list[Queued]] = {}
        for row in taken.rows:
            streams.setdefault(row.stream, []).append(row)
        records: list[Record] = []
        left: list[Queued] = []
        refused: list[Queued] = []
        room_bytes = self._group_bytes
        for stream, rows in streams.items():
            key = (boot, stream)
            entry = taken.ledger[key]
            start = 0
            while start < len(rows) and room_bytes > 0:
                seq0 = entry.next_seq
                part, payload = self._encode(key, seq0, rows, start, clock)
                if payload is None:
                    entry.counts.refused += 1
                    refused += part
                    start += 1
                    continue
                room_bytes -= len(payload)
                start += len(part)
                seq1 = entry.next_seq + len(part) - 1
                priority = int(max(row.priority for row in part))
                record_id = next_id + len(records)
                records.append(Record(record_id, *key, seq0, seq1, priority, False, created_us, created_ns, payload))
                entry.next_seq = seq1 + 1
                entry.held.add(seq0, seq1)
            entry.counts.produced -= len(rows) - start
            left += rows[start:]
        out = set(map(id, left + refused))
        rows_in = [row for row in taken.rows if id(row) not in out] if out else taken.rows
        return Group(records, taken.given_up, taken.settled, taken.ledger, rows_in, refused), left

    def _encode(
        self, key: Key, seq0: int, rows: list[Queued], start: int, clock: Clock
    ) -> tuple[list[Queued], bytes | None]:
        """The first rows from ``start`` that fit into a record, and that record; None: the first one fits into none."""
        while True:
            part = rows[start : start + self._part_rows]
            try:
                payload = encode(*key, seq0, [(row.put_ns, row.payload) for row in part], clock)
                fits = len(payload) <= self._record_bytes
            except Exception as error:  # noqa: BLE001 - whatever somebody put: its neighbours must not suffer
                fits = False
                if len(part) == 1 and key[1] not in self._told:
                    self._told.add(key[1])
                    log.warning("a result of %s cannot be stored: %s: %s", key[1], type(error).__name__, error)
            if not fits and len(part) == 1:
                return part, None
            if not fits:
                self._part_rows = len(part) // 2
                continue
            if len(payload) < self._record_bytes // 4:
                self._part_rows = min(2 * self._part_rows, MAX_ROWS)
            return part, payload


def now(clock: Clock) -> tuple[int, int]:
    """Unix time in microseconds and CLOCK_MONOTONIC in nanoseconds."""
    now_ns = clock.monotonic_ns()
    return now_ns // 1000 + clock.offset_us(), now_ns
