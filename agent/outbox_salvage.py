"""Rebuilds a damaged outbox: what can be read and proven is kept, what is lost is told with its numbers.

The ledger says which numbers were held. What is found of them goes into a new file; what is not found becomes a gap
record, which is sent like a result, so that the hub closes the stream knowingly. Rows that the ledger does not hold are
old copies of what was delivered long ago.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.ledger import Counts, Entry
from agent.outbox_evict import Now
from agent.outbox_file import finish, new_path
from agent.outbox_pages import Cell, PageReader, Row, wal_frames, wal_path
from agent.outbox_ranges import Ranges
from agent.outbox_schema import (
    PAGE_BYTES,
    UPSERT_LEDGER,
    UPSERT_TOTAL,
    Damaged,
    batch_record,
    batch_row,
    create,
    ledger_entry,
    ledger_row,
)
from agent.record import Key, Priority, Record
from agent.topics import is_name
from agent.wire import encode_gap, is_genuine

DAMAGED_CAUSE = "damaged"

_BEAT_ROWS = 256
_HIGHEST_ID = 1 << 53
_NO_ID = 0
_FORMAT_AT = 60
_INSERT = "INSERT OR IGNORE INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Salvage:
    """What became of a damaged file."""

    aside: Path | None
    """Where the damaged file is kept, if there is room for it."""
    saved: int
    """Results."""
    lost: Mapping[Key, int]
    """Results that are in gap records now."""
    unproven: int
    """Streams whose account could not be read: what they lost may be more, or partly delivered."""

    @property
    def sentence(self) -> str:
        """For the log."""
        kept = f"the damaged file is kept as {self.aside}" if self.aside else "the damaged file was too large to keep"
        unsure = f"; the accounts of {self.unproven} streams were unreadable, they may have lost more"
        return (
            f"{self.saved} results saved, {sum(self.lost.values())} lost and reported with their numbers; {kept}"
            f"{unsure if self.unproven else ''}"
        )


@dataclass(slots=True)
class _Found:
    """What was put into the new file of one boot and stream."""

    numbers: Ranges = field(default_factory=Ranges)
    results: int = 0
    last: int = 0


class Salvager:
    """One rebuilding. ``known`` is the ledger, where memory has it, and so are ``totals``; else they are read.

    ``records`` are those that memory has whole. Raises ``sqlite3.OperationalError`` or ``OSError`` if the disk has no
    room for the new file, which is then removed; the damaged one stays as it is.
    """

    def __init__(
        self,
        path: Path,
        known: Mapping[Key, Entry] | None,
        totals: Mapping[str, int],
        next_id: int,
        now: Now,
        beat: Callable[[], None],
    ) -> None:
        self._path = path
        self._known = known
        self._ledger: dict[Key, Entry] = dict(known or {})
        self._next_id = next_id
        self._now = now
        self._beat = beat
        self._found: dict[Key, _Found] = {}
        self._totals = dict(totals)
        self._old_totals: dict[str, int] = {}
        self._lost: dict[Key, int] = {}

    def run(self, records: Iterable[Record], max_bytes: int) -> Salvage:
        """Makes the new file and puts it in the place of the damaged one."""
        made = new_path(self._path)
        try:
            made.unlink(missing_ok=True)
            with closing(sqlite3.connect(made, isolation_level=None)) as db:
                db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                db.execute("PRAGMA journal_mode = OFF")
                db.execute("PRAGMA synchronous = OFF")
                create(db)
                db.execute("BEGIN")
                unproven = self._fill(db, records)
                db.execute("COMMIT")
                db.execute("PRAGMA journal_mode = WAL")
            saved = sum(found.results for found in self._found.values())
            return Salvage(finish(self._path, max_bytes), saved, self._lost, unproven)
        finally:
            made.unlink(missing_ok=True)

    def _fill(self, db: sqlite3.Connection, records: Iterable[Record]) -> int:
        for record in records:
            self._keep(db, record)
        gaps: list[Record] = []
        for row in self._rows():
            self._read_account(row)
            found = _record_of(row)
            if found is not None and found.is_gap:
                gaps.append(found)
        # A gap record is newer than the batch whose place it took.
        for record in sorted(gaps, key=lambda gap: gap.seq1 - gap.seq0, reverse=True):
            self._keep(db, record)
        for row in self._rows():
            found = _record_of(row)
            if found is not None and not found.is_gap:
                self._keep(db, found)
        unproven = len(self._found.keys() - self._ledger.keys())
        for key in [*self._ledger, *(self._found.keys() - self._ledger.keys())]:
            self._close(db, key)
        results = sum(found.results for found in self._found.values())
        lost = sum(self._lost.values())
        self._totals = self._totals or self._old_totals
        for name, number in (("salvaged", results), ("lost", lost), ("damaged_files", 1), ("unproven", unproven)):
            self._totals[name] = self._totals.get(name, 0) + number
        db.executemany(UPSERT_TOTAL, self._totals.items())
        return unproven

    def _rows(self) -> Iterator[Row]:
        """Everything in the damaged file that looks like a row."""
        try:
            with ExitStack() as files:
                main = files.enter_context(self._path.open("rb"))
                frames = wal_frames(wal_path(self._path))
                wal = files.enter_context(wal_path(self._path).open("rb")) if frames else None
                main.seek(_FORMAT_AT)
                old_format = main.read(4) == (1).to_bytes(4, "big")
                for number, (rowid, cells) in enumerate(PageReader(main, wal, frames).rows()):
                    if number % _BEAT_ROWS == 0:
                        self._beat()
                    yield rowid, _with_class_of_today(cells) if old_format else cells
        except FileNotFoundError:
            return

    def _read_account(self, row: Row) -> None:
        """A row of the ledger or of the totals, if it is one; of two accounts of one stream the later one."""
        cells = row[1]
        kinds = tuple(map(type, cells))
        if kinds == (str, int) and str(cells[0]).isidentifier() and cells[0] != "format":
            self._old_totals[str(cells[0])] = int(cells[1])  # type: ignore[arg-type]  # an int, as just seen
        if self._known is not None or kinds != (str, str, int, int, int, int, int, str, int):
            return
        try:
            key, entry = ledger_entry(tuple(cells))  # type: ignore[arg-type]  # texts and ints, as just seen
        except (Damaged, ValueError):
            return
        other = self._ledger.get(key)
        if other is None or _age(other) < _age(entry):
            self._ledger[key] = entry

    def _keep(self, db: sqlite3.Connection, record: Record) -> None:
        """Puts a record into the new file if it is genuine, if it is still held, and if none of it is there yet."""
        found = self._found.get(record.key, _Found())
        entry = self._ledger.get(record.key)
        if entry is None:
            held = self._known is None
        else:
            whole = entry.held.common(record.seq0, record.seq1) == [(record.seq0, record.seq1)]
            held = whole or (self._known is None and record.seq0 >= entry.next_seq)
        if not held or found.numbers.common(record.seq0, record.seq1):
            return
        if not is_genuine(record.payload, *record.key, record.seq0, record.seq1, record.is_gap):
            return
        self._insert(db, record)
        self._found[record.key] = found
        found.numbers.add(record.seq0, record.seq1)
        found.results += record.rows
        found.last = max(found.last, record.seq1)

    def _insert(self, db: sqlite3.Connection, record: Record) -> None:
        """With its own id, or with a new one if that is damaged or taken."""
        if 0 < record.id < _HIGHEST_ID and db.execute(_INSERT, batch_row(record)).rowcount:
            return
        (last_id,) = db.execute("SELECT ifnull(max(id), 0) FROM batches").fetchone()
        self._next_id = max(self._next_id, last_id + 1)
        db.execute(_INSERT, batch_row(replace(record, id=self._next_id)))
        self._next_id += 1

    def _close(self, db: sqlite3.Connection, key: Key) -> None:
        """Enters what was found into the account, and a gap record for each stretch that was not."""
        found, entry = self._found.get(key, _Found()), self._ledger.get(key, Entry()).copy()
        counts = entry.counts
        if found.last >= entry.next_seq and self._known is None:
            more = found.last + 1 - entry.next_seq
            entry.held.add(entry.next_seq, found.last)
            entry.next_seq += more
            counts.produced += more
            counts.pending += more
        missing = entry.held.copy()
        for first, last in found.numbers:
            missing.remove(first, last)
        for first, last in missing:
            created_us, created_ns = self._now()
            payload = encode_gap(*key, first, last, DAMAGED_CAUSE)
            gap = Record(self._next_id, *key, first, last, int(Priority.RESULT), True, created_us, created_ns, payload)
            self._insert(db, gap)
        lost = max(0, counts.pending - found.results)
        counts.evicted += lost
        counts.delivered = counts.produced - found.results - counts.evicted - counts.refused
        if lost:
            self._lost[key] = lost
        db.execute(UPSERT_LEDGER, ledger_row(key, Entry(counts, entry.next_seq, entry.held)))


def _age(entry: Entry) -> tuple[int, int]:
    """Grows from one version of an account to the next."""
    counts: Counts = entry.counts
    return entry.next_seq + counts.refused, counts.delivered + counts.evicted


def _record_of(row: Row) -> Record | None:
    """The record in a row of the batches, if it is one."""
    rowid, cells = row
    if tuple(map(type, cells)) != (type(None), str, str, int, int, int, int, int, int, bytes):
        return None
    record = batch_record((rowid, *cells[1:]))  # type: ignore[arg-type]  # of these types, as just seen
    sane = is_name(record.boot) and is_name(record.stream) and 1 <= record.seq0 <= record.seq1
    return replace(record, priority=min(max(record.priority, 0), int(Priority.ALARM))) if sane else None


def _with_class_of_today(cells: list[Cell]) -> list[Cell]:
    """A batch of format 1 knew three classes."""
    return [cell + 1 if at == 5 and cell in (1, 2) else cell for at, cell in enumerate(cells)]
