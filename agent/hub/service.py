"""The hub: stores what devices send, exactly once, and tells each device how far it got.

The order is what makes it safe: one transaction for batches and watermark, then PUBACK, then the retained watermark.
A message that was not acknowledged comes again; a watermark that got lost is asked for by a duplicate.
"""

import json
import logging
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event as Flag

from agent.errors import ConfigError
from agent.hub.store import HubStore, Stream
from agent.link import Birth, Connected, Disconnected, Event, Message, Received
from agent.mqtt import Broker, PahoLink
from agent.outage import Backoff, Outage
from agent.topics import ROOT, Topics, UpTopic, hub_filters, is_name, parse_up
from agent.wire import CONTENT_TYPE, Batch, WireError, decode
from agent.worker import rest

log = logging.getLogger(__name__)

GROUP_MESSAGES = 256
PERSISTENT_S = 7 * 24 * 3600
"""How long the broker keeps messages for a hub that is away."""
STEADY_S = 5.0
MAX_DOCUMENT_BYTES = 256 << 10
_TICK_S = 0.25
_CE_ID = re.compile(r"[a-z0-9_-]+/([a-z0-9_-]{1,64})/(\d{1,19})-(\d{1,19})\Z")


@dataclass(slots=True)
class _Parsed:
    """A message taken apart before the transaction: exactly one of batch, document and reason is set."""

    message: Received
    topic: UpTopic | None
    batch: Batch | None = None
    document: str = ""
    kind: str = ""
    """What is counted; of few different values, whatever devices send."""
    reason: str = ""


@dataclass(slots=True)
class _Answers:
    """What to publish once a group is stored."""

    upto: dict[Stream, int] = field(default_factory=dict)
    nacks: dict[Stream, int] = field(default_factory=dict)
    rejects: list[tuple[Stream, dict[str, object]]] = field(default_factory=list)


class Hub:
    """A ``Worker``. One thread, one database connection, one persistent session at the broker."""

    name = "hub"
    critical = True

    def __init__(self, broker: Broker, path: Path, *, root: str = ROOT, client_id: str = "axond-hub") -> None:
        self._path = path
        self._root = root
        self._link = PahoLink(broker, client_id, persistent_s=PERSISTENT_S, manual_ack=True)
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._seq = count(1)
        self._connection = Outage(log, "hub is connected again")
        self._storage = Outage(log, "hub stores again")
        self._backoff = Backoff(0.5, 10.0)
        self._storage_backoff = Backoff(0.1, 5.0)
        self.connected = Flag()
        """Set while subscribed."""

    def run(self, stop: Flag, beat: Callable[[], None] = lambda: None) -> None:
        """Serves until ``stop``. ``ConfigError`` if the store cannot be opened."""
        try:
            store = HubStore.open(self._path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"hub store {self._path} cannot be opened: {error}") from error
        with closing(store):
            try:
                while not stop.is_set():
                    beat()
                    connected_s = self._serve(store, stop, beat)
                    self._link.stop()
                    self.connected.clear()
                    if connected_s > STEADY_S:
                        self._backoff.reset()
                    rest(self._backoff.next_s(), stop, beat)
            finally:
                self._link.stop()
                self.connected.clear()

    def _serve(self, store: HubStore, stop: Flag, beat: Callable[[], None]) -> float:
        """One connection, from the attempt to its end; returns how long it lasted."""
        self._events = SimpleQueue()
        self._link.start(self._events, Birth(hub_filters(self._root)), None)
        since_s = time.monotonic()
        while not stop.is_set():
            beat()
            group: list[Received] = []
            ended = False
            for event in self._take():
                if isinstance(event, Received):
                    group.append(event)
                elif isinstance(event, Connected):
                    since_s = time.monotonic()
                    self.connected.set()
                    self._connection.over()
                    log.info("hub connected")
                elif isinstance(event, Disconnected):
                    self._connection.failed(event.sentence)
                    ended = True
            if group:
                self._store(store, [self._parse(message) for message in group], stop, beat)
            if ended:
                break
        return time.monotonic() - since_s

    def _take(self) -> list[Event]:
        """All that is there, up to a group; waits a moment for the first."""
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=_TICK_S))
            while len(events) < GROUP_MESSAGES:
                events.append(self._events.get_nowait())
        except Empty:
            return events
        return events

    def _parse(self, message: Received) -> _Parsed:
        topic = parse_up(self._root, message.topic)
        if topic is None:
            return _Parsed(message, None, kind="wrong topic", reason="topic is not one of a device's")
        try:
            if topic.kind != "res":
                return _Parsed(message, topic, document=_document(message.payload))
            batch = decode(message.payload)
            if batch.stream != topic.stream:
                raise WireError(f"batch is of stream {batch.stream}, not of its topic's")
            return _Parsed(message, topic, batch)
        except WireError as error:
            kind = "bad batch" if topic.kind == "res" else f"bad {topic.kind}"
            return _Parsed(message, topic, kind=kind, reason=str(error))

    def _store(self, store: HubStore, group: list[_Parsed], stop: Flag, beat: Callable[[], None]) -> None:
        """Stores a group, however long it takes; given up only at ``stop``, and then the broker sends it again."""
        while True:
            answers = _Answers()
            try:
                with store.transaction():
                    for parsed in group:
                        self._apply(store, parsed, answers)
            except sqlite3.OperationalError as error:
                self._storage.failed(f"hub store {self._path} cannot be written: {error}; messages wait")
                rest(self._storage_backoff.next_s(), stop, beat)
                if stop.is_set():
                    return
                continue
            break
        self._storage.over()
        self._storage_backoff.reset()
        for parsed in group:
            self._link.acknowledge(parsed.message)
        self._publish(answers)

    def _apply(self, store: HubStore, parsed: _Parsed, answers: _Answers) -> None:
        device = parsed.topic.device if parsed.topic else ""
        if parsed.reason:
            first = store.count_rejected(device, parsed.kind)
            log.log(
                logging.WARNING if first else logging.DEBUG,
                "rejected a message on %r: %s",
                parsed.message.topic[:200],
                parsed.reason[:300],
            )
            self._reject(store, parsed, answers)
        elif parsed.batch is not None:
            batch = parsed.batch
            verdict = store.add_batch(device, batch, parsed.message.payload)
            key = (device, batch.boot, batch.stream)
            if verdict.lacking:
                answers.nacks[key] = verdict.upto
            else:
                answers.upto[key] = verdict.upto
                answers.nacks.pop(key, None)
        elif parsed.topic is not None:
            boot = parsed.message.properties.get("boot", "")
            store.put_document(device, parsed.topic.kind, boot if is_name(boot) else "", parsed.document)

    def _reject(self, store: HubStore, parsed: _Parsed, answers: _Answers) -> None:
        """If the message says beside its payload which results it holds, the device can give them up and go on."""
        named = _CE_ID.match(parsed.message.properties.get("ce-id", ""))
        if parsed.topic is None or parsed.topic.kind != "res" or named is None:
            return
        key = (parsed.topic.device, named[1], parsed.topic.stream)
        reject: dict[str, object] = {"seq": [int(named[2]), int(named[3])], "reason": parsed.reason[:200]}
        answers.rejects.append((key, {"boot": key[1], "upto": store.upto(*key), "reject": reject}))

    def _publish(self, answers: _Answers) -> None:
        for key, upto in answers.upto.items():
            self._send(key, {"boot": key[1], "upto": upto}, retain=True)
        for key, upto in answers.nacks.items():
            self._send(key, {"boot": key[1], "upto": upto, "nack": True}, retain=False)
        for key, document in answers.rejects:
            self._send(key, document, retain=False)

    def _send(self, key: Stream, document: dict[str, object], *, retain: bool) -> None:
        device, _, stream = key
        topic = Topics(self._root, device).ack(stream)
        payload = json.dumps(document, separators=(",", ":")).encode()
        self._link.send(next(self._seq), Message(topic, payload, retain=retain, content_type=CONTENT_TYPE))


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _document(payload: bytes) -> str:
    """The text of a JSON object of bearable size."""
    if len(payload) > MAX_DOCUMENT_BYTES:
        raise WireError(f"document is too large: {len(payload)} bytes, at most {MAX_DOCUMENT_BYTES}")
    try:
        document = json.loads(payload, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise WireError(f"document is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise WireError("document is not a JSON object")
    return json.dumps(document)
