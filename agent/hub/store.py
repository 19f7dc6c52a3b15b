"""The hub's SQLite file: batches, gaps, watermarks, duplicates and what devices say about themselves.

A batch is stored as it came, compressed. Its key is ``(device, boot, stream, seq0)``; a stream's watermark moves in the
same transaction, so each result is stored exactly once however often it was sent.
"""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agent.wire import Batch, Value, decode, wall_us

SCHEMA_VERSION = 1
Stream: TypeAlias = tuple[str, str, str]
"""Device, boot, stream."""

_SCHEMA = f"""
CREATE TABLE streams (device TEXT NOT NULL, boot TEXT NOT NULL, stream TEXT NOT NULL, upto INTEGER NOT NULL,
    stored INTEGER NOT NULL, missing INTEGER NOT NULL, duplicates INTEGER NOT NULL, first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL, PRIMARY KEY (device, boot, stream)) WITHOUT ROWID;
CREATE TABLE batches (id INTEGER PRIMARY KEY, device TEXT NOT NULL, boot TEXT NOT NULL, stream TEXT NOT NULL,
    seq0 INTEGER NOT NULL, seq1 INTEGER NOT NULL, received_us INTEGER NOT NULL, payload BLOB NOT NULL,
    UNIQUE (device, boot, stream, seq0));
CREATE TABLE gaps (device TEXT NOT NULL, boot TEXT NOT NULL, stream TEXT NOT NULL, seq0 INTEGER NOT NULL,
    seq1 INTEGER NOT NULL, cause TEXT NOT NULL, received_us INTEGER NOT NULL,
    PRIMARY KEY (device, boot, stream, seq0)) WITHOUT ROWID;
CREATE TABLE documents (device TEXT NOT NULL, kind TEXT NOT NULL, boot TEXT NOT NULL, body TEXT NOT NULL,
    received_us INTEGER NOT NULL, PRIMARY KEY (device, kind)) WITHOUT ROWID;
CREATE TABLE rejected (device TEXT NOT NULL, kind TEXT NOT NULL, messages INTEGER NOT NULL, last_us INTEGER NOT NULL,
    PRIMARY KEY (device, kind)) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""


@dataclass(frozen=True, slots=True)
class Device:
    """What the hub knows of a device. ``status``, ``info`` and ``metrics`` are the last documents, or empty."""

    name: str
    status: dict[str, Any]
    info: dict[str, Any]
    metrics: dict[str, Any]
    last_us: int
    rejected: int
    """Messages that were no valid batch or document."""


@dataclass(frozen=True, slots=True)
class StreamLedger:
    """The account of one device, boot and stream: ``stored + missing`` must be ``upto``, the watermark."""

    device: str
    boot: str
    stream: str
    upto: int
    stored: int
    """Counted from the batches themselves."""
    missing: int
    """Closed by gap records: evicted by the device, or delivered to somebody else before."""
    duplicates: int
    """Results that came again; a measure of the wire, not of the store."""
    reported: dict[str, int] | None
    """The device's own ledger, if its last metrics are of this boot."""

    @property
    def problem(self) -> str | None:
        """One sentence if the books do not agree, else None."""
        if self.stored + self.missing != self.upto:
            return f"stored {self.stored} + missing {self.missing} is not the watermark {self.upto}"
        if self.reported is None:
            return None
        told = self.reported
        accounted = sum(told.get(name, 0) for name in ("delivered", "pending", "evicted", "refused"))
        if told.get("produced") != accounted:
            return f"the device produced {told.get('produced')} and accounts for {accounted}"
        if told.get("delivered", 0) > self.stored:
            return f"the device delivered {told['delivered']}, stored are {self.stored}"
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a batch: the watermark to answer with, and whether something before the batch is lacking."""

    upto: int
    lacking: bool


class HubStore:
    """One connection, used by one thread. ``sqlite3.OperationalError`` means busy or full: try again."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @classmethod
    def open(cls, path: Path) -> "HubStore":
        """Opens or makes the file for writing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, timeout=2.0)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _check_version(connection, path, may_create=True)
        except sqlite3.Error:
            connection.close()
            raise
        return cls(connection)

    @classmethod
    def open_for_reading(cls, path: Path) -> "HubStore":
        """Opens an existing file beside a running hub. ``FileNotFoundError`` if there is none."""
        if not path.exists():
            raise FileNotFoundError(f"no hub store {path}: has a hub run with this path?")
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
        try:
            _check_version(connection, path, may_create=False)
        except (sqlite3.Error, FileNotFoundError):
            connection.close()
            raise
        return cls(connection)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; durable when left."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def add_batch(self, device: str, batch: Batch, payload: bytes) -> Verdict:
        """Stores a batch or gap record once and moves the watermark; what lies behind the watermark is a duplicate."""
        key = (device, batch.boot, batch.stream)
        now_us = wall_us()
        row = self._db.execute("SELECT upto FROM streams WHERE device = ? AND boot = ? AND stream = ?", key).fetchone()
        if row is None:
            self._db.execute("INSERT INTO streams VALUES (?, ?, ?, 0, 0, 0, 0, ?, ?)", (*key, now_us, now_us))
        upto = 0 if row is None else int(row[0])
        if batch.seq0 > upto + 1:
            return Verdict(upto, True)
        first, again = max(batch.seq0, upto + 1), 0
        if not batch.cause:
            again = min(upto, batch.seq1) - batch.seq0 + 1
        stored = missing = 0
        if batch.seq1 > upto:
            if batch.cause:
                missing = batch.seq1 - upto
                self._db.execute(
                    "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (*key, first, batch.seq1, batch.cause, now_us),
                )
            else:
                stored = batch.seq1 - upto
                self._db.execute(
                    "INSERT INTO batches (device, boot, stream, seq0, seq1, received_us, payload) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (*key, first, batch.seq1, now_us, payload),
                )
        upto = max(upto, batch.seq1)
        self._db.execute(
            "UPDATE streams SET upto = ?, stored = stored + ?, missing = missing + ?, duplicates = duplicates + ?, "
            "last_us = ? WHERE device = ? AND boot = ? AND stream = ?",
            (upto, stored, missing, max(0, again), now_us, *key),
        )
        return Verdict(upto, False)

    def upto(self, device: str, boot: str, stream: str) -> int:
        """The watermark; 0 if nothing is known."""
        key = (device, boot, stream)
        row = self._db.execute("SELECT upto FROM streams WHERE device = ? AND boot = ? AND stream = ?", key).fetchone()
        return 0 if row is None else int(row[0])

    def put_document(self, device: str, kind: str, boot: str, body: str) -> None:
        """Keeps the last status, info or metrics of a device."""
        self._db.execute("REPLACE INTO documents VALUES (?, ?, ?, ?, ?)", (device, kind, boot, body, wall_us()))

    def count_rejected(self, device: str, kind: str) -> bool:
        """Counts a message that could not be used; ``device`` is empty if even that is unknown. True for the first."""
        (messages,) = self._db.execute(
            "INSERT INTO rejected VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE "
            "SET messages = messages + 1, last_us = excluded.last_us RETURNING messages",
            (device, kind, wall_us()),
        ).fetchone()
        return int(messages) == 1

    def devices(self) -> list[Device]:
        """Every device that was ever heard of, by name."""
        documents: dict[str, dict[str, dict[str, Any]]] = {}
        last_us: dict[str, int] = {}
        for name, kind, body, received_us in self._db.execute("SELECT device, kind, body, received_us FROM documents"):
            documents.setdefault(name, {})[kind] = json.loads(body)
            last_us[name] = max(received_us, last_us.get(name, 0))
        for name, received_us in self._db.execute("SELECT device, max(last_us) FROM streams GROUP BY device"):
            last_us[name] = max(received_us, last_us.get(name, 0))
        rejected = dict(self._db.execute("SELECT device, sum(messages) FROM rejected GROUP BY device").fetchall())
        names = sorted({*last_us, *(name for name in rejected if name)})
        return [
            Device(
                name,
                status=documents.get(name, {}).get("status", {}),
                info=documents.get(name, {}).get("info", {}),
                metrics=documents.get(name, {}).get("metrics", {}),
                last_us=last_us.get(name, 0),
                rejected=rejected.get(name, 0),
            )
            for name in names
        ]

    def results(self, device: str, stream: str, limit: int = 100, *, boot: str | None = None) -> list[dict[str, Value]]:
        """The newest ``limit`` results of a stream, oldest first: ``boot``, ``seq``, ``t_us`` and the columns."""
        cursor = self._db.execute(
            "SELECT boot, seq0, payload FROM batches WHERE device = ?1 AND stream = ?2 AND (?3 IS NULL OR boot = ?3) "
            "ORDER BY id DESC",
            (device, stream, boot),
        )
        newest: list[dict[str, Value]] = []
        for row_boot, seq0, payload in cursor:
            batch = decode(payload)
            rows = [{"boot": row_boot, **row} for row in batch.rows[seq0 - batch.seq0 :]]
            newest += reversed(rows)
            if len(newest) >= limit:
                break
        return newest[:limit][::-1]

    def ledger(self, device: str | None = None) -> list[StreamLedger]:
        """The account of every device, boot and stream, counted anew from what is stored."""
        reported = {
            (name, boot): json.loads(body)
            for name, boot, body in self._db.execute("SELECT device, boot, body FROM documents WHERE kind = 'metrics'")
        }
        cursor = self._db.execute(
            "SELECT device, boot, stream, upto, duplicates, "
            "(SELECT ifnull(sum(seq1 - seq0 + 1), 0) FROM batches b "
            " WHERE b.device = s.device AND b.boot = s.boot AND b.stream = s.stream), "
            "(SELECT ifnull(sum(seq1 - seq0 + 1), 0) FROM gaps g "
            " WHERE g.device = s.device AND g.boot = s.boot AND g.stream = s.stream) "
            "FROM streams s WHERE ?1 IS NULL OR device = ?1 ORDER BY device, first_us, stream",
            (device,),
        )
        return [
            StreamLedger(
                name, boot, stream, upto, stored, missing, duplicates, _told(reported.get((name, boot), {}), stream)
            )
            for name, boot, stream, upto, duplicates, stored, missing in cursor
        ]

    def gaps(self, device: str) -> list[tuple[str, str, int, int, str]]:
        """Boot, stream, first and last number and cause of everything a device gave up."""
        return self._db.execute(
            "SELECT boot, stream, seq0, seq1, cause FROM gaps WHERE device = ? ORDER BY received_us, seq0", (device,)
        ).fetchall()

    def rejected(self) -> dict[tuple[str, str], int]:
        """Device and what was wrong -> number of messages."""
        rows = self._db.execute("SELECT device, kind, messages FROM rejected").fetchall()
        return {(device, kind): messages for device, kind, messages in rows}


def _check_version(connection: sqlite3.Connection, path: Path, *, may_create: bool) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0 and may_create:
        connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
    elif version == 0:
        raise FileNotFoundError(f"no hub store {path} yet: it is just being made, or empty")
    elif version != SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"{path} is no hub store of format {SCHEMA_VERSION}: it says {version}")


def _told(metrics: dict[str, Any], stream: str) -> dict[str, int] | None:
    prefix = f"ledger_{stream}_"
    told = {
        name[len(prefix) :]: int(number)
        for name, number in metrics.items()
        if name.startswith(prefix) and isinstance(number, int | float) and math.isfinite(number)
    }
    return told or None
