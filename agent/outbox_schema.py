"""The outbox's tables: what a row means, how an older file becomes one of today, and how damage shows.

Format 2 has, beyond format 1: the numbers that are held and a checksum in each row of the ledger, so that what a
damaged file has lost can be told; totals that outlive the process; and four classes in place of three.
"""

import sqlite3
from zlib import crc32

from agent.errors import ConfigError
from agent.ledger import Counts, Entry
from agent.outbox_ranges import Ranges
from agent.record import Key, Record

VERSION = 2
PAGE_BYTES = 4096
HELD_RANGES = 64
"""More are joined at the end of the list: what is held is then a little more than the truth."""
BATCH_COLUMNS = "id, boot, stream, seq0, seq1, priority, is_gap, created_us, created_ns, payload"
BATCH_TYPES = (int, str, str, int, int, int, int, int, int, bytes)
MAX_ID = 1 << 62
UPSERT_BATCH = "REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
LEDGER_COLUMNS = "boot, stream, next_seq, produced, delivered, evicted, refused, held, crc"
UPSERT_LEDGER = (
    "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (boot, stream) DO UPDATE SET "
    "next_seq = excluded.next_seq, produced = excluded.produced, delivered = excluded.delivered, "
    "evicted = excluded.evicted, refused = excluded.refused, held = excluded.held, crc = excluded.crc"
)
UPSERT_TOTAL = "INSERT INTO totals VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

_TABLES = f"""
CREATE TABLE batches (id INTEGER PRIMARY KEY, boot TEXT NOT NULL, stream TEXT NOT NULL, seq0 INTEGER NOT NULL,
    seq1 INTEGER NOT NULL, priority INTEGER NOT NULL, is_gap INTEGER NOT NULL, created_us INTEGER NOT NULL,
    created_ns INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE ledger (boot TEXT NOT NULL, stream TEXT NOT NULL, next_seq INTEGER NOT NULL, produced INTEGER NOT NULL,
    delivered INTEGER NOT NULL, evicted INTEGER NOT NULL, refused INTEGER NOT NULL, held TEXT NOT NULL DEFAULT '',
    crc INTEGER NOT NULL DEFAULT 0, UNIQUE (boot, stream));
CREATE TABLE totals (name TEXT NOT NULL UNIQUE, value INTEGER NOT NULL);
INSERT INTO totals VALUES ('format', {VERSION});
PRAGMA user_version = {VERSION};
"""
_FROM_1 = f"""
ALTER TABLE ledger ADD COLUMN held TEXT NOT NULL DEFAULT '';
ALTER TABLE ledger ADD COLUMN crc INTEGER NOT NULL DEFAULT 0;
CREATE TABLE totals (name TEXT NOT NULL UNIQUE, value INTEGER NOT NULL);
INSERT INTO totals VALUES ('format', {VERSION});
UPDATE batches SET priority = priority + 1 WHERE priority > 0;
PRAGMA user_version = {VERSION};
"""
_PASSING = ("locked", "busy", "disk I/O error", "is full", "unable to open", "readonly")


class Damaged(sqlite3.DatabaseError):
    """The file says something that the outbox cannot have written."""


def passes(error: sqlite3.DatabaseError) -> bool:
    """Whether trying again may help; anything else is damage."""
    return isinstance(error, sqlite3.OperationalError) and any(words in str(error) for words in _PASSING)


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty file."""
    connection.executescript(f"BEGIN IMMEDIATE;{_TABLES}COMMIT;")


def settle_version(connection: sqlite3.Connection, path: str) -> None:
    """Brings a file to this format; ``ConfigError`` if it is of a newer one, ``Damaged`` if it contradicts itself."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    says = (
        connection.execute("SELECT value FROM totals WHERE name = 'format'").fetchone() if "totals" in names else None
    )
    if version == 0 and not names:
        create(connection)
        return
    if version == 0 or (says is not None and says[0] != version) or (version == VERSION and says is None):
        raise Damaged(f"the file's format is said to be {version} and {says[0] if says else 'nothing'}")
    if version > VERSION:
        raise ConfigError(
            f"outbox {path} has format {version}, this axond knows {VERSION}; "
            "run the axond that wrote it until it is empty"
        )
    if version == 1:
        _migrate_from_1(connection)


def _migrate_from_1(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in filter(str.strip, _FROM_1.split(";")):
            connection.execute(statement)
        held: dict[Key, Ranges] = {}
        for boot, stream, seq0, seq1 in connection.execute("SELECT boot, stream, seq0, seq1 FROM batches ORDER BY id"):
            held.setdefault((boot, stream), Ranges()).add(seq0, seq1)
        rows = connection.execute("SELECT boot, stream, next_seq, produced, delivered, evicted, refused FROM ledger")
        for boot, stream, next_seq, produced, delivered, evicted, refused in rows.fetchall():
            entry = Entry(
                Counts(produced, delivered, 0, evicted, refused), next_seq, held.get((boot, stream), Ranges())
            )
            connection.execute(UPSERT_LEDGER, ledger_row((boot, stream), entry))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def ledger_row(key: Key, entry: Entry) -> tuple[str | int, ...]:
    """The columns of the ledger for an account."""
    counts = entry.counts
    ranges = list(entry.held)
    if len(ranges) > HELD_RANGES:
        ranges[HELD_RANGES - 1 :] = [(ranges[HELD_RANGES - 1][0], ranges[-1][1])]
    held = " ".join(f"{first}-{last}" for first, last in ranges)
    row = (*key, entry.next_seq, counts.produced, counts.delivered, counts.evicted, counts.refused, held)
    return (*row, _checksum(row))


def ledger_entry(row: tuple[str | int, ...]) -> tuple[Key, Entry]:
    """The account in a row of the ledger, with what must be pending; ``Damaged`` if its checksum is another one."""
    boot, stream, next_seq, produced, delivered, evicted, refused, held, crc = row
    if crc != _checksum(row[:-1]):
        raise Damaged(f"the ledger of {boot}/{stream} does not have the checksum that it was written with")
    ranges = Ranges((int(first), int(last)) for first, last in (part.split("-") for part in str(held).split()))
    pending = int(produced) - int(delivered) - int(evicted) - int(refused)
    counts = Counts(int(produced), int(delivered), pending, int(evicted), int(refused))
    return (str(boot), str(stream)), Entry(counts, int(next_seq), ranges)


def batch_row(record: Record) -> tuple[int | str | bytes, ...]:
    """The columns of a stored record."""
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


def batch_record(row: tuple[int, str, str, int, int, int, int, int, int, bytes]) -> Record:
    """A stored record from its columns; ``Damaged`` if one is of another type."""
    check_types(row, BATCH_TYPES)
    return Record(*row[:6], bool(row[6]), *row[7:])


def check_types(row: tuple[object, ...], types: tuple[type, ...]) -> None:
    """``Damaged`` for a row that SQLite takes and the outbox never wrote: a column has the type that its bytes say."""
    if tuple(map(type, row)) != types:
        raise Damaged(f"it holds a row of {', '.join(type(cell).__name__ for cell in row)}")


def _checksum(row: tuple[str | int, ...]) -> int:
    return crc32(repr(row).encode())
