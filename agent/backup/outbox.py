"""A copy of an outbox while its agent runs, and two outboxes of one device made one."""

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from agent.backup.archive import BackupError
from agent.errors import ConfigError
from agent.outbox_file import ready_path, take_over
from agent.outbox_pages import problem
from agent.outbox_reader import OutboxUnreadable, problems, torn_at_rest
from agent.outbox_schema import LEDGER_COLUMNS, PAGE_BYTES
from agent.outbox_store import OutboxLimits, OutboxStore, audit

STEP_PAGES = 256
DAMAGE = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises: what SQLite says of it may be no text."""
_NEW = "NOT EXISTS (SELECT 1 FROM main.ledger l WHERE l.boot = o.boot AND l.stream = o.stream)"


def copy(path: Path, target: Path, told: Callable[[int], None], remedy: str, *, alone: bool = False) -> int:
    """A copy of the outbox as it is at one moment; results that wait in it. BackupError with ``remedy`` if damaged.

    The read transaction keeps that moment for as long as the copying takes; the agent goes on writing behind it.
    ``alone``: the caller has claimed the outbox.
    """
    try:
        torn = problem(path) if alone else torn_at_rest(path)
    except (OutboxUnreadable, OSError) as error:
        raise BackupError(str(error)) from error
    if torn is not None:
        raise BackupError(f"{path} is damaged: {torn}; {remedy}")
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as source,
            closing(sqlite3.connect(target, isolation_level=None)) as copied,
        ):
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(copied, pages=STEP_PAGES, progress=_progress(told))
    except DAMAGE as error:
        raise BackupError(f"{path} cannot be copied: {error}") from error
    check(target, f"{path} is damaged", remedy)
    return waiting(target)


def _progress(told: Callable[[int], None]) -> Callable[[int, int, int], None]:
    done = 0

    def tell(_: int, remaining: int, total: int) -> None:
        nonlocal done
        told((total - remaining - done) * PAGE_BYTES)
        done = total - remaining

    return tell


def check(path: Path, what: str, remedy: str) -> None:
    """BackupError ``what: ...; remedy`` unless the file is whole and its books balance."""
    try:
        found = next(problems(path), None)
    except (OutboxUnreadable, *DAMAGE) as error:
        found = str(error)
    if found is not None:
        raise BackupError(f"{what}: {found}; {remedy}")


def is_half_rebuilt(path: Path) -> bool:
    """Whether a whole new file waits to take the place of a damaged one: what is in ``path`` itself is not to be used.

    The agent does that within a moment, unless it was killed just then; then at its next start.
    """
    return ready_path(path).exists()


def finish_rebuild(path: Path) -> Path | None:
    """Does that in its stead, while the outbox is claimed; where the damaged file is kept, if there was one."""
    return take_over(path, sys.maxsize)


def waiting(path: Path) -> int:
    """Results that wait to be delivered. Raises BackupError."""
    try:
        return sum(counts.pending for counts in audit(path).values())
    except DAMAGE as error:
        raise BackupError(f"{path} cannot be read: {error}") from error


def bring_up_to_date(path: Path) -> None:
    """Brings a file that an older axond wrote to today's format. Raises BackupError."""
    try:
        with closing(OutboxStore.open(path, OutboxLimits())) as store:
            store.entries()
    except (ConfigError, *DAMAGE) as error:
        raise BackupError(f"the outbox in the backup cannot be used: {error}") from error


def add_missing(path: Path, older: Path) -> int:
    """Adds to ``path`` the streams of boots that only ``older`` knows; the number of results that came with them.

    Of a boot and stream that both know, ``path`` knows more: numbers are only ever added, and what it no longer holds
    was delivered. Raises BackupError.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("ATTACH ? AS older", (str(older),))
            connection.execute("BEGIN IMMEDIATE")
            before = connection.execute("SELECT ifnull(max(id), 0) FROM batches").fetchone()[0]
            connection.execute(
                "INSERT INTO main.batches SELECT ? + row_number() OVER (ORDER BY o.id), o.boot, o.stream, o.seq0, "
                "o.seq1, o.priority, o.is_gap, o.created_us, o.created_ns, o.payload FROM older.batches o "
                f"WHERE {_NEW}",
                (before,),
            )
            connection.execute(
                f"INSERT INTO main.ledger ({LEDGER_COLUMNS}) SELECT {LEDGER_COLUMNS} FROM older.ledger o WHERE {_NEW}"
            )
            (added,) = connection.execute(
                "SELECT ifnull(sum(seq1 - seq0 + 1), 0) FROM main.batches WHERE id > ? AND NOT is_gap", (before,)
            ).fetchone()
            connection.execute("COMMIT")
    except DAMAGE as error:
        raise BackupError(f"the outbox here and that of the backup cannot be joined: {error}") from error
    return int(added)


def fold(path: Path) -> None:
    """Writes the WAL back into the file and removes it, so that the file can be renamed alone. Raises BackupError."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except DAMAGE as error:
        raise BackupError(f"{path} cannot be written: {error}") from error
    for part in ("-wal", "-shm"):
        rest = path.with_name(path.name + part)
        if busy or (part == "-wal" and rest.exists() and rest.stat().st_size):
            raise BackupError(f"{path} is open elsewhere: end whatever reads it, and try again")
        rest.unlink(missing_ok=True)
