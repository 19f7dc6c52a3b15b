"""The outbox's SQLite file. Only the outbox thread calls in here; it owns the one connection."""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ConfigError
from agent.ledger import Counts
from agent.outbox_group import Group
from agent.record import Key, Record
from agent.wire import encode_gap

SCHEMA_VERSION = 1
MIN_QUOTA_BYTES = 1 << 20
QUOTA_CAUSE = "quota"

_PAGE_BYTES = 4096
_ROW_BYTES = 200
"""What a stored batch costs beside its payload."""
_EVICT_AT_ONCE = 16
_KEPT_LEDGER_ROWS = 256
_TRY_AGAIN = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

_SCHEMA = f"""
CREATE TABLE batches (id INTEGER PRIMARY KEY, boot TEXT NOT NULL, stream TEXT NOT NULL, seq0 INTEGER NOT NULL,
    seq1 INTEGER NOT NULL, priority INTEGER NOT NULL, is_gap INTEGER NOT NULL, created_us INTEGER NOT NULL,
    created_ns INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE ledger (boot TEXT NOT NULL, stream TEXT NOT NULL, next_seq INTEGER NOT NULL, produced INTEGER NOT NULL,
    delivered INTEGER NOT NULL, evicted INTEGER NOT NULL, refused INTEGER NOT NULL, UNIQUE (boot, stream));
PRAGMA user_version = {SCHEMA_VERSION};
"""
_UPSERT = "REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COLUMNS = "id, boot, stream, seq0, seq1, priority, is_gap, created_us, created_ns, payload"


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """``max_bytes`` bounds the file and its WAL, ``max_queued_rows`` what waits in memory to be committed."""

    max_bytes: int = 256 << 20
    max_queued_rows: int = 20_000

    def __post_init__(self) -> None:
        if self.max_bytes < MIN_QUOTA_BYTES:
            raise ValueError(f"max_bytes is {self.max_bytes}, at least {MIN_QUOTA_BYTES} are needed")


@dataclass(frozen=True, slots=True)
class Eviction:
    """What one commit gave up to stay within the quota: results per boot and stream, and how many
    gap records found room in the one before them."""

    rows: Mapping[Key, int]
    merged: int


class FileInUse(ConfigError):
    """Another process works on this file."""


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Holds the file's lock; ``ConfigError`` if its directory cannot be written or another process holds it.

    A full or failing disk is no configuration error and comes out as ``OSError``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _TRY_AGAIN:
            raise
        raise ConfigError(
            f"outbox {path} cannot be written: {error.strerror}; give axond a directory of its own"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileInUse(f"outbox {path} is held by another agent process; stop that one first") from None
        yield
    finally:
        os.close(descriptor)


def set_aside(path: Path) -> Path:
    """Renames a damaged file and its WAL to ``.corrupt-N``; returns the new name of the file."""
    number = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def file_bytes(path: Path) -> int:
    """What the file and its WAL take on the disk."""
    size_bytes = 0
    for suffix in ("", "-wal"):
        try:
            size_bytes += path.with_name(path.name + suffix).stat().st_size
        except FileNotFoundError:
            continue
    return size_bytes


class OutboxStore:
    """An open file. ``sqlite3.OperationalError`` is for what may pass, other ``sqlite3.DatabaseError`` for damage."""

    def __init__(self, connection: sqlite3.Connection, path: Path, max_bytes: int) -> None:
        self._db = connection
        self._path = path
        wal_pages = min(1000, max(16, max_bytes // 16 // _PAGE_BYTES))
        # The WAL may reach the checkpoint threshold and then grow by one more transaction.
        self._wal_bytes = 2 * wal_pages * _PAGE_BYTES
        self._budget_bytes = max_bytes - self._wal_bytes - max_bytes // 16
        self._newest_gap: dict[Key, Record] = {}
        connection.execute(f"PRAGMA wal_autocheckpoint = {wal_pages}")
        self.next_id = 1 + int(connection.execute("SELECT ifnull(max(id), 0) FROM batches").fetchone()[0])

    @classmethod
    def open(cls, path: Path, max_bytes: int, *, check: bool = False) -> "OutboxStore":
        """Opens or makes the file; reads all of it if the last process did not close it, or if told to ``check``."""
        wal = path.with_name(path.name + "-wal")
        unclean = wal.exists() and wal.stat().st_size > 0
        connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        try:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {max_bytes // 16}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
            elif version != SCHEMA_VERSION:
                raise ConfigError(
                    f"outbox {path} has format {version}, this axond knows {SCHEMA_VERSION}; "
                    "run the axond that wrote it until it is empty"
                )
            if unclean or check:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise sqlite3.DatabaseError(str(verdict))
            return cls(connection, path, max_bytes)
        except (sqlite3.Error, ConfigError):
            connection.close()
            raise

    def close(self) -> None:
        self._db.close()

    def counts(self) -> dict[Key, tuple[Counts, int]]:
        """The persisted ledger with what is pending, and the next sequence number, per boot and stream."""
        self._db.execute(
            "DELETE FROM ledger WHERE rowid <= (SELECT max(rowid) FROM ledger) - ? "
            "AND (boot, stream) NOT IN (SELECT boot, stream FROM batches)",
            (_KEPT_LEDGER_ROWS,),
        )
        pending = {
            (boot, stream): rows
            for boot, stream, rows in self._db.execute(
                "SELECT boot, stream, sum(seq1 - seq0 + 1) FROM batches WHERE NOT is_gap GROUP BY boot, stream"
            )
        }
        return {
            (boot, stream): (Counts(produced, delivered, pending.get((boot, stream), 0), evicted, refused), next_seq)
            for boot, stream, next_seq, produced, delivered, evicted, refused in self._db.execute(
                "SELECT boot, stream, next_seq, produced, delivered, evicted, refused FROM ledger"
            )
        }

    def batch_count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM batches").fetchone()[0])

    def fetch(self, after_id: int, limit: int) -> list[Record]:
        """The oldest records after an id."""
        cursor = self._db.execute(f"SELECT {_COLUMNS} FROM batches WHERE id > ? ORDER BY id LIMIT ?", (after_id, limit))
        return [_record(row) for row in cursor]

    def is_over_quota(self, new: Iterable[Record]) -> bool:
        """Whether these records do not fit, so that something has to go."""
        return self._excess_bytes(_cost_bytes(new)) > 0

    def commit(
        self,
        group: Group,
        evict: bool,
        keep: set[int],
        now: Callable[[], tuple[int, int]],
    ) -> Eviction:
        """Writes a group in one durable transaction.

        With ``evict`` and over quota the lowest class goes, oldest first, whole batches, each leaving a gap record in
        its place. ``keep`` are ids that must stay, because they are on their way.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(_UPSERT, map(_values, group.replaced))
            self._db.executemany("DELETE FROM batches WHERE id = ?", ((one,) for one in group.settled))
            self._db.executemany(
                "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (boot, stream) DO UPDATE SET "
                "next_seq = excluded.next_seq, produced = excluded.produced, delivered = excluded.delivered, "
                "evicted = excluded.evicted, refused = excluded.refused",
                (
                    (boot, stream, next_seq, counts.produced, counts.delivered, counts.evicted, counts.refused)
                    for (boot, stream), (counts, next_seq) in group.ledger.items()
                ),
            )
            gaps = dict(self._newest_gap)
            eviction = self._evict(_cost_bytes(group.records), keep, gaps, now) if evict else Eviction({}, 0)
            self._db.executemany(_UPSERT, map(_values, group.records))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._newest_gap = gaps
        return eviction

    def _excess_bytes(self, new_bytes: int) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(pages - free) * _PAGE_BYTES + new_bytes - self._budget_bytes

    def _evict(
        self, new_bytes: int, keep: set[int], gaps: dict[Key, Record], now: Callable[[], tuple[int, int]]
    ) -> Eviction:
        lost: dict[Key, int] = {}
        gone = 0
        while (excess_bytes := self._excess_bytes(new_bytes)) > 0:
            victims = [record for record in self._lowest(len(keep) + _EVICT_AT_ONCE) if record.id not in keep]
            if not victims:
                break
            for victim in victims:
                if excess_bytes <= 0:
                    break
                excess_bytes -= len(victim.payload) + _ROW_BYTES
                lost[victim.key] = lost.get(victim.key, 0) + victim.rows
                gone += self._replace_by_gap(victim, keep, gaps, now)
        self._db.executemany(
            "UPDATE ledger SET evicted = evicted + ? WHERE boot = ? AND stream = ?",
            ((rows, boot, stream) for (boot, stream), rows in lost.items()),
        )
        return Eviction(lost, gone)

    def _lowest(self, limit: int) -> list[Record]:
        cursor = self._db.execute(
            f"SELECT {_COLUMNS} FROM batches WHERE NOT is_gap AND priority = "
            "(SELECT min(priority) FROM batches WHERE NOT is_gap) ORDER BY id LIMIT ?",
            (limit,),
        )
        return [_record(row) for row in cursor]

    def _replace_by_gap(
        self, victim: Record, keep: set[int], gaps: dict[Key, Record], now: Callable[[], tuple[int, int]]
    ) -> int:
        """Returns how many records fewer there are: 1 if the gap before this one could be made longer."""
        before = gaps.get(victim.key)
        merge = before is not None and before.seq1 + 1 == victim.seq0 and before.id not in keep and self._has(before.id)
        first = before if merge and before is not None else victim
        created_us, created_ns = now()
        payload = encode_gap(victim.boot, victim.stream, first.seq0, victim.seq1, QUOTA_CAUSE)
        gap = Record(
            first.id, *victim.key, first.seq0, victim.seq1, victim.priority, True, created_us, created_ns, payload
        )
        if merge:
            self._db.execute("DELETE FROM batches WHERE id = ?", (victim.id,))
        self._db.execute(_UPSERT, _values(gap))
        gaps[victim.key] = gap
        return int(merge)

    def _has(self, record_id: int) -> bool:
        return self._db.execute("SELECT 1 FROM batches WHERE id = ?", (record_id,)).fetchone() is not None


def audit(path: Path) -> dict[Key, Counts]:
    """What a file says about every boot and stream; for people and tests, while no agent runs or beside one."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
        rows = connection.execute(
            "SELECT l.boot, l.stream, produced, delivered, (SELECT ifnull(sum(seq1 - seq0 + 1), 0) FROM batches b "
            "WHERE b.boot = l.boot AND b.stream = l.stream AND NOT is_gap), evicted, refused FROM ledger l"
        ).fetchall()
    return {(boot, stream): Counts(*counts) for boot, stream, *counts in rows}


def _cost_bytes(records: Iterable[Record]) -> int:
    return sum(len(record.payload) + _ROW_BYTES for record in records)


def _record(row: tuple[int, str, str, int, int, int, int, int, int, bytes]) -> Record:
    return Record(*row[:6], bool(row[6]), *row[7:])


def _values(record: Record) -> tuple[int | str | bytes, ...]:
    return (
        record.id,
        record.boot,
        record.stream,
        record.seq0,
        record.seq1,
        record.priority,
        int(record.is_gap),
        record.created_us,
        record.created_ns,
        record.payload,
    )
