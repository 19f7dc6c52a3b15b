"""The hub's tables, one definition for SQLite and PostgreSQL, and how older ones become these.

A batch is kept as it came, compressed; a row of ``batches`` says which numbers of it count, so a batch that overlaps
others has a row for each part that was new. Times are Unix microseconds of this machine.
"""

import json

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    insert,
    inspect,
    select,
    text,
    update,
)

from agent.hub.books import to_text, told_by

VERSION = 2
_CREATE_LOCK = 0x61786F6E64
"""PostgreSQL's advisory lock: hubs that start together make the tables one after the other."""

TABLES = MetaData()


def _name(name: str, *, key: bool = True) -> "Column[str]":
    return Column(name, Text, primary_key=key, nullable=False)


def _number(name: str, *, key: bool = False) -> "Column[int]":
    return Column(name, BigInteger, primary_key=key, nullable=False, autoincrement=False, server_default="0")


def _text(name: str) -> "Column[str]":
    return Column(name, Text, nullable=False, server_default="")


schema_version = Table("schema_version", TABLES, Column("version", Integer, primary_key=True, autoincrement=False))

streams = Table(
    "streams",
    TABLES,
    *(_name("device"), _name("boot"), _name("stream")),
    *(_number("upto"), _number("stored"), _number("missing"), _number("duplicates")),
    *(_number("first_us"), _number("last_us")),
    _text("ahead"),  # JSON: ranges beyond upto
    _number("expired"),
    _number("expected"),
    _text("told"),  # JSON: the device's own ledger
    sqlite_with_rowid=False,
)
batches = Table(
    "batches",
    TABLES,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    *(_name("device", key=False), _name("boot", key=False), _name("stream", key=False)),
    *(_number("seq0"), _number("seq1"), _number("received_us")),
    Column("payload", LargeBinary, nullable=False),
    UniqueConstraint("device", "boot", "stream", "seq0"),
)
received = Index("batches_received", batches.c.received_us)
gaps = Table(
    "gaps",
    TABLES,
    *(_name("device"), _name("boot"), _name("stream"), _number("seq0", key=True), _number("seq1")),
    *(_text("cause"), _number("received_us")),
    sqlite_with_rowid=False,
)
documents = Table(
    "documents",
    TABLES,
    *(_name("device"), _name("kind"), _text("boot"), _text("body"), _number("received_us")),
    sqlite_with_rowid=False,
)
rejected = Table(
    "rejected",
    TABLES,
    *(_name("device"), _name("kind"), _number("messages"), _number("last_us")),
    sqlite_with_rowid=False,
)
alarms = Table(
    "alarms",
    TABLES,
    *(_name("device"), _name("boot"), _name("stream")),
    _text("sentence"),
    *(_number("times"), _number("since_us"), _number("until_us")),  # until_us is 0 while it lasts
    _number("results"),
    sqlite_with_rowid=False,
)
accepted = Table(
    "accepted",
    TABLES,
    *(_name("device"), _name("boot"), _name("stream")),
    _text("sentence"),
    *(_number("results"), _number("accepted_us")),
    sqlite_with_rowid=False,
)
event_counts = Table("event_counts", TABLES, _name("device"), _number("events"), sqlite_with_rowid=False)
events = Table(
    "events",
    TABLES,
    *(_name("device"), _number("number", key=True), _number("received_us"), _text("body")),
    sqlite_with_rowid=False,
)
clocks = Table(
    "clocks",
    TABLES,
    *(_name("device"), _name("epoch"), _text("body"), _number("received_us")),
    sqlite_with_rowid=False,
)
trusted = Table("trusted", TABLES, _name("clock"), _number("at_us"), sqlite_with_rowid=False)


class ForeignSchemaError(Exception):
    """The database holds something else, or what a later axond made: one sentence without the database's name."""


def prepare(connection: Connection) -> None:
    """Makes the tables, or brings older ones up to date; within the caller's transaction. ``ForeignSchemaError``."""
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATE_LOCK})
    version = version_of(connection)
    if version == VERSION:
        TABLES.create_all(connection)
        return
    if version == 1:
        _add_what_version_2_has(connection)
    TABLES.create_all(connection)
    connection.execute(insert(schema_version), {"version": VERSION})
    if sqlite:  # an axond that knows version 1 only looks here, and then leaves the file alone
        connection.execute(text(f"PRAGMA user_version = {VERSION}"))


def is_complete(connection: Connection) -> bool:
    """Whether every table is there: some have come since version 2 was made, which an older hub does not mind."""
    return set(TABLES.tables) <= set(inspect(connection).get_table_names())


def version_of(connection: Connection) -> int:
    """0 for an empty database, else 1 or 2. ``ForeignSchemaError`` for anything else."""
    names = set(inspect(connection).get_table_names())
    if schema_version.name in names:
        version = connection.execute(select(schema_version.c.version)).scalar()
        if version != VERSION:
            raise ForeignSchemaError(f"it is a hub store of format {version}, expected {VERSION}; use the axond of it")
        return VERSION
    if connection.dialect.name == "sqlite":
        version = connection.execute(text("PRAGMA user_version")).scalar_one()
        if version == 1 and streams.name in names:
            return 1
        if version:
            raise ForeignSchemaError(f"it is no hub store of format {VERSION}: it says {version}")
    if names & set(TABLES.tables):
        raise ForeignSchemaError(f"it has tables of something else: {', '.join(sorted(names & set(TABLES.tables)))}")
    return 0


def _add_what_version_2_has(connection: Connection) -> None:
    """Version 1 was SQLite only, in order only, and knew the ledgers of the last metrics only."""
    for column in ("ahead TEXT NOT NULL DEFAULT ''", "expired INTEGER NOT NULL DEFAULT 0"):
        connection.execute(text(f"ALTER TABLE streams ADD COLUMN {column}"))
    for column in ("expected INTEGER NOT NULL DEFAULT 0", "told TEXT NOT NULL DEFAULT ''"):
        connection.execute(text(f"ALTER TABLE streams ADD COLUMN {column}"))
    connection.execute(update(streams).values(expected=streams.c.upto))
    received.create(connection)
    metrics = connection.execute(select(documents).where(documents.c.kind == "metrics")).all()
    key = (streams.c.device == bindparam("d"), streams.c.boot == bindparam("b"), streams.c.stream == bindparam("s"))
    for row in metrics:
        for stream, told in told_by(json.loads(row.body)).items():
            values = {"d": row.device, "b": row.boot, "s": stream}
            connection.execute(update(streams).where(*key).values(told=to_text(told)), values)
