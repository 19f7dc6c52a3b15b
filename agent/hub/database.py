"""Where the hub stores: a SQLite file or a PostgreSQL database, opened so that a transaction is what it says."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import QueuePool

from agent.errors import ConfigError
from drivers.extras import how_to_install

Target: TypeAlias = Path | str
"""A file, or a URL ``postgresql://...``."""


class MovedError(SQLAlchemyError):
    """The file that is open is not the one at its path any more: one sentence without the path."""


AWAY = (OperationalError, InterfaceError, InternalError, MovedError)
"""Locked, full, gone, moved, starting or being failed over: try again."""
LOCK_WAIT_S = 2.0
READ_WAIT_S = 5.0
CONNECT_S = 5
_SILENT_MS = 10_000
_LIMITS = f"-c lock_timeout={LOCK_WAIT_S:.0f}s -c idle_in_transaction_session_timeout={_SILENT_MS}"
"""A hub that hangs in a transaction must not hold up the others."""
_PREPARED = 16
"""Statements that SQLite keeps prepared. Each number of streams in a group is another one, of up to 100 kB."""
_ONE: dict[str, Any] = {"pool_size": 1, "max_overflow": 0}


def is_server(target: Target) -> bool:
    """Whether ``target`` is a URL and not a file."""
    return isinstance(target, str) and "://" in target


def label(target: Target) -> str:
    """How messages call it; a password is left out."""
    if not is_server(target):
        return str(target)
    try:
        return make_url(str(target)).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "(a URL that cannot be read)"


def why(error: Exception) -> str:
    """The database's own words, in one line, without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]


def connect(target: Target, *, read_only: bool) -> Engine:
    """An engine with one connection, which is opened at first use.

    ``ConfigError``: a URL that is none or not of PostgreSQL, or no driver for it. ``FileNotFoundError``: a file that
    shall be read is not there. ``OSError``: its folder cannot be made.
    """
    if is_server(target):
        return _postgresql(str(target), read_only)
    path = Path(target)
    if read_only and not path.exists():
        raise FileNotFoundError(f"no hub store {path}: has a hub run with this path?")
    if not read_only:
        path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine("sqlite://", creator=_opener(path, read_only), poolclass=QueuePool, **_ONE)
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
    event.listen(engine, "begin", lambda connection: _begin(connection, begin))
    return engine


def _opener(path: Path, read_only: bool) -> Callable[[], sqlite3.Connection]:
    def open_file() -> sqlite3.Connection:
        # isolation_level None: SQLAlchemy says BEGIN, not the sqlite3 module when it sees fit.
        if read_only:
            uri = f"{path.absolute().as_uri()}?mode=ro"
            return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=READ_WAIT_S)
        connection = sqlite3.connect(path, isolation_level=None, timeout=LOCK_WAIT_S, cached_statements=_PREPARED)
        try:
            _with_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    return open_file


def _with_wal(connection: sqlite3.Connection) -> None:
    """SQLite refuses one of two that turn a new file to WAL at once, without waiting: each would wait for the other."""
    deadline_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= deadline_s:
                raise
        time.sleep(0.02)


def _begin(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement)


def _postgresql(url: str, read_only: bool) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError("the hub's database URL cannot be read; expected postgresql://USER@HOST/DATABASE") from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "postgresql+psycopg":
        raise ConfigError(f"hub store {label(url)}: expected a file, or a URL that begins with postgresql://")
    options = {
        "connect_timeout": CONNECT_S,
        "tcp_user_timeout": _SILENT_MS,
        "application_name": "axond-hub",
        "options": f"{parsed.query.get('options', '')} {_LIMITS}",
    }
    level: Any = "REPEATABLE READ" if read_only else "READ COMMITTED"
    try:
        return create_engine(parsed, connect_args=options, isolation_level=level, **_ONE)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError(f"PostgreSQL needs psycopg, which is missing: {how_to_install('postgres')}") from error
