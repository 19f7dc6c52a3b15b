"""One transaction's worth of results: numbered and encoded once, so that a retry writes the same bytes."""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.ledger import Counts
from agent.record import Key, Record
from agent.wire import MAX_ROWS, Clock, Row, encode

GROUP_S = 0.1
"""A steady flow is committed this often: flash memory wears by commits."""
BURST_S = 1.0
"""What came less often is saved up, ten commits at most: a lone result is durable at once."""


class CommitPace:
    """When the next commit is due: ten a second in the long run, at once while some of those are saved up."""

    def __init__(self) -> None:
        self._spent_until_s = 0.0

    def due_s(self, now_s: float) -> float:
        """Seconds from ``now_s`` on; not above 0 means now."""
        return self._spent_until_s - BURST_S - now_s

    def committed(self, now_s: float) -> None:
        """One commit is spent."""
        self._spent_until_s = max(self._spent_until_s, now_s) + GROUP_S


@dataclass(frozen=True, slots=True)
class Queued:
    """A result on its way to the disk."""

    stream: str
    payload: Row
    priority: int
    put_ns: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Everything that waited at one moment, and the ledger at that moment."""

    rows: list[Queued]
    settled: list[int]
    given_up: list[Record]
    counts: Mapping[Key, Counts]


@dataclass(frozen=True, slots=True)
class Group:
    records: list[Record]
    replaced: list[Record]
    settled: list[int]
    ledger: Mapping[Key, tuple[Counts, int]]
    """Counts and next sequence number."""
    rows: list[Queued]


def build(taken: Taken, boot: str, next_seq: dict[Key, int], next_id: int, clock: Clock) -> Group:
    """Makes a batch per stream (several if they are long) and advances ``next_seq``."""
    created_us, created_ns = now(clock)
    streams: dict[str, list[Queued]] = {}
    for row in taken.rows:
        streams.setdefault(row.stream, []).append(row)
    records: list[Record] = []
    for stream, rows in streams.items():
        key = (boot, stream)
        for start in range(0, len(rows), MAX_ROWS):
            part = rows[start : start + MAX_ROWS]
            seq0 = next_seq[key]
            next_seq[key] += len(part)
            payload = encode(*key, seq0, [(row.put_ns, row.payload) for row in part], clock)
            priority = max(row.priority for row in part)
            records.append(
                Record(
                    next_id + len(records),
                    *key,
                    seq0,
                    next_seq[key] - 1,
                    priority,
                    False,
                    created_us,
                    created_ns,
                    payload,
                )
            )
    ledger = {key: (counts, next_seq.get(key, 1)) for key, counts in taken.counts.items()}
    return Group(records, taken.given_up, taken.settled, ledger, taken.rows)


def now(clock: Clock) -> tuple[int, int]:
    """Unix time in microseconds and CLOCK_MONOTONIC in nanoseconds."""
    now_ns = clock.monotonic_ns()
    return now_ns // 1000 + clock.offset_us(), now_ns
