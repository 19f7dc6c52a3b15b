"""The hub's word on what it has stored: ``{"boot", "upto", "have"?, "nack"?, "reject"?}`` on ``down/ack/{stream}``."""

import json
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from agent.topics import is_name

Range = tuple[int, int]
"""First and last sequence number."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """All of 1..``upto`` is stored or known as a gap at the hub, and so is every range of ``have`` beyond it."""

    boot: str
    upto: int
    have: tuple[Range, ...] = ()
    """Ascending and disjoint; the lowest ones if the hub has many."""
    nack: bool = False
    """A hub of the old kind throws away what comes out of order and wants all beyond ``upto`` again."""
    reject: Range | None = None
    """A batch that the hub will never take."""
    reason: str = ""

    @property
    def highest(self) -> int:
        """The highest number that the hub has."""
        return self.have[-1][1] if self.have else self.upto

    def covers(self, seq0: int, seq1: int) -> bool:
        """Whether the hub needs nothing of ``seq0`` to ``seq1`` any more."""
        if seq1 <= self.upto:
            return True
        at = bisect_right(self.have, seq0, key=_first) - 1
        return at >= 0 and seq1 <= self.have[at][1]

    def hole(self, lowest_held: int | None) -> Range | None:
        """The first numbers that the hub lacks and nobody can send any more; ``lowest_held`` is what the device has."""
        starts = [first for first, _ in self.have[:1]]
        if lowest_held is not None:
            starts.append(lowest_held)
        last = min(starts, default=self.upto + 1) - 1
        return (self.upto + 1, last) if last > self.upto else None


def parse_watermark(payload: bytes) -> Watermark | None:
    """Reads what an untrusted hub sent; None if it is no watermark."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    boot, upto, have = document.get("boot"), document.get("upto"), _ranges(document.get("have", []))
    if not isinstance(boot, str) or not is_name(boot) or type(upto) is not int or have is None:
        return None
    reject = document.get("reject")
    refused = _ranges([reject.get("seq")]) if isinstance(reject, dict) else None
    if reject is not None and not refused:
        return None
    return Watermark(
        boot,
        upto,
        have,
        nack=bool(document.get("nack")),
        reject=refused[0] if refused else None,
        reason=str(reject.get("reason", ""))[:200] if isinstance(reject, dict) else "",
    )


def _ranges(value: Any) -> tuple[Range, ...] | None:
    """Ascending, disjoint ranges; None for anything else."""
    if not isinstance(value, list):
        return None
    last = 0
    for item in value:
        if not (isinstance(item, list) and len(item) == 2 and all(type(seq) is int for seq in item)):
            return None
        if not last < item[0] <= item[1]:
            return None
        last = item[1]
    return tuple((first, final) for first, final in value)


def _first(item: Range) -> int:
    return item[0]
