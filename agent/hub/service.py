"""The hub: stores what devices send, exactly once, and tells each device how far it got.

The order is what makes it safe: one transaction for batches and accounts, then PUBACK, then the retained watermark.
A message that was not acknowledged comes again; a watermark that got lost is asked for by a duplicate.
"""

import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from agent.errors import ConfigError
from agent.hub.alarms import Report
from agent.hub.answers import Answers
from agent.hub.books import Stream, pending_elsewhere, told_by
from agent.hub.database import AWAY, MovedError, Target, is_server, label, why
from agent.hub.parse import Parsed, parse
from agent.hub.retention import Retention
from agent.hub.store import Arrivals, HubStore, Outcome
from agent.link import FIRST_ERROR, Acked, Birth, Connected, Disconnected, Event, Message, Received
from agent.mqtt import Broker, PahoLink
from agent.outage import Backoff, Outage
from agent.refusals import Refusals
from agent.topics import ROOT, Topics, hub_filters, is_name
from agent.wire import CONTENT_TYPE, wall_us
from agent.worker import rest

log = logging.getLogger(__name__)

GROUP_MESSAGES = 256
GROUP_BYTES = 16 << 20
PERSISTENT_S = 7 * 24 * 3600
"""How long the broker keeps messages for a hub that is away, unless it shares them with others."""
SHARE = "axond-hub"
"""The share name of hubs that stand side by side."""
STEADY_S = 5.0
EXPIRE_BATCHES = 200
"""Old batches go in transactions of this size, so that new ones never wait long for them."""
EXPIRE_PERIOD_S = 60.0
_TICK_S = 0.25


class Hub:
    """A ``Worker``. One thread, one database connection, one session at the broker."""

    name = "hub"
    critical = True

    def __init__(
        self,
        broker: Broker,
        target: Target,
        *,
        root: str = ROOT,
        client_id: str = "axond-hub",
        shared: bool = False,
        keep_days: float | None = None,
    ) -> None:
        """``shared``: one of several hubs on this broker and database, each of which gets a part of the messages.

        The session of such a hub ends with its connection: the broker then gives everything to the others, and what was
        on its way to this one is sent again by the devices. A hub that stands alone has its messages kept for it.
        """
        self._target = target
        self._label = label(target)
        self._root = root
        self._keep_days = keep_days
        self._retention: Retention | None = None
        self._clock_trusted: bool | None = None
        self._shared = shared
        name = f"{client_id}-{secrets.token_hex(4)}" if shared else client_id
        self._link = PahoLink(broker, name, persistent_s=0 if shared else PERSISTENT_S, manual_ack=True)
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._answers = Answers(self._link.send)
        self._boots: dict[str, str] = {}
        """Of each device, as its status says: metrics that came over MQTT 3.1.1 do not tell theirs."""
        self._expire_at_s = 0.0
        self._connection = Outage(log, "hub is connected again")
        self._storage = Outage(log, "hub stores again")
        self._refused = Refusals(log, "the broker takes the hub's answers again")
        self._backoff = Backoff(0.5, 1.5)
        self._storage_backoff = Backoff(0.1, 5.0)
        self.connected = Flag()
        """Set while subscribed."""

    def run(self, stop: Flag, beat: Callable[[], None] = lambda: None) -> None:
        """Serves until ``stop``; waits for a database that is away. ``ConfigError`` if it can never be the store."""
        store = self._open(stop, beat)
        if store is None:
            return
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

    def _open(self, stop: Flag, beat: Callable[[], None]) -> HubStore | None:
        while not stop.is_set():
            try:
                store = HubStore.open(self._target)
            except AWAY as error:
                if not is_server(self._target) and "locked" not in str(error):
                    raise self._unusable(why(error)) from error
                self._storage.failed(f"hub store {self._label} cannot be opened: {why(error)}; waiting for it")
                rest(self._storage_backoff.next_s(), stop, beat)
            except (OSError, SQLAlchemyError) as error:
                raise self._unusable(why(error)) from error
            else:
                self._storage.over()
                self._storage_backoff.reset()
                if self._keep_days is not None:
                    self._retention = Retention(self._keep_days, store.stretches, wall_us())
                return store
        return None

    def _unusable(self, reason: str) -> ConfigError:
        return ConfigError(f"hub store {self._label} cannot be opened: {reason}")

    def _unwritable(self, error: Exception) -> str:
        return f"hub store {self._label} cannot be written: {why(error)}; messages wait"

    def _filters(self) -> tuple[str, ...]:
        """Every hub hears what is retained: status, info and clock; a broker retains nothing for those that share."""
        if not self._shared:
            return hub_filters(self._root)
        parted = tuple(f"{self._root}/+/up/{kind}" for kind in ("res/+", "metrics", "event"))
        return tuple(f"$share/{SHARE}/{one}" if one in parted else one for one in hub_filters(self._root))

    def _serve(self, store: HubStore, stop: Flag, beat: Callable[[], None]) -> float:
        """One connection, from the attempt to its end; returns how long it lasted."""
        self._events = SimpleQueue()
        self._answers.reconnect()
        self._link.start(self._events, Birth(self._filters()), None)
        since_s, dropped = time.monotonic(), self._answers.dropped
        while not stop.is_set():
            beat()
            group: list[Received] = []
            ended = False
            for event in self._take():
                if isinstance(event, Received):
                    group.append(event)
                elif isinstance(event, Acked):
                    self._answers.acked(event.seq)
                    self._hear(event)
                elif isinstance(event, Connected) and self._shared and event.mqtt != "5":
                    self._connection.failed(f"{event.broker} speaks MQTT {event.mqtt}; hubs side by side need MQTT 5")
                    ended = True
                elif isinstance(event, Connected):
                    since_s = time.monotonic()
                    self.connected.set()
                    self._answers.widen(event.receive_max)
                    self._connection.over()
                    log.info("hub connected")
                elif isinstance(event, Disconnected):
                    self._connection.failed(event.sentence)
                    ended = True
            if group:
                self._store(store, [parse(self._root, message) for message in group], stop, beat)
            if not ended and self._events.empty() and self._answers.is_stuck():
                self._connection.failed("the broker does not acknowledge what the hub answers")
                ended = True
            if ended:
                break
            self._answers.hurry()
            self._expire(store)
        self._answers.hurry(all_of_them=stop.is_set())
        if self._answers.dropped > dropped:
            log.warning("%d answers were dropped; the devices send again", self._answers.dropped - dropped)
        return time.monotonic() - since_s

    def _hear(self, answer: Acked) -> None:
        """A broker that forbids the hub's answers keeps every device waiting: that must be said."""
        if answer.code >= FIRST_ERROR:
            what = f"the broker refuses the hub's answers: {answer.name}; may it publish to down/ack/# ?"
            self._refused.refused(what)
        else:
            self._refused.taken()

    def _take(self) -> list[Event]:
        """All that is there, up to a group; waits a moment for the first."""
        events: list[Event] = []
        size_bytes = 0
        try:
            event = self._events.get(timeout=max(0.0, min(_TICK_S, self._answers.due_s())))
            while True:
                events.append(event)
                size_bytes += len(event.payload) if isinstance(event, Received) else 0
                if len(events) >= GROUP_MESSAGES or size_bytes >= GROUP_BYTES:
                    return events
                event = self._events.get_nowait()
        except Empty:
            return events

    def _store(self, store: HubStore, group: list[Parsed], stop: Flag, beat: Callable[[], None]) -> None:
        """Stores a group, however long it takes; given up only at ``stop``, and then the broker sends it again."""
        arrivals = self._arrivals(group)
        while True:
            try:
                outcome = store.store(arrivals)
            except AWAY as error:
                self._storage.failed(self._unwritable(error))
                self._answers.hurry(all_of_them=True)
                rest(self._storage_backoff.next_s(), stop, beat)
                if stop.is_set():
                    return
                continue
            break
        self._storage.over()
        self._storage_backoff.reset()
        for parsed in group:
            self._link.acknowledge(parsed.message)
        self._answer(group, outcome)
        _tell(group, outcome)

    def _answer(self, group: list[Parsed], outcome: Outcome) -> None:
        batches = Counter(parsed.device for parsed in group if parsed.batch is not None)
        for key, mark in outcome.marks.items():
            self._send(key, mark.document(key[1]), retain=True, patient=batches[key[0]] == 1)
        for parsed in group:
            if parsed.claimed is not None and parsed.reason:
                key, seq0, seq1 = parsed.claimed
                reject = {"seq": [seq0, seq1], "reason": parsed.reason[:200]}
                self._send(key, {**outcome.asked[key].document(key[1]), "reject": reject}, retain=False)

    def _send(self, key: Stream, document: dict[str, object], *, retain: bool, patient: bool = False) -> None:
        device, _, stream = key
        topic = Topics(self._root, device).ack(stream)
        payload = json.dumps(document, separators=(",", ":")).encode()
        message = Message(topic, payload, retain=retain, content_type=CONTENT_TYPE)
        self._answers.put(key, message, patient=patient)

    def _arrivals(self, group: list[Parsed]) -> Arrivals:
        arrivals = Arrivals()
        for parsed in group:
            if parsed.reason:
                arrivals.rejected[parsed.device, parsed.kind] += 1
                if parsed.claimed is not None:
                    arrivals.asked.add(parsed.claimed[0])
            elif parsed.batch is not None:
                arrivals.batches.append((parsed.device, parsed.batch, parsed.message.payload))
            elif parsed.document is not None and parsed.topic is not None:
                self._take_document(parsed, parsed.topic.kind, parsed.document, arrivals)
        return arrivals

    def _take_document(self, parsed: Parsed, kind: str, document: dict[str, Any], arrivals: Arrivals) -> None:
        device, boot = parsed.device, parsed.boot
        if kind == "status" and is_name(document.get("boot")):
            self._boots[device] = str(document["boot"])
        if kind == "metrics":
            boot = boot or self._boots.get(device, "")
            ledgers = told_by(document)
            if boot:
                arrivals.told.update({(device, boot, stream): told for stream, told in ledgers.items()})
                arrivals.reports[device] = Report(boot, idle=not pending_elsewhere(document, ledgers))
        if parsed.clocks is not None:
            arrivals.clocks[device] = {**arrivals.clocks.get(device, {}), **parsed.clocks}
        elif kind == "event":
            arrivals.events.setdefault(device, []).append(json.dumps(document))
        else:
            arrivals.documents[device, kind] = boot, json.dumps(document)

    def _expire(self, store: HubStore) -> None:
        """Removes a few of the oldest batches if they are older than the hub keeps results."""
        if self._retention is None or time.monotonic() < self._expire_at_s:
            return
        now_us, gone = wall_us(), 0
        before_us = self._retention.before_us(now_us)
        try:
            if before_us is None:
                self._say_clock(False)
                store.watch_clock(self._retention.stretch(now_us))
            else:
                self._say_clock(True)
                store.trust(now_us)
                gone = store.expire(before_us, EXPIRE_BATCHES)
                if gone < EXPIRE_BATCHES:
                    store.forget(before_us, EXPIRE_BATCHES)
        except MovedError as error:
            self._storage.failed(self._unwritable(error))
        except AWAY as error:
            log.debug("hub store %s: old results stay a little longer: %s", self._label, why(error))
        if gone < EXPIRE_BATCHES:
            self._expire_at_s = time.monotonic() + EXPIRE_PERIOD_S

    def _say_clock(self, trusted: bool) -> None:
        """Why a store that is told to forget grows."""
        if trusted != self._clock_trusted and not trusted:
            log.info("no old results are removed until the clock of this machine has gone on for a day without a leap")
        elif trusted != self._clock_trusted:
            log.info("the clock of this machine is trusted: results older than %g days are removed", self._keep_days)
        self._clock_trusted = trusted


def _tell(group: list[Parsed], outcome: Outcome) -> None:
    """Says what people should know, once it is stored."""
    first = set(outcome.first_rejected)
    for device, kind in outcome.scattered:
        log.log(
            logging.WARNING if (device, kind) in first else logging.DEBUG,
            "%s: %s; it must send what is missing first",
            *(device, kind),
        )
    for parsed in group:
        if parsed.reason:
            what = (parsed.device, parsed.kind)
            level = logging.WARNING if what in first else logging.DEBUG
            first.discard(what)
            log.log(level, "rejected a message on %r: %s", parsed.message.topic[:200], parsed.reason[:300])
    for alarm in outcome.alarms:
        name = "device {}, boot {}, stream {}".format(*alarm.stream)
        if alarm.sentence:
            log.error("%s: the books do not agree: %s", name, alarm.sentence)
        else:
            log.info("%s: the books agree again", name)
