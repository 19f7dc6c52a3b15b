"""What the mirrors over MQTT have in common: a connection of their own, and when to send on it."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import Any, Generic, TypeVar

from agent.link import FIRST_ERROR, Acked, Birth, Connected, Death, Disconnected, Event, Message, Received
from agent.mirrors.base import Device, Mirror
from agent.mirrors.broker_config import BrokerConfig
from agent.mqtt import Broker, PahoLink
from agent.outage import Backoff
from agent.outbox_group import Queued
from agent.refusals import Refusals
from agent.wire import SystemClock
from agent.worker import rest

TICK_S = 0.1
WINDOW = 10
"""Messages under way at once, unless the broker wants fewer."""
SILENT_S = 20.0
GOODBYE_S = 0.3
STEADY_S = 60.0
"""A connection that the broker ended sooner counts as brief."""
SOON_S = 5.0
"""One that ended sooner, with nothing under way, has probably met its double."""
RETRY_LONGEST_S = 30.0
BRIEF_LONGEST_S = 300.0
"""Brief connections may be our fault: on many brokers a second client with one user name ends the first, which may be
the uplink. Hence ever longer waits."""
FRUITLESS = 3
"""After so many brief connections that acknowledged nothing, the first message may be why, and is given up."""

_log = logging.getLogger(__name__)

B = TypeVar("B", bound=BrokerConfig)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message that waits for its acknowledgement."""

    topic: str
    rows: Sequence[Queued]
    at_s: float


class MqttMirror(Mirror[B], Generic[B]):
    """Everything but ``offer``, ``state`` and ``connection`` happens on the mirror's thread."""

    def __init__(self, name: str, cfg: B, device: Device) -> None:
        super().__init__(name, cfg, device)
        self.clock = SystemClock()
        self.outage = Refusals(_log, f"{self.name} works again")
        # No name has a colon: this is no other device's client id.
        self._client_id = f"{device.id}:{name}"
        self._login: Broker | None = None
        self._link: PahoLink | None = None
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._seq = count(1)
        self._window = WINDOW
        self._unanswered: dict[int, _Sent] = {}
        self._refused_topics: set[str] = set()
        self._connected = False
        self._since_s = 0.0
        self._retry = Backoff(0.5, RETRY_LONGEST_S)
        self._brief = Backoff(0.5, BRIEF_LONGEST_S)
        self._fruitful = False
        self._fruitless = 0

    @abstractmethod
    def birth(self) -> Birth:
        """What is subscribed and published on each new connection."""

    @abstractmethod
    def death(self) -> Death | None:
        """The will of the next connection."""

    @abstractmethod
    def exchange(self) -> None:
        """Sends what there is to send; called ten times a second while connected."""

    @abstractmethod
    def farewell(self) -> Message | None:
        """The last message before a disconnection that is meant."""

    def received(self, received: Received) -> None:
        """A message to a subscription of ``birth``."""

    def unsent(self) -> list[Queued]:
        """Hands back what was taken and not published, oldest first; at the end of a connection."""
        return []

    def joined(self) -> None:
        """The broker took the connection and the birth."""

    def connection(self) -> tuple[bool, str | None]:
        return self._connected, self.outage.sentence

    def under_way(self) -> int:
        return sum(len(sent.rows) for sent in list(self._unanswered.values()))

    def run(self, stop: Flag, beat: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                beat()
                link = self._open()
                if link is not None:
                    self._serve(link, stop, beat)
                wait_s = self._wait_s()
                self._close(goodbye=stop.is_set())
                rest(wait_s, stop, beat)
        finally:
            self._close(goodbye=False)

    def room(self) -> int:
        """How many messages with QoS 1 may be sent now."""
        return self._window - len(self._unanswered)

    def slow(self) -> bool:
        """Whether the network has not taken yet what was sent."""
        return self._link is not None and self._link.busy()

    def publish(self, message: Message, rows: Sequence[Queued] = ()) -> None:
        """Sends a message that carries ``rows``: with QoS 1 they come back if the connection ends before the answer."""
        seq = next(self._seq)
        if message.qos:
            self._unanswered[seq] = _Sent(message.topic, rows, time.monotonic())
        else:
            self.sent += len(rows)
        if self._link is not None:
            self._link.send(seq, message)

    def _open(self) -> PahoLink | None:
        try:
            login = self.cfg.broker()
        except (OSError, UnicodeDecodeError) as error:
            self.outage.failed(f"{self.name}: {error}")
            return None
        if self._link is None or login != self._login:
            self._login, self._link = login, PahoLink(login, self._client_id)
        self._events = SimpleQueue()
        self._link.start(self._events, self.birth(), self.death())
        return self._link

    def _serve(self, link: PahoLink, stop: Flag, beat: Callable[[], None]) -> None:
        """One connection, from the attempt to its end."""
        due_s = 0.0
        while not stop.is_set():
            beat()
            event = self._next_event(TICK_S)
            if isinstance(event, Disconnected):
                displaced = self._younger(SOON_S) and not self._unanswered
                hint = "; is there another client with this user name or client id?" if displaced else ""
                self.outage.failed(f"{self.name}: {event.sentence}{hint}")
                return
            if event is not None:
                self._handle(event)
            now_s = time.monotonic()
            if not self._connected or now_s < due_s:
                continue
            due_s = now_s + TICK_S
            if self._silent(now_s):
                self.outage.failed(f"{self.name}: {self._login} has not acknowledged a message for {SILENT_S:g} s")
                return
            self.exchange()

    def _next_event(self, timeout_s: float) -> Any:
        try:
            return self._events.get(timeout=timeout_s)
        except Empty:
            return None

    def _handle(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._connected, self._since_s = True, time.monotonic()
            self._window = max(1, min(WINDOW, event.receive_max))
            self._fruitful = False
            self._refused_topics.clear()
            self.joined()
            self.outage.over()
            _log.info("%s connected to %s", self.name, self._login)
        elif isinstance(event, Acked):
            sent = self._unanswered.pop(event.seq, None)
            if sent is not None:
                self._acked(sent, event)
        elif isinstance(event, Received):
            self.received(event)

    def _acked(self, sent: _Sent, answer: Acked) -> None:
        self._fruitful = self._fruitful or bool(sent.rows)
        if answer.code >= FIRST_ERROR:
            self.refused += len(sent.rows)
            self._refused_topics.add(sent.topic)
            self.outage.refused(f"{self.name}: {self._login} refuses {sent.topic}: {answer.name}")
            return
        self.sent += len(sent.rows)
        self._refused_topics.discard(sent.topic)
        if not self._refused_topics:
            self.outage.taken()

    def _silent(self, now_s: float) -> bool:
        sent_s = next((sent.at_s for sent in self._unanswered.values()), now_s)
        return now_s - sent_s > SILENT_S

    def _younger(self, than_s: float) -> bool:
        """Whether there is a connection that is younger than this."""
        return self._connected and time.monotonic() - self._since_s < than_s

    def _wait_s(self) -> float:
        """How long to leave the broker alone after this connection, or attempt."""
        if self._younger(STEADY_S):
            return self._brief.next_s()
        if self._connected:
            self._retry.reset()
            self._brief.reset()
        return self._retry.next_s()

    def _close(self, *, goodbye: bool) -> None:
        """Ends the connection; what was not acknowledged waits again."""
        if goodbye and self._connected:
            self._say_goodbye()
        elif self._younger(STEADY_S):
            self._give_up_the_first()
        if self._link is not None:
            self._link.stop()
        self._connected = False
        left = [row for sent in self._unanswered.values() for row in sent.rows]
        self._unanswered.clear()
        self.copies.give_back([*left, *self.unsent()])

    def _give_up_the_first(self) -> None:
        """A message that makes the broker hang up would come first on each new connection."""
        seq = next((seq for seq, sent in self._unanswered.items() if sent.rows), None)
        self._fruitless = 0 if self._fruitful or seq is None else self._fruitless + 1
        if seq is not None and self._fruitless >= FRUITLESS:
            self._fruitless = 0
            count = len(self._unanswered.pop(seq).rows)
            self.refused += count
            _log.warning(
                "%s: %d results are given up: the connection ended %d times on them", self.name, count, FRUITLESS
            )

    def _say_goodbye(self) -> None:
        """Sends what is left and the farewell, and waits a moment for the answers."""
        self.exchange()
        message = self.farewell()
        if message is not None:
            self.publish(message)
        end_s = time.monotonic() + GOODBYE_S
        while self._unanswered and (left_s := end_s - time.monotonic()) > 0:
            event = self._next_event(left_s)
            if event is None or isinstance(event, Disconnected):
                return
            self._handle(event)
