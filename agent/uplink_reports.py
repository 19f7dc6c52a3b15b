"""What the uplink says besides results: birth and death, live values, metrics, the clock, the alarm of the ledger."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent.clock import ClockKeeper
from agent.ledger import Counts
from agent.link import Birth, Death, Message
from agent.messages import (
    clock_event,
    clock_message,
    info_message,
    ledger_event,
    ledger_numbers,
    live_message,
    metrics_message,
    status_message,
)
from agent.outbox import Outbox
from agent.outbox_group import Queued
from agent.record import Key
from agent.topics import Topics
from agent.uplink_live import Live

log = logging.getLogger(__name__)

CLOCK_S = 3600.0
"""What is known of the clock is told this often, beside each connection and each change."""
CLOCK_QUIET_S = 10.0
"""A clock that leaps and leaps is not told more often."""


class Reports:
    """Makes the messages; the uplink's thread sends them. ``show`` may be called from any thread."""

    def __init__(
        self,
        outbox: Outbox,
        topics: Topics,
        *,
        info: Callable[[], Mapping[str, Any]],
        metrics: Callable[[], Mapping[str, float]],
        agent_version: str,
        region: str,
        interval_s: float,
        clock: ClockKeeper | None = None,
    ) -> None:
        """``info`` gives the birth document, ``metrics`` flat numbers, every ``interval_s``."""
        self._outbox = outbox
        self._topics = topics
        self._info = info
        self._metrics = metrics
        self._agent_version = agent_version
        self._region = region
        self._interval_s = interval_s
        self._clock = clock
        self._clock_told = -1
        self._clock_at_s = 0.0
        self._steps_told = 0
        self._live = Live()
        self._metrics_at_s = 0.0
        self._unbalanced: set[Key] = set()
        self._made: deque[Message] = deque()
        """One round of messages, until the broker takes them."""

    def show(self, rows: Sequence[Queued]) -> None:
        """Results that may be seen live; copies and returns."""
        self._live.put(rows)

    def begin(self) -> tuple[Birth, Death]:
        """For a new connection: what is published on it at once, and what when it is lost."""
        self._metrics_at_s = 0.0
        self._clock_told = -1
        self._unbalanced = set()
        self._made.clear()
        birth = Birth((self._topics.ack("+"),), (self.status("online"), info_message(self._topics, self._info())))
        return birth, Death(self.status("lost"))

    def status(self, state: str) -> Message:
        """``state`` is online, offline or lost."""
        return status_message(self._topics, state, self._outbox.boot, self._agent_version, self._region)

    def due(self, now_s: float, room: int) -> Iterator[Message]:
        """What is to be said now, while connected: at most ``room`` messages that the broker answers."""
        if not self._made:
            self._made.extend(self._make(now_s))
        while self._made and (room > 0 or not self._made[0].qos):
            message = self._made.popleft()
            room -= message.qos
            yield message

    def _make(self, now_s: float) -> Iterator[Message]:
        for result in self._live.take(now_s):
            yield live_message(self._topics, result)
        if self._clock is not None:
            yield from self._clocks(self._clock, now_s)
        if now_s >= self._metrics_at_s:
            self._metrics_at_s = now_s + self._interval_s
            yield from self._account()

    def _clocks(self, clock: ClockKeeper, now_s: float) -> Iterator[Message]:
        """What the hub needs to correct stamps, and an event when the clock has leapt."""
        number, epochs = clock.report()
        since_s = now_s - self._clock_at_s
        if (number == self._clock_told or (self._clock_told >= 0 and since_s < CLOCK_QUIET_S)) and since_s < CLOCK_S:
            return
        self._clock_told, self._clock_at_s = number, now_s
        if epochs["epochs"]:
            yield clock_message(self._topics, epochs)
        state = clock.state()
        if state.steps != self._steps_told:
            self._steps_told = state.steps
            yield clock_event(self._topics, self._outbox.boot, state.steps, state.last_step_ms, state.source)

    def _account(self) -> Iterator[Message]:
        boot = self._outbox.boot
        numbers = dict(self._metrics())
        ledger = self._outbox.ledger()
        for (row_boot, stream), counts in ledger.items():
            if row_boot == boot:
                numbers.update(ledger_numbers(stream, counts))
        yield metrics_message(self._topics, boot, numbers)
        yield from self._alarms(ledger)

    def _alarms(self, ledger: Mapping[Key, Counts]) -> Iterator[Message]:
        """One per connection while results are unaccounted for, and one when that is over."""
        for key, counts in ledger.items():
            if counts.balanced() == (key not in self._unbalanced):
                continue
            if counts.balanced():
                self._unbalanced.discard(key)
                log.info("the ledger of %s, boot %s, balances again", key[1], key[0])
            else:
                self._unbalanced.add(key)
                log.error("results of %s, boot %s, are unaccounted for: %s", key[1], key[0], counts)
            yield ledger_event(self._topics, *key, counts)
