"""Sends what the outbox leases and frees it when the hub says that it is stored.

A broker's PUBACK is not delivery: the hub's watermark is. With ``ack = "broker"`` rows go at PUBACK, for consumers that
cannot send watermarks; what the broker then loses is lost.
"""

import json
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import Any, Literal

from agent.link import (
    FIRST_ERROR,
    NO_SUBSCRIBERS,
    SUCCESS,
    Acked,
    Birth,
    Connected,
    Death,
    Disconnected,
    Event,
    Link,
    Message,
    Received,
)
from agent.messages import batch_message, info_message, ledger_numbers, metrics_message, status_message
from agent.outage import Backoff, Outage
from agent.outbox import Outbox
from agent.record import Key, Record
from agent.topics import ROOT, Topics, is_name
from agent.wire import encode_gap
from agent.worker import rest

log = logging.getLogger(__name__)

WINDOW = 100
"""Messages under way at once; 1000 is half as fast."""
STALL_FIRST_S = 3.0
STALL_LONGEST_S = 300.0
SILENT_S = 20.0
"""A broker that has not acknowledged a message for this long is taken for dead."""
NACK_QUIET_S = 1.0
"""Nacks that answer what was sent before a rewind are still arriving for about this long."""
STEADY_S = 5.0
"""A connection that lasted less counts as one more failure: two devices with one id throw each other out."""
GOODBYE_S = 1.0
_TICK_S = 0.25
_WAKE = None


@dataclass(frozen=True, slots=True)
class UplinkState:
    """A snapshot for displays. ``since_s`` is how long it has been connected or not."""

    connected: bool
    since_s: float
    in_flight: int
    error: str | None
    sent: int
    delivered: int
    """Rows."""
    rewinds: int


@dataclass(slots=True)
class _Flight:
    """What is under way on one connection."""

    unanswered: dict[int, tuple[Record | None, float]] = field(default_factory=dict)
    """Link sequence number -> record and time of sending, until the broker's PUBACK."""
    unsettled: dict[Key, deque[Record]] = field(default_factory=dict)
    """Records in the order of their numbers, until the watermark."""
    window: int = WINDOW

    def size(self) -> int:
        return sum(map(len, self.unsettled.values()))


class Uplink:
    """A ``Worker``. Everything happens on its thread; ``state`` and ``publish`` may be called from any."""

    name = "uplink"
    critical = True

    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        device: str,
        *,
        info: Callable[[], Mapping[str, Any]],
        metrics: Callable[[], Mapping[str, float]],
        agent_version: str,
        region: str = "",
        root: str = ROOT,
        ack: Literal["hub", "broker"] = "hub",
        metrics_interval_s: float = 60.0,
        silent_s: float = SILENT_S,
        stall_first_s: float = STALL_FIRST_S,
    ) -> None:
        """``info`` gives the birth document, ``metrics`` flat numbers; both are called on the uplink's thread."""
        self._outbox = outbox
        self._link = link
        self._device = device
        self._topics = Topics(root, device)
        self._info = info
        self._metrics = metrics
        self._agent_version = agent_version
        self._region = region
        self._ack = ack
        self._metrics_interval_s = metrics_interval_s
        self._silent_s = silent_s
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._woken = False
        self._seq = count(1)
        self._flight = _Flight()
        self._connected = False
        self._changed_s = time.monotonic()
        self._sent = 0
        self._delivered = 0
        self._rewinds = 0
        self._connection = Outage(log, "uplink is connected again")
        self._delivery = Outage(log, "results are delivered again")
        self._backoff = Backoff(0.5, 30.0)
        self._pause = Backoff(1.0, 60.0)
        self._paused_until_s = 0.0
        self._stall_first_s = stall_first_s
        self._stall_s = stall_first_s
        self._stalled_at_s = 0.0
        self._nacked: dict[Key, tuple[int, float]] = {}
        self._missing: dict[Key, int] = {}

    def state(self) -> UplinkState:
        error = self._connection.sentence or self._delivery.sentence
        since_s = time.monotonic() - self._changed_s
        size = self._flight.size() if self._connected else 0
        return UplinkState(self._connected, since_s, size, error, self._sent, self._delivered, self._rewinds)

    def run(self, stop: Flag, beat: Callable[[], None]) -> None:
        """Connects, sends and reconnects until ``stop``; then says goodbye and disconnects."""
        self._outbox.watch(self._wake)
        try:
            while not stop.is_set():
                beat()
                self._open()
                self._serve(stop, beat)
                self._close(goodbye=stop.is_set(), beat=beat)
                rest(self._backoff.next_s(), stop, beat)
        finally:
            self._outbox.watch(None)
            self._link.stop()
            self._outbox.release_all()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._events.put(_WAKE)

    def _open(self) -> None:
        topics = self._topics
        birth = Birth(
            (topics.ack("+"),),
            (self._status("online"), info_message(topics, self._info())),
        )
        self._events = SimpleQueue()
        self._woken = False
        self._flight = _Flight()
        self._link.start(self._events, birth, Death(self._status("lost")))

    def _serve(self, stop: Flag, beat: Callable[[], None]) -> None:
        """One connection, from the attempt to its end."""
        metrics_at_s = 0.0
        while not stop.is_set():
            beat()
            try:
                event = self._events.get(timeout=_TICK_S)
            except Empty:
                event = _WAKE
            if isinstance(event, Disconnected):
                self._connection.failed(event.sentence)
                return
            self._handle(event)
            if not self._connected:
                continue
            if self._is_silent():
                return
            self._rewind_if_stalled()
            self._send_more()
            if time.monotonic() >= metrics_at_s:
                metrics_at_s = time.monotonic() + self._metrics_interval_s
                self._send_metrics()

    def _close(self, goodbye: bool, beat: Callable[[], None]) -> None:
        if goodbye and self._connected:
            self._say_offline(beat)
        self._link.stop()
        if self._connected:
            if time.monotonic() - self._changed_s > STEADY_S:
                self._backoff.reset()
            self._connected = False
            self._changed_s = time.monotonic()
        self._outbox.release_all()

    def _handle(self, event: Event | None) -> None:
        if isinstance(event, Connected):
            self._flight.window = min(WINDOW, event.receive_max)
            self._connected = True
            self._changed_s = time.monotonic()
            self._connection.over()
            self._progress()
            log.info("uplink connected as %s", self._device)
        elif isinstance(event, Acked):
            self._answered(event)
        elif isinstance(event, Received):
            self._received(event)
        elif event is _WAKE:
            self._woken = False

    def _send_more(self) -> None:
        if time.monotonic() < self._paused_until_s:
            return
        flight = self._flight
        room = flight.window - max(flight.size(), len(flight.unanswered))
        while room > 0 and self._outbox.leasable():
            records = self._outbox.lease(min(room, 32), 0.0)
            for record in records:
                self._send_record(record)
            room -= len(records)

    def _send_record(self, record: Record) -> None:
        flight = self._flight
        line = flight.unsettled.setdefault(record.key, deque())
        missing_from = self._missing.pop(record.key, None)
        if missing_from is not None and missing_from < record.seq0:
            # The hub asks for numbers that left the outbox long ago; it can only go on if it is told so.
            payload = encode_gap(*record.key, missing_from, record.seq0 - 1, "delivered before")
            self._publish(None, batch_message(self._topics, *record.key, missing_from, record.seq0 - 1, payload))
            log.warning("hub lacks %s %d to %d, delivered earlier", record.stream, missing_from, record.seq0 - 1)
        if not flight.size():
            self._stalled_at_s = time.monotonic() + self._stall_s
        line.append(record)
        self._publish(
            record,
            batch_message(self._topics, *record.key, record.seq0, record.seq1, record.payload, record.created_us),
        )
        self._sent += record.rows

    def _publish(self, record: Record | None, message: Message) -> int:
        seq = next(self._seq)
        self._flight.unanswered[seq] = record, time.monotonic()
        self._link.send(seq, message)
        return seq

    def _answered(self, answer: Acked) -> None:
        record, _ = self._flight.unanswered.pop(answer.seq, (None, 0.0))
        if record is None:
            return
        if answer.code >= FIRST_ERROR or (self._ack == "broker" and answer.code == NO_SUBSCRIBERS):
            self._delivery.failed(f"the broker refuses results on {self._topics.results(record.stream)}: {answer.name}")
            self._paused_until_s = time.monotonic() + self._pause.next_s()
            self._rewind(record.key)
        elif self._ack == "broker" and answer.code == SUCCESS:
            line = self._flight.unsettled.get(record.key, deque())
            if record in line:
                line.remove(record)
                self._accept([record])

    def _received(self, received: Received) -> None:
        stream = self._topics.ack_stream(received.topic)
        if stream is None:
            return
        try:
            document = json.loads(received.payload)
        except ValueError:
            document = None
        boot, upto = (document.get("boot"), document.get("upto")) if isinstance(document, dict) else (None, None)
        if document is None or not isinstance(boot, str) or not is_name(boot) or type(upto) is not int:
            log.warning("%s: not an acknowledgement, ignored", received.topic)
            return
        key = (boot, stream)
        line = self._flight.unsettled.get(key, deque())
        accepted = []
        while line and line[0].seq1 <= upto:
            accepted.append(line.popleft())
        if accepted:
            self._accept(accepted)
        if "reject" in document:
            self._rejected(key, document["reject"])
        elif document.get("nack") and not received.retain:
            self._nack(key, upto)

    def _accept(self, records: list[Record]) -> None:
        self._delivered += sum(record.rows for record in records)
        self._outbox.settle(records)
        self._pause.reset()
        self._delivery.over()
        self._progress()

    def _rejected(self, key: Key, reject: object) -> None:
        """The hub will never take this batch: it is given up, as a gap record that lets the stream go on."""
        seqs, reason = (reject.get("seq"), reject.get("reason")) if isinstance(reject, dict) else (None, "")
        line = self._flight.unsettled.get(key, deque())
        for record in list(line):
            if seqs == [record.seq0, record.seq1]:
                log.error("hub rejects %s %d to %d: %s", record.stream, record.seq0, record.seq1, reason)
                self._outbox.give_up(record, "rejected by the hub")
                line.remove(record)
                self._rewind(key)

    def _nack(self, key: Key, upto: int) -> None:
        now_s = time.monotonic()
        if not self._flight.unsettled.get(key):
            return
        if self._nacked.get(key, (-1, 0.0))[0] == upto and now_s - self._nacked[key][1] < NACK_QUIET_S:
            return
        self._nacked[key] = upto, now_s
        self._missing[key] = upto + 1
        log.debug("hub lacks %s from %d on", key[1], upto + 1)
        self._rewind(key)

    def _rewind(self, key: Key) -> None:
        """Everything of a boot and stream that is under way is sent again, in order."""
        line = self._flight.unsettled.pop(key, None)
        if line:
            self._rewinds += 1
            self._outbox.settle((), line)

    def _progress(self) -> None:
        self._stall_s = self._stall_first_s
        self._stalled_at_s = time.monotonic() + self._stall_s * random.uniform(0.8, 1.2)

    def _rewind_if_stalled(self) -> None:
        if not self._flight.size() or time.monotonic() < self._stalled_at_s:
            return
        who = "hub" if self._ack == "hub" else "broker"
        self._delivery.failed(f"the {who} acknowledges nothing; results are kept and sent again")
        for key in list(self._flight.unsettled):
            self._rewind(key)
        self._stall_s = min(self._stall_s * 2, STALL_LONGEST_S)
        self._stalled_at_s = time.monotonic() + self._stall_s * random.uniform(0.8, 1.2)

    def _is_silent(self) -> bool:
        sent_s = next((sent_s for _, sent_s in self._flight.unanswered.values()), None)
        if sent_s is None or time.monotonic() - sent_s < self._silent_s:
            return False
        self._connection.failed(f"the broker has not acknowledged a message for {self._silent_s:g} s; connecting anew")
        return True

    def _send_metrics(self) -> None:
        boot = self._outbox.boot
        numbers = dict(self._metrics())
        for (row_boot, stream), counts in self._outbox.ledger().items():
            if row_boot == boot:
                numbers.update(ledger_numbers(stream, counts))
        self._publish(None, metrics_message(self._topics, boot, numbers))

    def _say_offline(self, beat: Callable[[], None]) -> None:
        """Replaces the status while we still can, and waits a moment for the broker to have it."""
        seq = self._publish(None, self._status("offline"))
        end_s = time.monotonic() + GOODBYE_S
        while seq in self._flight.unanswered and (left_s := end_s - time.monotonic()) > 0:
            beat()
            try:
                event = self._events.get(timeout=left_s)
            except Empty:
                return
            if isinstance(event, Disconnected):
                return
            self._handle(event)

    def _status(self, state: str) -> Message:
        return status_message(self._topics, state, self._outbox.boot, self._agent_version, self._region)
