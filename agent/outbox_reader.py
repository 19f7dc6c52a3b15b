"""Look into an outbox from outside, read-only, while its agent runs or not: for people, tools and tests."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from agent.record import Record

PAGE_ROWS = 256
COLUMNS = tuple(field.name for field in fields_of(Record))


class OutboxUnreadable(Exception):
    """There is no outbox, or it is damaged: one sentence."""


def records(path: Path) -> Iterator[Record]:
    """Every batch and gap record that waits to be acknowledged, oldest first. Raises OutboxUnreadable."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise OutboxUnreadable(
            f"no outbox {path} to read ({error.strerror}): has an agent run with this state_dir, and may you read it?"
        ) from error
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            last_id = -1
            # Page by page: an open statement holds a snapshot, and behind a snapshot the agent's WAL only grows.
            while page := connection.execute(
                f"SELECT {', '.join(COLUMNS)} FROM batches WHERE id > ? ORDER BY id LIMIT ?", (last_id, PAGE_ROWS)
            ).fetchall():
                for row in page:
                    fields: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
                    yield Record(**{**fields, "is_gap": bool(fields["is_gap"])})
                last_id = page[-1][COLUMNS.index("id")]
    except sqlite3.Error as error:
        raise OutboxUnreadable(f"{path} cannot be read: {error}") from error
