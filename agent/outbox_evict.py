"""What goes when something has to: the lowest class first, the oldest first. Its numbers stay, in a gap record."""

import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from agent.outbox_schema import UPSERT_BATCH, Damaged, batch_record, batch_row
from agent.record import Key, Priority, Record
from agent.wire import Batch, Clock, WireError, decode, encode_gap

QUOTA_CAUSE = "quota"
AGE_CAUSE = "age"
ROW_BYTES = 200
"""What a stored batch costs beside its payload."""
THINNED = (Priority.RAW, Priority.TELEMETRY)
"""Half of these tells nearly as much; so of the older half of them every second stretch goes before all of them do."""
STRETCH_BYTES = 16384
"""One batch, if it is large; of small ones as many as it takes to free whole pages."""

AGE_CHECK_S = 10.0
AGE_STEP_S = 0.2
"""Between the steps of a walk that gives nothing up: each is a transaction, and takes what waits along."""

_AT_ONCE = 64
_BY_AGE = -1
_WALK = (
    "SELECT id, boot, stream, seq0, seq1, priority, is_gap, created_us, created_ns, "
    "CASE WHEN is_gap THEN payload ELSE x'' END, length(payload) FROM batches"
)
Now: TypeAlias = Callable[[], tuple[int, int]]
"""Unix time in microseconds and CLOCK_MONOTONIC in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """What one commit gave up."""

    rows: Mapping[Key, int] = field(default_factory=dict)
    """Results per boot and stream."""
    changed: Mapping[int, Record | None] = field(default_factory=dict)
    """Id -> the gap record that has this id now, or None if it found room in an earlier one."""

    @property
    def merged(self) -> int:
        """How many records fewer there are."""
        return sum(record is None for record in self.changed.values())


@dataclass(frozen=True, slots=True)
class AgeLimit:
    """What is older goes. Of this boot, and of others in the same epoch, CLOCK_MONOTONIC tells; of earlier ones the
    wall clock, and only if it was known to be right when the batch was made and has long been known to be right now
    (else ``oldest_us`` is None): a clock that leaps must not erase anything."""

    boot: str
    epoch: str
    oldest_ns: int
    oldest_us: int | None


class AgeWatch:
    """When to look for results that are too old, and where to go on looking. ``max_age_s`` None: never."""

    def __init__(self, max_age_s: float | None) -> None:
        self._max_age_s = max_age_s
        self._at_s = 0.0
        self._after_id = 0

    def is_due(self, now_s: float) -> bool:
        return self._max_age_s is not None and now_s >= self._at_s

    def expire(self, evictor: "Evictor", boot: str, clock: Clock) -> None:
        """Gives up what is too old by both clocks of a device that has booted as ``boot``."""
        max_age_us = round((self._max_age_s or 0.0) * 1e6)
        now_ns = clock.monotonic_ns()
        now_us = now_ns // 1000 + clock.offset_us() if clock.is_settled() else None
        oldest_us = None if now_us is None else now_us - max_age_us
        limit = AgeLimit(boot, clock.epoch(), now_ns - max_age_us * 1000, oldest_us)
        self._after_id, gave_up = evictor.expire(limit, self._after_id)
        wait_s = AGE_CHECK_S if not self._after_id else 0.0 if gave_up else AGE_STEP_S
        self._at_s = time.monotonic() + wait_s


def plan(
    excess_bytes: Callable[[], int] | None, most: int, age: AgeWatch, boot: str, clock: Clock
) -> "Callable[[Evictor], None] | None":
    """What a commit has to give up: what is too old, and ``excess_bytes``, but only ``most`` records. None: nothing."""
    aged = age.is_due(time.monotonic())

    def evict(evictor: Evictor) -> None:
        if aged:
            age.expire(evictor, boot, clock)
        if excess_bytes is not None:
            evictor.make_room(excess_bytes, most)

    return evict if aged or excess_bytes is not None else None


@dataclass(slots=True)
class Marks:
    """How far the walks have come, from one commit to the next. Copied before use: a commit may fail."""

    gaps: dict[tuple[int, Key], tuple[Record, str]] = field(default_factory=dict)
    """Of each walk the latest gap record and its cause: what comes right after it makes it longer."""
    oldest: dict[int, int] = field(default_factory=dict)
    """Class -> id up to which nothing of it is left to give up."""
    thinned: dict[int, int] = field(default_factory=dict)
    stretch: dict[int, tuple[bool, int]] = field(default_factory=dict)
    """Class -> whether thinning gives up the stretch where it is, and how much of it has passed."""

    def copy(self) -> "Marks":
        return Marks(dict(self.gaps), dict(self.oldest), dict(self.thinned), dict(self.stretch))


class Evictor:
    """Gives up records within the transaction that is open. ``keep`` are ids that must stay: they are on their way."""

    def __init__(self, db: sqlite3.Connection, marks: Marks, keep: Collection[int], now: Now) -> None:
        self._db = db
        self._marks = marks
        self._keep = keep
        self._now = now
        self._lost: dict[Key, int] = {}
        self._changed: dict[int, Record | None] = {}
        self._unwritten: dict[int, tuple[Record, str]] = {}
        self._gone: list[int] = []
        self._most = 0
        self._walker = _BY_AGE
        """The class that is walked."""

    def result(self) -> Eviction:
        return Eviction(self._lost, self._changed)

    def make_room(self, excess_bytes: Callable[[], int], most: int) -> None:
        """Until ``excess_bytes`` is not above 0, or nothing is left that may go, or ``most`` records have gone.

        Each may lie in a page of its own, which then goes through the WAL: the rest is for the next commit.
        """
        self._most = len(self._changed) + most
        for priority in Priority:
            self._walker = priority
            if priority in THINNED and self._must_go_on(excess_bytes()):
                self._thin(priority, excess_bytes)
            while self._must_go_on(excess := excess_bytes()) and self._drop(priority, excess):
                pass

    def expire(self, limit: "AgeLimit", after_id: int) -> tuple[int, bool]:
        """Looks at some records after an id: where to go on, 0 to begin again later; and whether any went."""
        found = self._walk("id > ?", after_id)
        after_id = 0
        for record, _ in found:
            after_id = record.id if len(found) == _AT_ONCE else 0
            expired = self._is_expired(record, limit)
            if record.is_gap or record.id in self._keep or expired is None:
                self._pass_by(record)
            elif expired:
                self._give_up(record, AGE_CAUSE)
            else:
                after_id = 0
                break
        return after_id, self._write()

    def _is_expired(self, record: Record, limit: "AgeLimit") -> bool | None:
        """None: nobody can tell how old it is."""
        if record.boot == limit.boot:
            return record.created_ns < limit.oldest_ns
        if record.is_gap:
            return None
        old_by_wall = limit.oldest_us is not None and record.created_us < limit.oldest_us
        if not old_by_wall and record.created_ns >= limit.oldest_ns:
            return None if limit.oldest_us is None else False
        epoch, uncertainty_ms = self._made_in(record)
        if epoch and epoch == limit.epoch:
            return record.created_ns < limit.oldest_ns
        if limit.oldest_us is None or not old_by_wall:
            return None if limit.oldest_us is None else False
        return True if uncertainty_ms is not None else None

    def _made_in(self, record: Record) -> tuple[str, float | None]:
        """The epoch of a batch, and how wrong its wall clock may be; nobody knows if it cannot be read."""
        (payload,) = self._db.execute("SELECT payload FROM batches WHERE id = ?", (record.id,)).fetchone()
        try:
            batch = decode(payload)
        except WireError:  # who sends it finds out
            return "", None
        return batch.epoch, batch.uncertainty_ms

    def _thin(self, priority: int, excess_bytes: Callable[[], int]) -> None:
        marks = self._marks
        while True:
            first, last = self._db.execute(
                "SELECT (SELECT id FROM batches WHERE id > ? AND priority = ? AND NOT is_gap ORDER BY id LIMIT 1), "
                "(SELECT max(id) FROM batches)",
                (marks.oldest.get(priority, 0), priority),
            ).fetchone()
            if first is None:
                marks.oldest[priority] = last or 0
                return
            start = max(first - 1, marks.thinned.get(priority, 0))
            rows = self._walk("id > ? AND id <= ? AND priority = ?", start, (first + last) // 2, priority)
            left_bytes = excess_bytes()
            for record, size_bytes in rows:
                if not self._must_go_on(left_bytes):
                    break
                marks.thinned[priority] = record.id
                if self._goes_by_thinning(record, size_bytes):
                    self._give_up(record, QUOTA_CAUSE)
                    left_bytes -= size_bytes + ROW_BYTES
                else:
                    self._pass_by(record)
            self._write()
            if not (rows and self._must_go_on(excess_bytes())):
                return

    def _must_go_on(self, excess_bytes: int) -> bool:
        return excess_bytes > 0 and len(self._changed) + len(self._unwritten) + len(self._gone) < self._most

    def _goes_by_thinning(self, record: Record, size_bytes: int) -> bool:
        goes, passed_bytes = self._marks.stretch.get(record.priority, (False, 0))
        if record.is_gap:
            goes, passed_bytes = False, 0  # here it was thinned before
        elif passed_bytes >= STRETCH_BYTES:
            goes, passed_bytes = not goes, 0
        self._marks.stretch[record.priority] = goes, passed_bytes + size_bytes + ROW_BYTES
        return goes and not record.is_gap and record.id not in self._keep

    def _drop(self, priority: int, excess_bytes: int) -> bool:
        """Gives up the oldest of a class; False if there is none."""
        marks = self._marks
        after_id, stay = marks.oldest.get(priority, 0), None
        while self._must_go_on(excess_bytes):
            # Gap records of all classes: what lies between two of them may be the last of its own.
            rows = self._walk("id > ? AND (priority = ? OR is_gap)", after_id, priority)
            for record, size_bytes in rows:
                after_id = record.id
                if record.is_gap or record.id in self._keep:
                    self._pass_by(record)
                    stay = stay or (record.id - 1 if record.id in self._keep else None)
                    continue
                self._give_up(record, QUOTA_CAUSE)
                excess_bytes -= size_bytes + ROW_BYTES
                if not self._must_go_on(excess_bytes):
                    break
            if not rows:
                after_id = max(after_id, self._db.execute("SELECT ifnull(max(id), 0) FROM batches").fetchone()[0])
                break
        marks.oldest[priority] = after_id if stay is None else stay
        return self._write()

    def _walk(self, where: str, *bounds: int) -> list[tuple[Record, int]]:
        """Records without their payload (gap records with it), and the payload's length."""
        found = self._db.execute(f"{_WALK} WHERE {where} ORDER BY id LIMIT {_AT_ONCE}", bounds)
        return [(batch_record(row[:-1]), row[-1]) for row in found]

    def _pass_by(self, record: Record) -> None:
        """A gap record joins the one before it; anything that stays ends that one."""
        if not record.is_gap or record.id in self._keep:
            self._marks.gaps.pop((self._walker, record.key), None)
            return
        cause = _decoded(record, record.payload).cause
        if not self._join(record, cause):
            self._marks.gaps[self._walker, record.key] = record, cause

    def _give_up(self, record: Record, cause: str) -> None:
        self._lost[record.key] = self._lost.get(record.key, 0) + record.rows
        if not self._join(record, cause):
            self._set_gap(record, record.seq0, record.seq1, cause)

    def _join(self, record: Record, cause: str) -> bool:
        """Whether the gap record before this one could be made longer in its place."""
        before, before_cause = self._marks.gaps.get((self._walker, record.key), (None, ""))
        if (
            before is None
            or before_cause != cause
            or before.seq1 + 1 != record.seq0
            or before.id >= record.id
            or before.id in self._keep
            or not (before.id in self._unwritten or self._has(before.id))
        ):
            return False
        self._gone.append(record.id)
        self._set_gap(before, before.seq0, record.seq1, cause)
        return True

    def _set_gap(self, at: Record, seq0: int, seq1: int, cause: str) -> None:
        """Notes the gap record; it is written when the walk ends, however often it grows until then."""
        created_us, created_ns = self._now()
        gap = Record(at.id, at.boot, at.stream, seq0, seq1, at.priority, True, created_us, created_ns, b"")
        self._marks.gaps[self._walker, at.key] = gap, cause
        self._unwritten[at.id] = gap, cause

    def _write(self) -> bool:
        """Writes what changed since the last time; whether anything did."""
        for gap, cause in self._unwritten.values():
            whole = replace(gap, payload=encode_gap(*gap.key, gap.seq0, gap.seq1, cause))
            self._db.execute(UPSERT_BATCH, batch_row(whole))
            self._changed[gap.id] = whole
            if self._marks.gaps.get((self._walker, gap.key), (None, ""))[0] is gap:
                self._marks.gaps[self._walker, gap.key] = whole, cause
        for one in self._gone:
            self._db.execute("DELETE FROM batches WHERE id = ?", (one,))
            self._changed[one] = None
        wrote = bool(self._unwritten or self._gone)
        self._unwritten, self._gone = {}, []
        return wrote

    def _has(self, record_id: int) -> bool:
        return self._db.execute("SELECT 1 FROM batches WHERE id = ?", (record_id,)).fetchone() is not None


def _decoded(record: Record, payload: bytes) -> Batch:
    try:
        return decode(payload)
    except WireError as error:
        raise Damaged(f"{record.stream} {record.seq0} to {record.seq1}: {error}") from error
