"""What is known of the wall clock in each epoch, and what follows for the time stamps that were made in it.

An epoch is a stretch of time in which CLOCK_MONOTONIC has one origin: from one start of the kernel to the next, or to
the next sleep. In it the right offset between wall clock and CLOCK_MONOTONIC is one number. It is learnt by fixes,
moments at which the kernel vouched for the wall clock; where there is none, the epochs before and after bound it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.topics import is_name
from agent.wire import MAX_SEQ, Batch, WireError, is_uncertainty

MAX_FIXES = 16
MAX_EPOCHS = 64
"""Of the older ones the oldest is forgotten: the stamps of its results stay as they are."""
DRIFT_PPM = 500
"""How wrong a clock that nobody corrects goes at most: the bound that the kernel itself counts with."""


@dataclass(frozen=True, slots=True)
class Fix:
    """At ``mono_us`` of CLOCK_MONOTONIC the wall clock was ahead of it by ``offset_us``, give or take."""

    mono_us: int
    offset_us: int
    uncertainty_ms: float

    def uncertainty_at_ms(self, mono_us: int) -> float:
        """It grows with the distance in time."""
        return self.uncertainty_ms + abs(mono_us - self.mono_us) * DRIFT_PPM / 1e9

    def agrees(self, other: "Fix") -> bool:
        return abs(self.offset_us - other.offset_us) / 1000 <= self.uncertainty_at_ms(other.mono_us) + (
            other.uncertainty_ms
        )


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Of one epoch: fixes, oldest first, or else bounds of the offset."""

    fixes: tuple[Fix, ...] = ()
    least_us: int | None = None
    most_us: int | None = None

    def at(self, mono_us: int) -> Fix | None:
        """The best guess for a moment; None if there is no more than a lower bound, or nothing."""
        if self.fixes:
            nearest = min(self.fixes, key=lambda fix: abs(fix.mono_us - mono_us))
            return Fix(mono_us, nearest.offset_us, nearest.uncertainty_at_ms(mono_us))
        if self.least_us is None or self.most_us is None:
            return None
        return Fix(mono_us, (self.least_us + self.most_us) // 2, (self.most_us - self.least_us) / 2000)


Table = Mapping[str, Knowledge]
"""By epoch."""


def restamp(batch: Batch, table: Table) -> Batch:
    """The batch with the times that it should have, and their uncertainty (ms, None: nobody knows).

    A stamp that was made while the clock was known stays, unless a later fix of its epoch contradicts it.
    """
    known = table.get(batch.epoch)
    if not batch.epoch or known is None or batch.offset_us is None or not batch.t_us:
        return batch
    mono_us = batch.t_us[0] - batch.offset_us
    best = known.at(mono_us)
    if best is None:
        behind_us = (known.least_us or batch.offset_us) - batch.offset_us
        return _moved(batch, behind_us, None) if batch.uncertainty_ms is None and behind_us > 0 else batch
    if batch.uncertainty_ms is not None and best.agrees(Fix(mono_us, batch.offset_us, batch.uncertainty_ms)):
        return batch
    return _moved(batch, best.offset_us - batch.offset_us, round(best.uncertainty_ms, 1))


def _moved(batch: Batch, by_us: int, uncertainty_ms: float | None) -> Batch:
    t_us = tuple(one + by_us for one in batch.t_us)
    return replace(batch, t_us=t_us, offset_us=(batch.offset_us or 0) + by_us, uncertainty_ms=uncertainty_ms)


@dataclass(slots=True)
class Epoch:
    """An epoch as the device itself remembers it."""

    id: str
    kernel: str
    """The start of the kernel; epochs that have it in common follow one another by a sleep."""
    slept_us: int = 0
    """How long the machine had slept, since the kernel started."""
    end_us: int = 0
    """CLOCK_MONOTONIC when it was last seen to last."""
    fixes: list[Fix] = field(default_factory=list)

    def add(self, fix: Fix, *, replaces: bool) -> None:
        """Takes in a newer fix, ``replaces``: in the place of the last one.

        What contradicts it is dropped: of two clocks that were both vouched for, the later one was corrected.
        """
        kept = self.fixes[:-1] if replaces else self.fixes
        self.fixes = [*(one for one in kept if one.agrees(fix)), fix]
        if len(self.fixes) > MAX_FIXES:
            del self.fixes[MAX_FIXES // 2]


def knowledge(epochs: Sequence[Epoch], floor_us: int | None = None) -> dict[str, Knowledge]:
    """What is known of each epoch, oldest first. ``floor_us`` is Unix time that the oldest of them lies behind."""
    least = _lower(epochs, floor_us)
    most = _upper(epochs)
    table = {}
    for epoch, low_us, high_us in zip(epochs, least, most, strict=True):
        if epoch.fixes:
            table[epoch.id] = Knowledge(tuple(epoch.fixes))
            continue
        # Bounds that contradict each other come from a clock that was wrong and vouched for: then nobody knows.
        if low_us is not None and (high_us is None or low_us <= high_us):
            table[epoch.id] = Knowledge(least_us=low_us, most_us=high_us)
    return table


def _lower(epochs: Sequence[Epoch], floor_us: int | None) -> list[int | None]:
    """The least that each offset can be: an epoch begins after the one before has ended."""
    found: list[int | None] = []
    before: Epoch | None = None
    offset_us = floor_us
    for epoch in epochs:
        if before is not None and offset_us is not None:
            asleep = epoch.kernel == before.kernel
            offset_us += epoch.slept_us - before.slept_us if asleep else before.end_us
        found.append(offset_us)
        if epoch.fixes:
            last = epoch.fixes[-1]
            offset_us = last.offset_us - round(last.uncertainty_at_ms(epoch.end_us) * 1000)
        before = epoch
    return found


def _upper(epochs: Sequence[Epoch]) -> list[int | None]:
    """The most that each offset can be: an epoch ends before the next one begins."""
    found: list[int | None] = []
    after: Epoch | None = None
    offset_us: int | None = None
    for epoch in reversed(epochs):
        if after is not None and offset_us is not None:
            asleep = epoch.kernel == after.kernel
            offset_us -= after.slept_us - epoch.slept_us if asleep else epoch.end_us
        found.append(offset_us)
        if epoch.fixes:
            first = epoch.fixes[0]
            offset_us = first.offset_us + round(first.uncertainty_at_ms(0) * 1000)
        after = epoch
    return found[::-1]


def to_document(known: Knowledge) -> dict[str, Any]:
    """For the wire: ``{"fixes": [[mono_us, offset_us, unc_ms], ..]}`` or ``{"least_us": .., "most_us": ..}``."""
    if known.fixes:
        return {"fixes": fixes_document(known.fixes)}
    return {"least_us": known.least_us, "most_us": known.most_us}


def fixes_document(fixes: Iterable[Fix]) -> list[list[float]]:
    return [[fix.mono_us, fix.offset_us, fix.uncertainty_ms] for fix in fixes]


def from_document(document: object) -> Knowledge:
    """Reads what ``to_document`` made, from an untrusted sender; ``WireError`` for anything else."""
    if not isinstance(document, dict):
        raise WireError("what is known of an epoch must be an object")
    fixes = parse_fixes(document.get("fixes", []))
    least_us, most_us = (document.get(name) for name in ("least_us", "most_us"))
    if not all(one is None or is_time(one) for one in (least_us, most_us)):
        raise WireError("least_us and most_us must be whole numbers of 53 bits or null")
    if least_us is not None and most_us is not None and least_us > most_us:
        raise WireError("least_us is above most_us")
    return Knowledge(tuple(fixes), least_us, most_us)


def parse_fixes(found: object) -> list[Fix]:
    """``WireError`` for anything but a short list of fixes."""
    if not isinstance(found, list) or len(found) > MAX_FIXES:
        raise WireError(f"fixes must be a list of at most {MAX_FIXES}")
    fixes = []
    for one in found:
        if not (isinstance(one, list) and len(one) == 3 and is_time(one[0]) and is_time(one[1])):
            raise WireError("a fix must be mono_us, offset_us and unc_ms")
        if not is_uncertainty(one[2]):
            raise WireError("a fix's unc_ms must be a number from 0 on")
        fixes.append(Fix(*one))
    return fixes


def parse_report(document: Mapping[str, Any]) -> dict[str, Knowledge]:
    """The epochs in what a device publishes on ``up/clock``; ``WireError`` for anything else."""
    epochs = document.get("epochs")
    if not isinstance(epochs, dict) or len(epochs) > MAX_EPOCHS:
        raise WireError(f"epochs must be an object of at most {MAX_EPOCHS}")
    if not all(map(is_name, epochs)):
        raise WireError("an epoch's name must be of [a-z0-9_-], 1 to 64 characters")
    return {name: from_document(known) for name, known in epochs.items()}


def is_time(number: object) -> bool:
    """Whether it is a whole number of microseconds of 53 bits."""
    return type(number) is int and -MAX_SEQ <= number <= MAX_SEQ
