"""The accounts of what devices send: one per device, boot and stream, and the sentences that say what is wrong."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agent.hub.ranges import Coverage, Range
from agent.topics import is_name
from agent.wire import MAX_SEQ, Batch

Stream: TypeAlias = tuple[str, str, str]
"""Device, boot, stream."""
Told: TypeAlias = dict[str, int]
"""A device's own ledger of a stream: ``produced delivered pending evicted refused``."""

MAX_HAVE = 64
"""Ranges beyond the watermark that an acknowledgement names."""
MAX_STREAMS = 256
"""Streams of one device whose ledgers are looked at; more are ignored."""
_TOLD = ("produced", "delivered", "pending", "evicted", "refused")


@dataclass(slots=True)
class Account:
    """What is stored of one stream, while a transaction holds it."""

    coverage: Coverage = field(default_factory=Coverage)
    stored: int = 0
    missing: int = 0
    """Closed by gap records."""
    duplicates: int = 0
    expected: int = 0
    """How many numbers exist for certain: the highest seen, or what the device told before its last report.

    What it told last may not have been written down yet when it died.
    """
    told: Told | None = None

    def add(self, batch: Batch) -> list[Range]:
        """Takes in a batch or gap record; the parts of it that are new. ``ScatteredError`` changes nothing."""
        parts = self.coverage.add(batch.seq0, batch.seq1)
        new = sum(last - first + 1 for first, last in parts)
        if batch.cause:
            self.missing += new
        else:
            self.stored += new
            self.duplicates += batch.seq1 - batch.seq0 + 1 - new
        self.expected = max(self.expected, self.coverage.highest)
        return parts

    def hear(self, told: Told) -> None:
        """Takes in what the device says of this stream."""
        if self.told is not None:
            self.expected = max(self.expected, self.told.get("produced", 0) - self.told.get("refused", 0))
        self.told = told

    def mark(self) -> "Mark":
        return Mark(self.coverage.upto, tuple(self.coverage.ahead[:MAX_HAVE]))


@dataclass(frozen=True, slots=True)
class Mark:
    """What a device is answered: everything up to ``upto`` is accounted for, and the ranges of ``have``."""

    upto: int
    have: tuple[Range, ...] = ()

    def document(self, boot: str) -> dict[str, object]:
        document: dict[str, object] = {"boot": boot, "upto": self.upto}
        return {**document, "have": self.have} if self.have else document


@dataclass(frozen=True, slots=True)
class Difference:
    """What is wrong with the books of a stream."""

    sentence: str
    results: int
    """How many results it is about, at least 1."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A stream whose books stopped agreeing (``sentence``), or agree again (``sentence`` is empty)."""

    stream: Stream
    sentence: str


@dataclass(frozen=True, slots=True)
class Device:
    """What the hub knows of a device. ``status``, ``info`` and ``metrics`` are the last documents, or empty."""

    name: str
    status: dict[str, Any]
    info: dict[str, Any]
    metrics: dict[str, Any]
    last_us: int
    rejected: int
    """Messages that were no valid batch or document."""
    alarms: int = 0
    """Streams whose books do not agree now, and nobody has accepted it."""
    events: int = 0
    """Events that it ever sent."""
    last_event: dict[str, Any] = field(default_factory=dict)
    """The newest of them, or empty."""


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """What a device said of itself, an alarm for example. Of each device the newest are kept."""

    device: str
    number: int
    """Counts the device's events from 1; a number that is not there was dropped to make room."""
    received_us: int
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StreamLedger:
    """The account of one device, boot and stream: ``stored + missing`` must be ``upto + ahead``."""

    device: str
    boot: str
    stream: str
    upto: int
    stored: int
    """Counted from the batches themselves, and what has expired since."""
    missing: int
    """Closed by gap records: evicted by the device, or delivered to somebody else before. Counted from them."""
    duplicates: int
    """Results that came again; a measure of the wire, not of the store."""
    reported: Told | None
    """The device's own ledger, as it last told of this boot."""
    ahead: int = 0
    """Results and gaps beyond the watermark."""
    expired: int = 0
    """Stored once, and removed because they were older than the hub keeps results."""
    booked: int = 0
    """What the hub noted as stored when it stored it."""
    alarm: Difference | None = None
    """What the hub found when the device last told its books."""
    accepted: int = 0
    """A person has taken note that so many results are not accounted for."""
    accepted_us: int = 0

    @property
    def difference(self) -> Difference | None:
        """What does not agree, accepted or not."""
        if self.stored + self.missing != self.upto + self.ahead:
            beyond = f" and the {self.ahead} beyond it" if self.ahead else ""
            what = f"stored {self.stored} + missing {self.missing} is not the watermark {self.upto}{beyond}"
            return Difference(what, abs(self.stored + self.missing - self.upto - self.ahead))
        if self.stored != self.booked:
            what = f"stored are {self.stored}, the hub noted {self.booked}"
            return Difference(what, abs(self.stored - self.booked))
        return disagreement(self.reported, self.stored) or self.alarm

    @property
    def problem(self) -> str | None:
        """One sentence if the books do not agree, accepted or not, else None."""
        return self.difference.sentence if self.difference else None

    @property
    def is_open(self) -> bool:
        """Whether something does not agree, and more than a person has accepted."""
        return self.difference is not None and self.difference.results > self.accepted


def disagreement(told: Told | None, stored: int) -> Difference | None:
    """What is wrong if a device's ledger does not balance or claims more than is stored, else None."""
    if told is None:
        return None
    produced = told.get("produced", 0)
    accounted = sum(told.get(name, 0) for name in ("delivered", "pending", "evicted", "refused"))
    if produced != accounted:
        return Difference(f"the device produced {produced} and accounts for {accounted}", abs(produced - accounted))
    delivered = told.get("delivered", 0)
    if delivered > stored:
        return Difference(f"the device delivered {delivered}, stored are {stored}", delivered - stored)
    return None


def told_by(metrics: Mapping[str, Any]) -> dict[str, Told]:
    """The ledgers in a metrics document, by stream: ``ledger_STREAM_produced`` and so on."""
    ledgers: dict[str, Told] = {}
    for name, number in metrics.items():
        stream, _, what = name.removeprefix("ledger_").rpartition("_")
        if not (name.startswith("ledger_") and is_name(stream) and what in _TOLD):
            continue
        if stream not in ledgers and len(ledgers) == MAX_STREAMS:
            continue
        if type(number) in (int, float) and 0 <= number <= MAX_SEQ:
            ledgers.setdefault(stream, {})[what] = int(number)
    return ledgers


def pending_elsewhere(metrics: Mapping[str, Any], ledgers: Mapping[str, Told]) -> bool:
    """Whether the device may hold results of earlier boots; a device that does not say may."""
    rows = metrics.get("outbox_rows")
    own = sum(told.get("pending", 0) for told in ledgers.values())
    return not isinstance(rows, int | float) or not rows <= own


def to_text(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))
