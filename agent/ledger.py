"""Where every result went. ``produced = delivered + pending + evicted + refused`` per boot and stream."""

from dataclasses import dataclass, field

from agent.outbox_ranges import Ranges


@dataclass(slots=True)
class Counts:
    """Rows of one boot and stream. ``pending`` is what is queued or stored and not yet acknowledged."""

    produced: int = 0
    delivered: int = 0
    pending: int = 0
    evicted: int = 0
    """Given up before they were acknowledged; each one lies in a gap record that is sent."""
    refused: int = 0
    """Never numbered: the queue was full, or the stream's name is not allowed."""

    def copy(self) -> "Counts":
        return Counts(self.produced, self.delivered, self.pending, self.evicted, self.refused)

    def balanced(self) -> bool:
        return self.produced == self.delivered + self.pending + self.evicted + self.refused


@dataclass(slots=True)
class Entry:
    """The account of one boot and stream, as the file keeps it."""

    counts: Counts = field(default_factory=Counts)
    next_seq: int = 1
    held: Ranges = field(default_factory=Ranges)
    """Numbers that are stored and not acknowledged, those of gap records included."""

    def copy(self) -> "Entry":
        return Entry(self.counts.copy(), self.next_seq, self.held.copy())
