"""Takes a device's message apart, before anything is stored."""

import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from agent.clock_epochs import Knowledge, parse_report
from agent.hub.books import Stream
from agent.link import Received
from agent.topics import UpTopic, is_name, parse_up
from agent.wire import Batch, WireError, decode, identity

MAX_DOCUMENT_BYTES = 256 << 10
MAX_EVENT_BYTES = 4 << 10
"""Many events of a device are kept, of the other documents one each."""
MAX_LEVELS = 32
"""Of objects and lists in each other: what is stored must be readable for whoever has less stack than this."""
_CE_ID = re.compile(r"[a-z0-9_-]+/([a-z0-9_-]{1,64})/(\d{1,16})-(\d{1,16})\Z")


@dataclass(slots=True)
class Parsed:
    """A message taken apart: exactly one of batch, document and reason is set."""

    message: Received
    topic: UpTopic | None
    batch: Batch | None = None
    """Its numbers without its results: they are stored as they came, and a group of them fits into memory."""
    document: dict[str, Any] | None = None
    clocks: dict[str, Knowledge] | None = None
    """What a document says of epochs, if it is of the kind that does."""
    kind: str = ""
    """What is counted; of few different values, whatever devices send."""
    reason: str = ""
    claimed: tuple[Stream, int, int] | None = None
    """The stream, first and last number of a batch that is no good, if the message says so."""

    @property
    def device(self) -> str:
        """Empty if even that is unknown."""
        return self.topic.device if self.topic else ""

    @property
    def boot(self) -> str:
        """What travels beside a document; empty if there is none."""
        boot = self.message.properties.get("boot", "")
        return boot if is_name(boot) else ""


def parse(root: str, message: Received) -> Parsed:
    """Never raises: what cannot be used has a ``reason``."""
    topic = parse_up(root, message.topic)
    if topic is None:
        return Parsed(message, None, kind="wrong topic", reason="topic is not one of a device's")
    try:
        if topic.kind != "res":
            limit_bytes = MAX_EVENT_BYTES if topic.kind == "event" else MAX_DOCUMENT_BYTES
            document = _document(message.payload, limit_bytes)
            clocks = parse_report(document) if topic.kind == "clock" else None
            return Parsed(message, topic, document=document, clocks=clocks)
        batch = decode(message.payload)
        if batch.stream != topic.stream:
            raise WireError(f"batch is of stream {batch.stream}, not of its topic's")
        return Parsed(message, topic, replace(batch, t_us=(), columns=None))
    except WireError as error:
        kind = "bad batch" if topic.kind == "res" else f"bad {topic.kind}"
        claim = _claimed(message, topic) if topic.kind == "res" else None
        return Parsed(message, topic, kind=kind, reason=str(error), claimed=claim)


def _claimed(message: Received, topic: UpTopic) -> tuple[Stream, int, int] | None:
    """What stands beside the payload, else (MQTT 3.1.1 has no such place) what the payload itself says."""
    named = _CE_ID.match(message.properties.get("ce-id", ""))
    if named is not None:
        return (topic.device, named[1], topic.stream), int(named[2]), int(named[3])
    said = identity(message.payload) if "ce-id" not in message.properties else None
    if said is None or said[1] != topic.stream:
        return None
    return (topic.device, said[0], topic.stream), said[2], said[3]


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def _document(payload: bytes, limit_bytes: int) -> dict[str, Any]:
    """A JSON object of bearable size and depth, whose fractions are finite."""
    if len(payload) > limit_bytes:
        raise WireError(f"document is too large: {len(payload)} bytes, at most {limit_bytes}")
    try:
        document = json.loads(payload, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise WireError(f"document is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise WireError("document is not a JSON object")
    if _is_deep(document):
        raise WireError(f"document has more than {MAX_LEVELS} levels")
    return document


def _is_deep(document: dict[str, Any]) -> bool:
    level: list[Any] = [document]
    for _ in range(MAX_LEVELS):
        containers = [one for one in level if isinstance(one, dict | list)]
        level = [part for one in containers for part in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, dict | list) for one in level)
