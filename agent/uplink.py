"""Sends what the outbox leases and frees it when the hub says that it is stored.

A broker's PUBACK is not delivery: the hub's watermark is. With ``ack = "broker"`` rows go at PUBACK, for consumers that
cannot send watermarks; what the broker then loses is lost.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import Any, Literal

from agent.clock import ClockKeeper
from agent.link import (
    FIRST_ERROR,
    NO_SUBSCRIBERS,
    SUCCESS,
    Acked,
    Connected,
    Disconnected,
    Event,
    Link,
    Message,
    Received,
)
from agent.messages import batch_message
from agent.outage import Outage
from agent.outbox import Outbox
from agent.outbox_group import Queued
from agent.record import Key, Record
from agent.topics import ROOT, Topics
from agent.uplink_flight import STALL_FIRST_S, Flight, Stall
from agent.uplink_holes import Holes
from agent.uplink_refused import RefusedStreams
from agent.uplink_reports import Reports
from agent.uplink_retry import Retry
from agent.uplink_state import UplinkState
from agent.uplink_watermark import Watermark, parse_watermark
from agent.wire import encode_gap

log = logging.getLogger(__name__)

SILENT_S = 20.0
"""A broker that has not acknowledged a message for this long is taken for dead."""
NACK_QUIET_S = 1.0
"""Nacks that answer what was sent before a rewind are still arriving for about this long."""
STEADY_S = 5.0
"""A connection that lasted less counts as one more failure: two devices with one id throw each other out."""
GOODBYE_S = 1.0
MAX_EVENTS = 256
"""Events that are looked at before something is sent again."""
_TICK_S = 0.25
_WAKE = None


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
        clock: ClockKeeper | None = None,
    ) -> None:
        """``info`` gives the birth document, ``metrics`` flat numbers; both are called on the uplink's thread."""
        self._outbox = outbox
        self._link = link
        self._device = device
        self._topics = Topics(root, device)
        self._reports = Reports(
            outbox,
            self._topics,
            info=info,
            metrics=metrics,
            agent_version=agent_version,
            region=region,
            interval_s=metrics_interval_s,
            clock=clock,
        )
        self._ack = ack
        self._silent_s = silent_s
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._woken = False
        self._seq = count(1)
        self._flight = Flight()
        self._holes = Holes()
        self._retry = Retry()
        self._connected = False
        self._connections = 0
        self._broker = ("", "")
        self._changed_s = time.monotonic()
        self._sent = 0
        self._delivered = 0
        self._rewinds = 0
        self._resent = 0
        self._connection = Outage(log, "uplink is connected again")
        self._delivery = Outage(log, "results are delivered again")
        self._refused = RefusedStreams(outbox)
        self._stall = Stall(stall_first_s)
        self._nacked: dict[Key, tuple[int, float]] = {}
        self._reported = False

    def state(self) -> UplinkState:
        error = self._connection.sentence or self._refused.sentence or self._delivery.sentence
        since_s = time.monotonic() - self._changed_s
        size = len(self._flight) if self._connected else 0
        return UplinkState(
            *(self._connected, since_s, size, error, self._sent, self._delivered, self._rewinds, self._resent),
            *(*self._broker, self._connections),
        )

    def show(self, rows: Sequence[Queued]) -> None:
        """Results for ``up/live``; copies and returns. Any thread may call it."""
        self._reports.show(rows)

    def run(self, stop: Flag, beat: Callable[[], None]) -> None:
        """Connects, sends and reconnects until ``stop``; then says goodbye and disconnects."""
        self._outbox.watch(self._wake)
        self._retry.open()
        try:
            while not stop.is_set():
                beat()
                self._open()
                self._serve(stop, beat)
                self._close(goodbye=stop.is_set(), beat=beat)
                self._retry.rest(stop, beat)
        finally:
            self._outbox.watch(None)
            self._retry.close()
            self._link.stop()
            self._outbox.release_all()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._events.put(_WAKE)

    def _open(self) -> None:
        self._events = SimpleQueue()
        self._woken = False
        self._connected = False
        self._flight = Flight()
        self._holes = Holes()
        self._refused.begin()
        self._retry.attempt()
        self._link.start(self._events, *self._reports.begin())

    def _serve(self, stop: Flag, beat: Callable[[], None]) -> None:
        """One connection, from the attempt to its end."""
        look_s = 0.0
        while not stop.is_set():
            beat()
            events, was_full = self._take(), self._flight.room <= 0
            for event in events:
                if isinstance(event, Disconnected):
                    self._connection.failed(event.sentence)
                    return
                self._handle(event)
            if not self._connected:
                continue
            now_s = time.monotonic()
            if now_s < look_s and not was_full and all(map(self._is_receipt, events)):
                continue
            look_s = now_s + _TICK_S
            if self._is_silent():
                return
            self._ask_if_stalled(now_s)
            self._repeat_lost(now_s)
            self._close_holes(now_s)
            self._send_in_turns(now_s)

    def _take(self) -> list[Event | None]:
        """What has happened; waits a moment for the first event."""
        events: list[Event | None] = []
        try:
            events.append(self._events.get(timeout=_TICK_S))
            while len(events) < MAX_EVENTS:
                events.append(self._events.get_nowait())
        except Empty:
            return events
        return events

    def _is_receipt(self, event: Event | None) -> bool:
        """The broker has it: nothing to do while we wait for the hub to have it as well."""
        return self._ack == "hub" and isinstance(event, Acked) and event.code == SUCCESS

    def _close(self, goodbye: bool, beat: Callable[[], None]) -> None:
        if goodbye and self._connected:
            self._say_offline(beat)
        self._link.stop()
        if self._connected:
            if time.monotonic() - self._changed_s > STEADY_S:
                self._retry.begin()
            self._connected = False
            self._changed_s = time.monotonic()
        self._outbox.release_all()

    def _handle(self, event: Event | None) -> None:
        if isinstance(event, Connected):
            self._outbox.release_all()
            self._flight = Flight(receive_max=event.receive_max)
            self._broker = event.broker, event.mqtt
            self._connected = True
            self._connections += 1
            self._changed_s = time.monotonic()
            self._connection.over()
            self._stall.progress(time.monotonic())
            log.info("uplink connected to %s as %s with MQTT %s", event.broker, self._device, event.mqtt)
        elif isinstance(event, Acked):
            self._answered(event)
        elif isinstance(event, Received):
            self._received(event)
        elif event is _WAKE:
            self._woken = False

    def _send_in_turns(self, now_s: float) -> None:
        """Where the broker takes one message at a time, neither results nor reports wait for the others' end."""
        if self._reported:
            self._send_more(now_s)
        self._reported = False
        for message in self._reports.due(now_s, self._flight.answer_room):
            self._publish(None, message)
            self._reported |= message.qos > 0
        self._send_more(now_s)

    def _send_more(self, now_s: float) -> None:
        if self._refused.is_paused(now_s):
            return
        flight = self._flight
        self._send_records(self._refused.due(now_s, flight.room), now_s)
        while (room := flight.room) > 0 and self._outbox.leasable(flight.backlog_room):
            self._send_records(self._outbox.lease(min(room, 32), 0.0, backlog=flight.backlog_room), now_s)

    def _send_records(self, records: list[Record], now_s: float) -> None:
        stored = [record for record in records if self._holes.is_stored(record)]
        if stored:
            self._accept(stored)
        for record in records:
            if record not in stored:
                self._send_record(record, now_s)

    def _send_record(self, record: Record, now_s: float) -> None:
        if not len(self._flight):
            self._stall.departed(now_s)
        order = self._publish(record, self._batch(record))
        self._flight.add(record, self._outbox.lane(record), order, now_s)
        self._sent += record.rows

    def _repeat_lost(self, now_s: float) -> None:
        """What was overtaken is sent again; the rest is left alone."""
        if self._refused.is_paused(now_s):
            return
        flight = self._flight
        for sent in flight.lost(now_s):
            if flight.answer_room <= 0:
                return
            self._resent += 1
            record = sent.record
            log.debug("%s %d to %d was lost on the way, sent again", record.stream, record.seq0, record.seq1)
            flight.repeat(sent, self._publish(record, self._batch(record)), now_s)

    def _close_holes(self, now_s: float) -> None:
        """The hub waits for numbers that left the outbox long ago: it can only go on if it is told so."""
        if not self._outbox.opened.is_set():  # what it holds is not known now
            return
        for key in self._holes.due(now_s):
            self._close_hole(key, now_s)

    def _close_hole(self, key: Key, now_s: float) -> None:
        if self._flight.answer_room <= 0:
            return
        level = logging.DEBUG if self._holes.is_told(key) else logging.WARNING
        if (hole := self._holes.close(key, self._outbox.lowest_held(key), now_s)) is not None:
            payload = encode_gap(*key, *hole, "delivered before")
            self._publish(None, batch_message(self._topics, *key, *hole, payload))
            log.log(level, "hub lacks %s %d to %d, delivered earlier", key[1], *hole)

    def _batch(self, record: Record) -> Message:
        return batch_message(self._topics, *record.key, record.seq0, record.seq1, record.payload, record.created_us)

    def _publish(self, record: Record | None, message: Message) -> int:
        seq = next(self._seq)
        if message.qos:
            self._flight.unanswered[seq] = record, time.monotonic()
        self._link.send(seq, message)
        return seq

    def _answered(self, answer: Acked) -> None:
        under_way = len(self._flight.unanswered)
        record, sent_s = self._flight.unanswered.pop(answer.seq, (None, 0.0))
        if record is None:
            return
        now_s = time.monotonic()
        self._flight.backlog_window.receipted(now_s - sent_s, under_way)
        if answer.code >= FIRST_ERROR or (self._ack == "broker" and answer.code == NO_SUBSCRIBERS):
            self._refused.refused(record, answer, self._topics.results(record.stream), self._flight, now_s)
            return
        self._refused.taken(record.stream)
        if self._ack == "broker" and answer.code == SUCCESS and self._flight.answered(record, now_s):
            self._accept([record])

    def _received(self, received: Received) -> None:
        stream = self._topics.ack_stream(received.topic)
        if stream is None:
            return
        mark = parse_watermark(received.payload)
        if mark is None:
            log.warning("%s: not an acknowledgement, ignored", received.topic)
            return
        key, now_s = (mark.boot, stream), time.monotonic()
        accepted = self._flight.acknowledged(key, mark, now_s)
        if accepted:
            self._accept(accepted)
        complete, late = self._flight.starts_at(key, mark.upto + 1), not (received.retain or mark.nack)
        self._holes.heard(key, mark, complete=complete, now_s=now_s, late=late)
        if mark.reject is not None:
            self._rejected(key, mark.reject, mark.reason)
        elif mark.nack and not received.retain:
            self._nack(key, mark, now_s)

    def _accept(self, records: list[Record]) -> None:
        self._delivered += sum(record.rows for record in records)
        self._outbox.settle(records)
        self._refused.accepted(records)
        self._delivery.over()
        self._stall.progress(time.monotonic())

    def _rejected(self, key: Key, seqs: tuple[int, int], reason: str) -> None:
        """The hub will never take this batch: it is given up, as a gap record that lets the stream go on."""
        record = self._flight.find(key, *seqs)
        if record is not None:
            log.error("hub rejects %s %d to %d: %s", record.stream, record.seq0, record.seq1, reason)
            self._outbox.give_up(record, "rejected by the hub")
            self._flight.remove(record)

    def _nack(self, key: Key, mark: Watermark, now_s: float) -> None:
        """A hub of the old kind takes what comes in order only."""
        if self._nacked.get(key, (-1, 0.0))[0] == mark.upto and now_s - self._nacked[key][1] < NACK_QUIET_S:
            return
        records = self._flight.take(key)
        if not records:
            return
        self._nacked[key] = mark.upto, now_s
        self._close_hole(key, now_s)
        log.debug("hub lacks %s from %d on", key[1], mark.upto + 1)
        self._rewinds += 1
        self._outbox.settle((), records)

    def _ask_if_stalled(self, now_s: float) -> None:
        if not len(self._flight) or not self._stall.is_due(now_s):
            return
        who = "hub" if self._ack == "hub" else "broker"
        self._delivery.failed(f"the {who} acknowledges nothing; results are kept, it is asked again")
        self._rewinds += 1
        # The first of each line only, as a question: if its answer comes and those of the others do not, they are lost.
        for sent in self._flight.heads()[: max(0, self._flight.answer_room)]:
            record = sent.record
            self._flight.repeat(sent, self._publish(record, self._batch(record)), now_s)
        self._stall.repeated(now_s)

    def _is_silent(self) -> bool:
        sent_s = next((sent_s for _, sent_s in self._flight.unanswered.values()), None)
        if sent_s is None or time.monotonic() - sent_s < self._silent_s:
            return False
        self._connection.failed(f"the broker has not acknowledged a message for {self._silent_s:g} s; connecting anew")
        return True

    def _say_offline(self, beat: Callable[[], None]) -> None:
        """Replaces the status while we still can, and waits a moment for the broker to have it."""
        seq, end_s = 0, time.monotonic() + GOODBYE_S
        while (left_s := end_s - time.monotonic()) > 0:
            if not seq and self._flight.answer_room > 0:
                seq = self._publish(None, self._reports.status("offline"))
            if seq and seq not in self._flight.unanswered:
                return
            beat()
            try:
                event = self._events.get(timeout=left_s)
            except Empty:
                return
            if isinstance(event, Disconnected):
                return
            self._handle(event)
