"""Where every result went. ``produced = delivered + pending + evicted + refused`` per boot and stream."""

from dataclasses import dataclass


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

    def balanced(self) -> bool:
        return self.produced == self.delivered + self.pending + self.evicted + self.refused
