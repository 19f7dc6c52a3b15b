"""What is done to an installation: kills at random moments, and one fault of each other kind for a while."""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.cli.command import CommandError
from hil.chaos.arrivals import came_again
from hil.chaos.namespace import Cable
from hil.chaos.part import wait_for
from hil.chaos.proof import Committed, committed, hub_ledger, lacking
from hil.chaos.relay import relay
from hil.chaos.site import DEVICE, Site

DRAIN_S = 60.0
DELAY_MS = 150
LOSS_PERCENT = 2
BETWEEN_S = (0.1, 5.0)
"""Seconds from one kill to the next; an agent takes about one to start, so some die again before that."""
DEAD_S = (0.0, 1.0)
"""Seconds for which a killed part stays away."""
NOTICE_S = 5.0
LOCK_S = 5.0


@dataclass(slots=True)
class Story:
    """What happened at one site."""

    site: Site
    rate_hz: int
    begin_s: float = field(default_factory=time.monotonic)
    events: list[dict[str, Any]] = field(default_factory=list)
    expected: Committed = field(default_factory=dict)
    """What the outbox held at any moment at which its agent was not running."""
    ended: list[str] = field(default_factory=list)
    """A sentence for each part that ended by itself."""

    def tell(self, what: str, **facts: object) -> None:
        """Add an event, with how many results have come to the hub more than once before it."""
        at_s = round(time.monotonic() - self.begin_s, 2)
        self.events.append({"at_s": at_s, "what": what, "came_again": came_again(self.site.hub_db, DEVICE), **facts})

    def note(self) -> None:
        """The outbox of an agent that has just ended: all of this must come to the store."""
        self.expected |= committed(self.site.state)

    def check(self) -> None:
        """Notes who ended without being asked to, and clears that away, so that it can be started again."""
        for part in self.site.parts:
            if part.gave_up:
                self.ended.append(f"the {part.name} ended by itself: {part.tail()}")
                part.stop()
                self.tell("ended by itself", part=part.name)

    def drain(self) -> float:
        """Until all that is committed now is stored; seconds. Raises CommandError with what is lacking."""
        expected = self.expected | committed(self.site.state)
        left: Mapping[Any, int] = {}

        def done() -> bool:
            nonlocal left
            self.check()
            left = lacking(expected, hub_ledger(self.site.hub_db))
            return not left

        try:
            took_s = wait_for("", done, DRAIN_S)
        except CommandError as error:
            raise CommandError(f"not drained within {DRAIN_S:g} s of peace; the store lacks {dict(left)}") from error
        self.tell("drained", took_s=round(took_s, 2), committed=sum(expected.values()))
        return took_s


def kill_at_random(story: Story, kills: int, moments: random.Random) -> None:
    """SIGKILL of agent, broker and hub in turn by chance; each comes back by itself after a while."""
    site = story.site
    parts = site.parts
    back_s: dict[str, float] = {}
    for _ in range(kills):
        _rest(story, moments.uniform(*BETWEEN_S), back_s)
        victim = moments.choice(parts)
        if not victim.running:
            victim.start()
        victim.kill()
        if victim is site.agent:
            story.note()
        story.tell("killed", part=victim.name)
        back_s[victim.name] = time.monotonic() + moments.uniform(*DEAD_S)
    for part in parts:
        if not part.running:
            part.start()
    story.tell("peace")


def _rest(story: Story, seconds: float, back_s: dict[str, float]) -> None:
    """Whoever was killed is started again when it is due."""
    end_s = time.monotonic() + seconds
    while (now_s := time.monotonic()) < end_s:
        story.check()
        for part in story.site.parts:
            if not part.running and now_s >= back_s.get(part.name, 0.0):
                part.start()
        time.sleep(0.01)


def phases(story: Story, seconds: float, cable: Cable | None, why_not: str) -> Iterator[tuple[str, float]]:
    """Each other fault for ``seconds``; its name, and how long the store then took to have everything."""
    faults: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "broker away": lambda: _broker_away(story.site),
        "slow consumer": lambda: _slow_consumer(story.site),
        "hub database locked": lambda: _locked(story.site),
        "network cut": lambda: _cut(story.site, cable),
        "network delayed": lambda: _delayed(story, cable),
    }
    if cable is None:
        del faults["network cut"]
        story.tell("left out", fault="network cut", reason=why_not)
    for name, fault in faults.items():
        story.tell("fault begins", fault=name)
        with fault():
            time.sleep(seconds)
        story.tell("fault ends", fault=name)
        yield name, story.drain()


@contextmanager
def _broker_away(site: Site) -> Iterator[None]:
    site.broker.kill()
    yield
    site.start_broker()


@contextmanager
def _slow_consumer(site: Site) -> Iterator[None]:
    site.hub.freeze()
    yield
    site.hub.thaw()


@contextmanager
def _locked(site: Site) -> Iterator[None]:
    """Somebody else's transaction holds the hub's database."""
    with closing(sqlite3.connect(site.hub_db, isolation_level=None, timeout=LOCK_S)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def _cut(site: Site, cable: Cable | None) -> Iterator[None]:
    if cable is None:
        raise CommandError("there is no cable")
    cable.pull()
    yield
    cable.plug()


@contextmanager
def _delayed(story: Story, cable: Cable | None) -> Iterator[None]:
    """By netem where the kernel has it; else the agent starts anew and connects through a relay."""
    site = story.site
    if cable is not None:
        try:
            cable.delay(DELAY_MS, LOSS_PERCENT)
        except CommandError as error:
            story.tell("no netem, a relay delays instead", reason=str(error))
        else:
            yield
            cable.undelay()
            return
    plain = list(site.agent.command)
    with relay(site.port, DELAY_MS / 1000) as line:
        site.agent.stop()
        story.note()
        site.agent.command = plain[len(cable.prefix) :] if cable else plain
        site.write_agent(story.rate_hz, host="127.0.0.1", port=line.port)
        site.agent.start()
        wait_for("results come through the relay", site.delivers, NOTICE_S + DRAIN_S)
        yield
    site.agent.stop()
    story.note()
    site.agent.command = plain
    site.write_agent(story.rate_hz)
    site.agent.start()
