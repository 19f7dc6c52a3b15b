"""What the outbox keeps: batches of results and gap records."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, TypeAlias

Key: TypeAlias = tuple[str, str]
"""Boot and stream."""
Lane: TypeAlias = Literal["fresh", "backlog"]
"""What was stored just now is sent before what waits from an outage."""


class Priority(IntEnum):
    """The class of a result. When the disk is full the lowest goes first; an alarm is committed at once."""

    RAW = 0
    """Samples and spikes: thinned before whole stretches go."""
    TELEMETRY = 1
    """Slow measurements: thinned as well."""
    RESULT = 2
    """What a pipeline decided."""
    ALARM = 3

    NORMAL = RESULT


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
    """With the WAL and the damaged files that are kept."""
    oldest_age_s: float
    evicted: int
    refused: int
    salvaged: int
    """Rows that were saved from damaged files; this and the rest count from the first day of the outbox."""
    lost: int
    """Rows that were not; each lies in a gap record that is sent."""
    damaged_files: int
    unproven: int
    """Streams in damaged files whose account was unreadable, so that nobody knows exactly what they lost."""
    written_bytes: int
    """What the outbox wrote to the flash, as far as the kernel tells."""
