"""The outbox's SQLite file. Only the outbox thread calls in here; it owns the one connection."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ConfigError
from agent.ledger import Counts, Entry
from agent.outbox_evict import ROW_BYTES, Eviction, Evictor, Marks, Now
from agent.outbox_file import aside_bytes, file_bytes, take_over
from agent.outbox_group import GROUP_S, Group
from agent.outbox_pages import problem
from agent.outbox_ranges import Ranges
from agent.outbox_schema import (
    BATCH_COLUMNS,
    HELD_RANGES,
    LEDGER_COLUMNS,
    MAX_ID,
    PAGE_BYTES,
    UPSERT_BATCH,
    UPSERT_LEDGER,
    UPSERT_TOTAL,
    Damaged,
    batch_record,
    batch_row,
    check_types,
    ledger_entry,
    ledger_row,
    settle_version,
)
from agent.outbox_wear import WearMeter
from agent.record import Key, Record
from agent.wire import is_genuine

MIN_QUOTA_BYTES = 1 << 20
TOTALS_S = 60.0
"""How often the totals are written, with a commit that is made anyway: each would cost a page of its own."""

SURE_S = 1.0
"""How long a measured distance from the quota holds, less what was written since: others fill the disk as well."""
_KEPT_LEDGER_ROWS = 256
_BEAT_STEPS = 100_000
_EVICTED_AT_ONCE = 48
_ODD_PAGES = 16


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """What the outbox may take."""

    max_bytes: int = 256 << 20
    """Bounds the file with its WAL and the damaged files that are kept."""
    max_queued_rows: int = 20_000
    """Bounds what waits in memory to be committed."""
    keep_free_bytes: int = 0
    """With less than that free on the file system, the file does not grow above ``MIN_QUOTA_BYTES`` any more."""
    max_age_s: float | None = None
    commit_interval_s: float = GROUP_S
    """Of a steady flow."""

    @property
    def group_bytes(self) -> int:
        """What one transaction may add, about: it is in the WAL before it is in the file."""
        return min(1 << 20, self.max_bytes // 32)

    def __post_init__(self) -> None:
        if self.max_bytes < MIN_QUOTA_BYTES:
            raise ValueError(f"max_bytes is {self.max_bytes}, at least {MIN_QUOTA_BYTES} are needed")


class OutboxStore:
    """An open file. Raises ``sqlite3.DatabaseError``; ``outbox_schema.passes`` tells what may pass from damage."""

    def __init__(self, connection: sqlite3.Connection, path: Path, limits: OutboxLimits) -> None:
        self._db = connection
        self._path = path
        self._max_bytes = limits.max_bytes
        self._keep_free_bytes = limits.keep_free_bytes
        wal_pages = min(1000, max(16, limits.max_bytes // 16 // PAGE_BYTES))
        # The WAL may reach the checkpoint threshold and then grow by one more transaction with all that it gives up.
        self.most_evicted = max(_EVICTED_AT_ONCE, wal_pages)
        reserve_bytes = (wal_pages + self.most_evicted) * PAGE_BYTES + 2 * limits.group_bytes + limits.max_bytes // 16
        self.slack_bytes = limits.group_bytes
        """So far over the quota a transaction may come; before it is more, others make room."""
        self._budget_bytes = limits.max_bytes - reserve_bytes - aside_bytes(path)
        self._marks = Marks()
        connection.execute(f"PRAGMA wal_autocheckpoint = {wal_pages}")
        self.next_id = 1 + int(connection.execute("SELECT ifnull(max(id), 0) FROM batches").fetchone()[0])
        if self.next_id > MAX_ID:
            raise Damaged(f"it holds a record with the id {self.next_id - 1}")
        self.totals: dict[str, int] = {}
        for total in connection.execute("SELECT name, value FROM totals WHERE name != 'format'"):
            check_types(total, (str, int))
            self.totals[total[0]] = total[1]
        self._file_bytes = limits.max_bytes
        self._excess = 0, -1.0
        self._wear = WearMeter()
        self._measure_at_s = 0.0
        self._totals_at_s = time.monotonic() + TOTALS_S

    @classmethod
    def open(cls, path: Path, limits: OutboxLimits, beat: Callable[[], None] = lambda: None) -> "OutboxStore":
        """Opens or makes the file and reads through it; ``Damaged`` if something in it cannot be right.

        A file of the format before is brought to this one; ``ConfigError`` if it is of a newer one.
        """
        take_over(path, limits.max_bytes)
        if (found := problem(path)) is not None:
            raise Damaged(found)
        connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        try:
            connection.set_progress_handler(beat, _BEAT_STEPS)
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = FAST")
            connection.execute(f"PRAGMA journal_size_limit = {limits.max_bytes // 16}")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise Damaged(str(verdict))
            settle_version(connection, str(path))
            return cls(connection, path, limits)
        except (sqlite3.Error, ConfigError):
            connection.close()
            raise

    def close(self) -> None:
        self._db.close()

    def save_totals(self) -> None:
        """Writes the totals now; a commit does it now and then."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(UPSERT_TOTAL, self._current_totals())
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def entries(self) -> dict[Key, Entry]:
        """The ledger, compared with what is stored. ``Damaged`` if they contradict each other."""
        self._db.execute(
            "DELETE FROM ledger WHERE rowid <= (SELECT max(rowid) FROM ledger) - ? "
            "AND (boot, stream) NOT IN (SELECT boot, stream FROM batches)",
            (_KEPT_LEDGER_ROWS,),
        )
        entries = dict(map(ledger_entry, self._db.execute(f"SELECT {LEDGER_COLUMNS} FROM ledger")))
        stored: dict[Key, Ranges] = {}
        pending: dict[Key, int] = {}
        for row in self._db.execute("SELECT boot, stream, seq0, seq1, is_gap FROM batches ORDER BY id"):
            check_types(row, (str, str, int, int, int))
            boot, stream, seq0, seq1, is_gap = row
            key = (boot, stream)
            stored.setdefault(key, Ranges()).add(seq0, seq1)
            pending[key] = pending.get(key, 0) + (0 if is_gap else seq1 - seq0 + 1)
        if not stored.keys() <= entries.keys():
            raise Damaged("it holds results of a stream that is not in its ledger")
        for key, entry in entries.items():
            there = stored.get(key, Ranges())
            said, entry.held = entry.held, there
            if pending.get(key, 0) != entry.counts.pending or (len(there) < HELD_RANGES and list(there) != list(said)):
                raise Damaged(
                    f"it holds {pending.get(key, 0)} results of {key[1]}, its ledger says {entry.counts.pending}"
                )
        return entries

    def batch_count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM batches").fetchone()[0])

    def fetch(self, after_id: int, limit: int) -> list[Record]:
        """The oldest records after an id; ``Damaged`` if one is not as it was stored."""
        cursor = self._db.execute(
            f"SELECT {BATCH_COLUMNS} FROM batches WHERE id > ? ORDER BY id LIMIT ?", (after_id, limit)
        )
        found = list(map(batch_record, cursor))
        for record in found:
            if not is_genuine(record.payload, *record.key, record.seq0, record.seq1, record.is_gap):
                raise Damaged(f"{record.stream} {record.seq0} to {record.seq1} is not as it was stored")
        return found

    def commit(self, group: Group, evict: Callable[[Evictor], None] | None, keep: set[int], now: Now) -> Eviction:
        """Writes a group in one durable transaction; ``evict`` gives up records in it, none with an id of ``keep``."""
        self._hold_quota(group)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if group.replaced:
                self._db.executemany(UPSERT_BATCH, map(batch_row, group.replaced))
            if group.settled:
                deleted = self._db.executemany("DELETE FROM batches WHERE id = ?", ((one,) for one in group.settled))
                if deleted.rowcount != len(group.settled):
                    raise Damaged(f"{deleted.rowcount} of {len(group.settled)} delivered records were in it")
            self._db.executemany(UPSERT_LEDGER, (ledger_row(*one) for one in group.ledger.items()))
            marks, eviction = self._marks.copy(), Eviction()
            if evict is not None:
                evictor = Evictor(self._db, marks, keep, now)
                evict(evictor)
                eviction = evictor.result()
                self._count_evicted(eviction)
            self._db.executemany(UPSERT_BATCH, map(batch_row, group.records))
            if totals := self._due_totals():
                self._db.executemany(UPSERT_TOTAL, totals)
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        self._marks = marks
        self.count("results", len(group.rows))
        return eviction

    def excess_bytes(self, records: Iterable[Record]) -> int:
        """How many bytes too many there will be with these records; far from any bound not less than that."""
        new_bytes = _cost_bytes(records)
        at_most_bytes, until_s = self._excess
        if time.monotonic() >= until_s or at_most_bytes + new_bytes > -self.slack_bytes:
            at_most_bytes = self._excess_bytes()
            if not self._db.in_transaction:
                self._excess = at_most_bytes, time.monotonic() + SURE_S
        return at_most_bytes + new_bytes

    def count(self, name: str, number: int) -> None:
        """Adds to a total that outlives the process."""
        self.totals[name] = self.totals.get(name, 0) + number

    def measure(self) -> None:
        """Brings the totals of the wear of the flash up to date, at most once a second."""
        if time.monotonic() >= self._measure_at_s:
            self._measure()

    def _measure(self) -> None:
        self._measure_at_s = time.monotonic() + 1.0
        written_bytes, run_s = self._wear.since_last()
        self.count("written_bytes", written_bytes)
        self.count("run_ms", round(run_s * 1000))

    def _hold_quota(self, group: Group) -> None:
        """Writes nothing while somebody's open transaction keeps the WAL from being written back and used again."""
        needed_bytes = _cost_bytes(group.records) + (self.most_evicted + _ODD_PAGES) * PAGE_BYTES
        self._excess = self._excess[0] + needed_bytes, self._excess[1]
        self._file_bytes += needed_bytes
        if self._file_bytes <= self._max_bytes:
            return
        self._file_bytes = file_bytes(self._path) + needed_bytes
        if self._file_bytes <= self._max_bytes:
            return
        if self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise sqlite3.OperationalError("database is locked: a reader has kept it open since its WAL was small")

    def _due_totals(self) -> list[tuple[str, int]]:
        if time.monotonic() < self._totals_at_s:
            return []
        self._totals_at_s = time.monotonic() + TOTALS_S
        return self._current_totals()

    def _current_totals(self) -> list[tuple[str, int]]:
        self._measure()
        return list(self.totals.items())

    def _count_evicted(self, eviction: Eviction) -> None:
        for (boot, stream), rows in eviction.rows.items():
            row = self._db.execute(
                f"SELECT {LEDGER_COLUMNS} FROM ledger WHERE boot = ? AND stream = ?", (boot, stream)
            ).fetchone()
            if row is None:
                raise Damaged(f"the ledger lacks {boot}/{stream}")
            key, entry = ledger_entry(row)
            entry.counts.evicted += rows
            self._db.execute(UPSERT_LEDGER, ledger_row(key, entry))

    def _excess_bytes(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        budget_bytes = self._budget_bytes
        if self._keep_free_bytes:
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < self._keep_free_bytes:
                budget_bytes = min(budget_bytes, max(pages * PAGE_BYTES, MIN_QUOTA_BYTES))
        return int(pages - free) * PAGE_BYTES - budget_bytes


def audit(path: Path) -> dict[Key, Counts]:
    """What a file says about every boot and stream; for people and tests, while no agent runs or beside one."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
        rows = connection.execute(
            "SELECT l.boot, l.stream, produced, delivered, (SELECT ifnull(sum(seq1 - seq0 + 1), 0) FROM batches b "
            "WHERE b.boot = l.boot AND b.stream = l.stream AND NOT is_gap), evicted, refused FROM ledger l"
        ).fetchall()
    return {(boot, stream): Counts(*counts) for boot, stream, *counts in rows}


def _cost_bytes(records: Iterable[Record]) -> int:
    return sum(len(record.payload) + ROW_BYTES for record in records)
