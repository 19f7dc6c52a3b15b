"""Look into an outbox from outside, read-only, while its agent runs or not: for people, tools and tests."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from agent.record import Record

COLUMNS = tuple(field.name for field in fields_of(Record))


class OutboxUnreadable(Exception):
    """There is no outbox, or it is damaged: one sentence."""


def records(path: Path) -> Iterator[Record]:
    """Every batch and gap record that waits to be acknowledged, oldest first. Raises OutboxUnreadable."""
    if not path.is_file():
        raise OutboxUnreadable(f"no outbox {path}: has an agent run with this state_dir?")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            for row in connection.execute(f"SELECT {', '.join(COLUMNS)} FROM batches ORDER BY id"):
                fields: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
                yield Record(**{**fields, "is_gap": bool(fields["is_gap"])})
    except sqlite3.Error as error:
        raise OutboxUnreadable(f"{path} cannot be read: {error}") from error
