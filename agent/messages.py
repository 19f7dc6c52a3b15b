"""The messages that a device publishes, apart from how and when."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from agent.ledger import Counts
from agent.link import Message
from agent.outbox_group import Queued
from agent.topics import Topics
from agent.wire import CONTENT_ENCODING, CONTENT_TYPE, iso_time, plain, wall_us


def status_message(topics: Topics, state: str, boot: str, agent_version: str, region: str) -> Message:
    """``state`` is online, offline or lost."""
    status = {"state": state, "boot": boot, "ts": iso_time(wall_us()), "agent": agent_version, "region": region}
    return Message(topics.status, to_json(status), retain=True, content_type=CONTENT_TYPE)


def info_message(topics: Topics, info: Mapping[str, Any]) -> Message:
    return Message(topics.info, to_json(info), retain=True, content_type=CONTENT_TYPE)


def batch_message(
    topics: Topics, boot: str, stream: str, seq0: int, seq1: int, payload: bytes, created_us: int | None = None
) -> Message:
    """A batch or gap record, with the attributes of a CloudEvent. ``created_us`` is Unix time; None means now."""
    properties = {
        "ce-specversion": "1.0",
        "ce-id": f"{topics.device}/{boot}/{seq0}-{seq1}",
        "ce-source": f"axond/{topics.device}",
        "ce-type": "axond.results",
        "ce-time": iso_time(wall_us() if created_us is None else created_us),
        "content-encoding": CONTENT_ENCODING,
    }
    return Message(topics.results(stream), payload, content_type=CONTENT_TYPE, properties=properties)


def metrics_message(topics: Topics, boot: str, numbers: Mapping[str, float]) -> Message:
    """Flat numbers; the boot they belong to travels beside them, because consumers want numbers only."""
    return Message(topics.metrics, to_json(numbers), content_type=CONTENT_TYPE, properties={"boot": boot})


def live_message(topics: Topics, result: Queued) -> Message:
    """The last result as flat JSON, for displays: ``ts``, when it was captured, and the columns. Nobody answers it."""
    time_ns = result.payload.get("t_ns")
    age_ns = time.monotonic_ns() - (time_ns if isinstance(time_ns, int) else result.put_ns)
    columns = {str(name): plain(value) for name, value in result.payload.items() if name != "t_ns"}
    document = {"ts": iso_time(wall_us() - age_ns // 1000), **columns}
    return Message(topics.live(result.stream), to_json(document), qos=0, content_type=CONTENT_TYPE)


def ledger_event(topics: Topics, boot: str, stream: str, counts: Counts) -> Message:
    """An alarm: results of ``boot`` and ``stream`` are unaccounted for. ``cleared`` once the ledger balances again."""
    state = "cleared" if counts.balanced() else "raised"
    document = {"event": "ledger", "state": state, "ts": iso_time(wall_us()), "boot": boot, "stream": stream}
    return Message(topics.event, to_json({**document, **asdict(counts)}), content_type=CONTENT_TYPE)


def clock_message(topics: Topics, epochs: Mapping[str, Any]) -> Message:
    """What the device knows of the wall clock in each of its epochs: see ``agent.clock_epochs``."""
    return Message(topics.clock, to_json(epochs), retain=True, content_type=CONTENT_TYPE)


def clock_event(topics: Topics, boot: str, steps: int, by_ms: float, source: str) -> Message:
    """The clock has leapt, by ``by_ms`` the last time; ``steps`` counts since the start."""
    document = {"event": "clock", "state": "leapt", "ts": iso_time(wall_us()), "boot": boot}
    return Message(
        topics.event, to_json({**document, "steps": steps, "by_ms": by_ms, "source": source}), content_type=CONTENT_TYPE
    )


def ledger_numbers(stream: str, counts: Counts) -> dict[str, float]:
    """The ledger as flat numbers: ``ledger_STREAM_produced`` and so on."""
    return {
        f"ledger_{stream}_produced": counts.produced,
        f"ledger_{stream}_delivered": counts.delivered,
        f"ledger_{stream}_pending": counts.pending,
        f"ledger_{stream}_evicted": counts.evicted,
        f"ledger_{stream}_refused": counts.refused,
    }


def to_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
