"""Whether the SQLite file that is open is the one at its path: a restore or a cleaner may take it from under a hub."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from agent.hub.database import Target, is_server


class Place:
    """Of a store. A server is always where it was."""

    def __init__(self, target: Target) -> None:
        self._path = None if is_server(target) else Path(target)
        self._file: tuple[int, int] | None = None
        self._log: dict[Path, tuple[int, int] | None] = {}

    def hold(self) -> None:
        """What is there now is open."""
        if self._path is not None:
            real = self._path.resolve()
            self._file = _identity(real)
            self._log = {path: _identity(path) for path in (Path(f"{real}-wal"), Path(f"{real}-shm"))}

    def is_held(self) -> bool:
        return self._path is None or _identity(self._path) == self._file

    def is_vacant(self) -> bool:
        """Whether there is no file, or one that nothing was written to yet."""
        try:
            return self._path is not None and self._path.stat().st_size == 0
        except OSError:
            return True

    def leave(self, engine: Engine) -> bool:
        """Closes what is open and takes its log away, which SQLite would read into the next file of that name.

        What the log has goes into the file it belongs to, wherever that is now. False: not yet, try again.
        """
        try:
            with closing(engine.raw_connection()) as connection:
                busy, *_ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except (sqlite3.Error, SQLAlchemyError):
            return False
        if busy:
            return False
        engine.dispose()
        for path, held in self._log.items():
            if held is not None and _identity(path) == held:
                path.unlink(missing_ok=True)
        return True


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
