"""When each result came to the hub, read from the hub's SQLite file beside a running hub."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.cli.command import CommandError
from agent.wire import decode


@dataclass(frozen=True, slots=True)
class Arrivals:
    """One entry per stored result, in the order of storing. Times are Unix microseconds of this machine."""

    seq: npt.NDArray[np.int64]
    t_us: npt.NDArray[np.int64]
    """Captured."""
    received_us: npt.NDArray[np.int64]
    """Stored by the hub."""

    @property
    def latency_ms(self) -> npt.NDArray[np.float64]:
        """From capture to the store."""
        return (self.received_us - self.t_us) / 1e3


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A gap record in the hub's store."""

    boot: str
    seq0: int
    seq1: int
    cause: str


def arrivals(hub_db: Path, device: str) -> Arrivals:
    """Everything that is stored of a device with one stream."""
    parts: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    with closing(_open(hub_db)) as db:
        for seq0, seq1, received_us, payload in db.execute(
            "SELECT seq0, seq1, received_us, payload FROM batches WHERE device = ? ORDER BY id", (device,)
        ):
            # A row may stand for a part of its batch only: the rest came before.
            batch = decode(payload)
            part = slice(seq0 - batch.seq0, seq1 - batch.seq0 + 1)
            t_us = np.array(batch.t_us[part], np.int64)
            parts.append((np.arange(seq0, seq1 + 1), t_us, np.full(len(t_us), received_us)))
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Arrivals(nothing, nothing, nothing)
    seq, captured_us, received = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Arrivals(seq, captured_us, received)


def stored(hub_db: Path, device: str) -> int:
    """How many results are stored by now; 0 while there is no store."""
    return _sum(hub_db, device, "stored")


def came_again(hub_db: Path, device: str) -> int:
    """How many results came more than once by now."""
    return _sum(hub_db, device, "duplicates")


def _sum(hub_db: Path, device: str, column: str) -> int:
    if not hub_db.exists():
        return 0
    with closing(_open(hub_db)) as db:
        try:
            (count,) = db.execute(
                f"SELECT ifnull(sum({column}), 0) FROM streams WHERE device = ?", (device,)
            ).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # the hub is just making it
                return 0
            raise CommandError(f"{hub_db} cannot be read: {error}") from error
    return int(count)


def given_up(hub_db: Path, device: str) -> list[GivenUp]:
    """All gap records of a device."""
    with closing(_open(hub_db)) as db:
        rows = db.execute(
            "SELECT boot, seq0, seq1, cause FROM gaps WHERE device = ? ORDER BY boot, seq0", (device,)
        ).fetchall()
    return [GivenUp(*row) for row in rows]


def _open(hub_db: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{hub_db.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
