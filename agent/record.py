"""What the outbox keeps: batches of results and gap records."""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

Key: TypeAlias = tuple[str, str]
"""Boot and stream."""


class Priority(IntEnum):
    """When the disk is full the lowest goes first. An alarm is committed at once."""

    LOW = 0
    NORMAL = 1
    ALARM = 2


@dataclass(frozen=True, slots=True)
class Record:
    """One stored batch or gap record: what a lease hands out."""

    id: int
    boot: str
    stream: str
    seq0: int
    seq1: int
    priority: int
    is_gap: bool
    created_us: int
    """Wall clock when it was made, as good as the clock was."""
    created_ns: int
    """CLOCK_MONOTONIC when it was made; means something in the same boot only."""
    payload: bytes

    @property
    def key(self) -> Key:
        return self.boot, self.stream

    @property
    def rows(self) -> int:
        """How many results it carries; a gap record carries none."""
        return 0 if self.is_gap else self.seq1 - self.seq0 + 1


@dataclass(frozen=True, slots=True)
class Depth:
    """How full the outbox is. ``evicted`` and ``refused`` count rows since this process started."""

    rows: int
    batches: int
    bytes: int
    oldest_age_s: float
    evicted: int
    refused: int
