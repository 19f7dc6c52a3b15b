"""Look into an outbox from outside, read-only, while its agent runs or not: for people, tools and tests."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent import outbox_pages as pages
from agent.outbox_file import is_claimed
from agent.outbox_ranges import Ranges
from agent.outbox_schema import BATCH_COLUMNS, HELD_RANGES, LEDGER_COLUMNS, VERSION, Damaged, batch_record, ledger_entry
from agent.record import Key, Record
from agent.wire import WireError, decode, is_genuine

PAGE_ROWS = 256


class OutboxUnreadable(Exception):
    """There is no outbox, or it is damaged: one sentence."""


@dataclass(frozen=True, slots=True)
class Wear:
    """What the outbox wrote to the flash since it was made, as far as the kernel told."""

    written_bytes: int
    results: int
    run_s: float

    @property
    def bytes_per_result(self) -> float:
        return self.written_bytes / self.results if self.results else 0.0

    @property
    def bytes_per_day(self) -> float:
        return self.written_bytes / self.run_s * 86400 if self.run_s else 0.0


def records(path: Path) -> Iterator[Record]:
    """Every batch and gap record that waits to be acknowledged, oldest first. Raises OutboxUnreadable."""
    return (record for record, _ in _pages(path, BATCH_COLUMNS))


def heads(path: Path) -> Iterator[tuple[Record, int]]:
    """As ``records``, without the payloads, and how many bytes these have: an outbox may be larger than the memory."""
    return _pages(path, BATCH_COLUMNS.replace("payload", "x''"))


def _pages(path: Path, columns: str) -> Iterator[tuple[Record, int]]:
    with _reading(path) as connection:
        last_id = -1
        # Page by page: an open statement holds a snapshot, and behind a snapshot the agent's WAL only grows.
        while page := connection.execute(
            f"SELECT {columns}, length(payload) FROM batches WHERE id > ? ORDER BY id LIMIT ?", (last_id, PAGE_ROWS)
        ).fetchall():
            yield from ((batch_record(row[:-1]), row[-1]) for row in page)
            last_id = page[-1][0]


def totals(path: Path) -> dict[str, int]:
    """The counters that outlive the process; at most a minute old. Raises OutboxUnreadable."""
    with _reading(path) as connection:
        if connection.execute("PRAGMA user_version").fetchone()[0] < VERSION:
            return {}
        return dict(connection.execute("SELECT name, value FROM totals WHERE name != 'format'"))


def wear(numbers: dict[str, int]) -> Wear:
    """From the totals."""
    return Wear(numbers.get("written_bytes", 0), numbers.get("results", 0), numbers.get("run_ms", 0) / 1000)


def problems(path: Path) -> Iterator[str]:
    """A sentence for everything that is wrong with the file. Raises OutboxUnreadable if it cannot be read at all.

    One snapshot is looked at, so that a running agent does not change the books in between; it is held for as long as
    it takes to read the file. Its WAL is looked at only while no agent writes to it.
    """
    if (torn := torn_at_rest(path)) is not None:
        yield torn
    with _reading(path) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            then = "an agent that starts brings it there" if version < VERSION else "a newer axond made it"
            yield f"the file has format {version}, this axond checks {VERSION} ({then})"
            return
        connection.execute("BEGIN")
        for (verdict,) in connection.execute("PRAGMA integrity_check(20)"):
            if verdict != "ok":
                yield str(verdict)
        stored: dict[Key, Ranges] = {}
        pending: dict[Key, int] = {}
        for row in connection.execute(f"SELECT {BATCH_COLUMNS} FROM batches ORDER BY id"):
            record = batch_record(row)
            held = stored.setdefault(record.key, Ranges())
            if held.common(record.seq0, record.seq1):
                yield f"{_name(record)}: some of these numbers are there twice"
            held.add(record.seq0, record.seq1)
            pending[record.key] = pending.get(record.key, 0) + record.rows
            yield from _record_problems(record)
        yield from _ledger_problems(connection, stored, pending)


def torn_at_rest(path: Path) -> str | None:
    """What an agent that starts would find and save, and SQLite would drop without a word; None: nothing, or it runs.

    Raises OutboxUnreadable.
    """
    try:
        found = None if is_claimed(path) else pages.problem(path)
    except OSError as error:
        raise OutboxUnreadable(f"{path} cannot be read: {error.strerror}") from error
    return None if is_claimed(path) else found  # it may just have begun


def _record_problems(record: Record) -> Iterator[str]:
    try:
        decode(record.payload)
    except WireError as error:
        yield f"{_name(record)}: {error}"
        return
    if not is_genuine(record.payload, *record.key, record.seq0, record.seq1, record.is_gap):
        yield f"{_name(record)}: the batch in it is of other numbers"


def _ledger_problems(
    connection: sqlite3.Connection, stored: dict[Key, Ranges], pending: dict[Key, int]
) -> Iterator[str]:
    known: set[Key] = set()
    for row in connection.execute(f"SELECT {LEDGER_COLUMNS} FROM ledger"):
        try:
            key, entry = ledger_entry(row)
        except (Damaged, ValueError) as error:
            yield str(error)
            continue
        known.add(key)
        there = stored.get(key, Ranges())
        where = f"boot {key[0]}, stream {key[1]}"
        if entry.counts.pending != pending.get(key, 0):
            yield f"{where}: {pending.get(key, 0)} results are stored, the ledger says {entry.counts.pending}"
        missing = entry.held.copy()
        for first, last in there:
            missing.remove(first, last)
        if len(entry.held) < HELD_RANGES:
            yield from (f"{where}: numbers {first} to {last} are missing" for first, last in missing)
        if there and max(last for _, last in there) >= entry.next_seq:
            yield f"{where}: there are numbers from {entry.next_seq} on, which the ledger has not given out yet"
    yield from (f"boot {boot}, stream {stream}: results without a ledger" for boot, stream in stored.keys() - known)


def _name(record: Record) -> str:
    return f"boot {record.boot}, stream {record.stream}, {record.seq0} to {record.seq1}"


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        path.open("rb").close()
    except OSError as error:
        raise OutboxUnreadable(
            f"no outbox {path} to read ({error.strerror}): has an agent run with this state_dir, and may you read it?"
        ) from error
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
        ) as connection:
            yield connection
    except sqlite3.Error as error:
        raise OutboxUnreadable(f"{path} cannot be read: {error}") from error
