"""A stream that the broker refuses, a broker that takes few messages at a time, and an uplink that failed."""

import json
import logging
import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Event as Flag
from typing import Any

import pytest

from agent import uplink_refused
from agent.link import QUOTA_EXCEEDED, Acked, Birth, Connected, Death, Disconnected, Event, Message, Received
from agent.outbox import Outbox
from agent.outbox_leases import READY_FULL, Leases
from agent.record import Priority, Record
from agent.uplink import Uplink
from agent.wire import decode
from tests.agent.test_uplink import Device
from tests.conftest import Running, eventually
from tests.contract.links import ListLink

Start = Callable[[Any], Running]


class StrictLink(ListLink):
    """A broker that refuses some streams, with a hub behind it that stores all the others."""

    def __init__(self, *refused: str, code: int = 0x87, receive_max: int = 65535) -> None:
        super().__init__(receive_max)
        self.refused = set(refused)
        self.refusal = code
        self.at_once = 0
        """The most that was under way without an answer."""
        self.under_way: Callable[[], int] = lambda: 0

    def send(self, seq: int, message: Message) -> None:
        self.sent.append((seq, message))
        if not message.qos:
            return
        self.at_once = max(self.at_once, self.under_way())
        stream = message.topic.rpartition("/")[2]
        if stream in self.refused:
            self.post(Acked(seq, self.refusal, "Not authorized"))
            return
        if not self.mute:
            self.post(Acked(seq))
        if "/res/" in message.topic:
            batch = decode(message.payload)
            have = {"boot": batch.boot, "upto": 0, "have": [[batch.seq0, batch.seq1]]}
            self.post(Received(f"axond/v1/d1/down/ack/{stream}", json.dumps(have).encode()))


def kinds(link: ListLink) -> list[str]:
    return [message.topic.partition("/up/")[2] for _, message in list(link.sent)]


def pending(device: Device, stream: str) -> int:
    return device.outbox.ledger()["b1", stream].pending


def test_a_refused_stream_holds_up_no_other(
    tmp_path: Path, running: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refusal once paused everything, again and again: it was the oldest record that was sent first."""
    monkeypatch.setattr(uplink_refused, "FIRST_S", 1000.0)
    monkeypatch.setattr(uplink_refused, "LONGEST_S", 1000.0)
    link = StrictLink("x")
    device = Device(tmp_path, link, running)
    device.put(1, "x")
    eventually(lambda: device.uplink.state().error, "refused")
    for _ in range(5):
        device.put(2, "x")
        device.put(2)
        eventually(lambda: not pending(device, "kw"), "the others go on")
    state = device.uplink.state()
    assert kinds(link).count("res/x") == 1 and pending(device, "x") == 11
    assert state.error == "the broker refuses results on axond/v1/d1/up/res/x: Not authorized"
    assert (state.in_flight, len(device.outbox._leases.leased)) == (0, 1), "it takes no room"
    assert [one.levelno for one in caplog.records if "refuses" in one.message] == [logging.WARNING]
    link.refused.clear()
    link.post(Disconnected("gone"))
    assert device.outbox.wait_drained(10), "another connection, another chance"


def test_a_refused_stream_is_tried_alone_until_it_is_taken(
    tmp_path: Path, running: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(uplink_refused, "FIRST_S", 0.01)
    link = StrictLink("x")
    device = Device(tmp_path, link, running)
    device.put(1, "x")
    eventually(lambda: device.uplink.state().error, "refused")
    device.put(20, "x")
    eventually(lambda: kinds(link).count("res/x") >= 4, "tried again")
    assert {batch.seq0 for batch in device.batches("x")} == {1}
    link.refused.clear()
    assert device.outbox.wait_drained(10)
    assert device.uplink.state().error is None
    assert [one.message.partition(" after")[0] for one in caplog.records if "takes results" in one.message] == [
        "the broker takes results on axond/v1/d1/up/res/x again"
    ]


def test_what_is_under_way_of_a_refused_stream_makes_room(
    tmp_path: Path, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rights of a device change while the hub is busy: what was taken before holds no place in the window."""
    monkeypatch.setattr(uplink_refused, "FIRST_S", 1000.0)
    link = ListLink()
    device = Device(tmp_path, link, running)
    device.put(5, "x")
    device.wait_sent(5, "x")
    eventually(lambda: not device.uplink._flight.unanswered, "the broker has them")
    link.code = 0x87
    device.put(1, "x")
    eventually(lambda: device.uplink.state().error, "refused")
    assert device.uplink.state().in_flight == 0
    link.code = 0
    link.post(Disconnected("gone"))
    eventually(lambda: len(link.births) == 2 and device.uplink.state().in_flight, "sent again")
    device.acknowledge("x", upto=6)
    assert device.outbox.wait_drained(10)


def test_a_quota_pauses_everything(tmp_path: Path, running: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink_refused, "FIRST_S", 1000.0)
    link = StrictLink("x", code=QUOTA_EXCEEDED)
    device = Device(tmp_path, link, running)
    device.put(1, "x")
    eventually(lambda: device.uplink.state().error, "refused")
    device.put(1)
    eventually(device.uplink._events.empty, "heard")
    assert not device.batches() and not device.outbox._leases.leased


def record(number: int, stream: str) -> Record:
    return Record(number, "b1", stream, number, number, int(Priority.RESULT), False, 0, 0, b"")


class Stored:
    """The file of an outbox, and how it is read."""

    def __init__(self, leases: Leases, records: list[Record]) -> None:
        self.leases = leases
        self.records = records

    def fetch(self) -> tuple[list[Record], int]:
        after, limit = self.leases.next_read()
        return [one for one in self.records if one.id > after][:limit], limit

    def refill(self) -> None:
        while self.leases.wants_more():
            self.leases.read(*self.fetch())


def test_ten_thousand_refused_records_starve_nobody_and_fill_no_memory() -> None:
    leases = Leases()
    file = Stored(leases, [record(number, "x" if number < 10_000 else "kw") for number in range(1, 10_101)])
    file.refill()
    sample, *others = leases.lease(50, None)
    leases.shelve({"x"})
    leases.release(others)
    file.refill()
    assert {one.stream for one in leases.all()} == {"x", "kw"} and len(leases.all()) == 102
    assert [one.id for one in leases.lease(1000, None)] == list(range(10_000, 10_101))
    leases.added([record(20_000, "x"), record(20_001, "kw")])
    assert [one.id for one in leases.lease(1000, None)] == [20_001]
    file.records += [record(20_000, "x")]
    leases.shelve(())
    leases.release([sample])
    found: list[int] = []
    while True:
        file.refill()
        assert len(leases.backlog) <= 2 * READY_FULL
        if not (batch := leases.lease(100, None)):
            break
        found += [one.id for one in batch]
        leases.accept(batch)
        file.records, leases.settled = [one for one in file.records if one.id > found[-1]], []
    assert found == [*range(1, 10_000), 20_000]


def test_a_stream_that_is_offered_again_while_the_file_is_read_is_read_too() -> None:
    leases = Leases()
    file = Stored(leases, [record(number, "x") for number in range(1, 5)])
    leases.shelve({"x"})
    file.refill()
    leases.added([record(number, "kw") for number in range(5, 100)])
    file.records += [record(number, "kw") for number in range(5, 100)]
    leases._unread = True
    found = file.fetch()
    leases.shelve(())
    leases.read(*found)
    file.refill()
    assert {one.id for one in leases.lease(1000, None)} == set(range(1, 100))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_shelved_everything_is_leased_in_the_end(seed: int) -> None:
    chance, leases, ids = random.Random(seed), Leases(), count(1)
    file, shelved = Stored(leases, []), set[str]()
    held: list[Record] = []
    done: list[int] = []
    for _ in range(300):
        action = chance.randrange(6)
        if action == 0:
            new = [record(next(ids), chance.choice("abc")) for _ in range(chance.choice([1, 20, 700]))]
            file.records += new
            leases.added(new)
        elif action == 1:
            leases.shelve(shelved := {one for one in "abc" if chance.random() < 0.4})
        elif action == 2 and held:
            leases.release([held.pop(chance.randrange(len(held)))])
        elif action == 3:
            leases.accept(held)
            done += [one.id for one in held]
            gone = set(leases.settled)
            file.records = [one for one in file.records if one.id not in gone]
            leases.settled, held = [], []
        elif action == 4 and leases.wants_more():
            leases.read(*file.fetch())
        else:
            got = leases.lease(chance.randrange(200), None)
            assert not {one.stream for one in got} & shelved
            held += got
    leases.shelve(())
    leases.release(held)
    while True:
        file.refill()
        if not (got := leases.lease(500, None)):
            break
        leases.accept(got)
        done += [one.id for one in got]
    assert sorted(done) == list(range(1, next(ids)))


@pytest.mark.parametrize("receive_max", [1, 2])
def test_results_and_reports_share_what_the_broker_takes(tmp_path: Path, running: Start, receive_max: int) -> None:
    """A broker that takes one message at a time was overrun by the first metrics, and ended the connection."""
    link = StrictLink(receive_max=receive_max)
    device = Device(tmp_path, link, running, metrics_interval_s=0.0)
    link.under_way = lambda: len(device.uplink._flight.unanswered)
    device.put(20)
    assert device.outbox.wait_drained(10)
    assert kinds(link).count("metrics") > 2
    link.mute = True
    device.put(2)
    eventually(lambda: len(device.uplink._flight.unanswered) == receive_max, "no more room")
    device.uplink_runs.stop()
    assert link.at_once == receive_max


def test_reports_do_not_wait_for_the_end_of_the_results(tmp_path: Path, running: Start) -> None:
    link, outbox = StrictLink(receive_max=1), Outbox(tmp_path / "o.db", boot="b1")
    running(outbox)
    assert outbox.opened.wait(10)
    for number in range(30):
        outbox.put("kw", {"n": number}, priority=Priority.ALARM)
        eventually(lambda: not outbox.unwritten, "stored")
    running(Uplink(outbox, link, "d1", info=dict, metrics=dict, agent_version="0"))
    assert outbox.wait_drained(10)
    assert "metrics" in kinds(link)[:3]


class ShyLink(ListLink):
    """Says that it is connected when the test wants it."""

    def start(self, events: "SimpleQueue[Event]", birth: Birth, death: Death | None) -> None:
        self._events = events
        self.births.append(birth)


def test_after_a_failure_nothing_is_sent_before_there_is_a_connection(
    tmp_path: Path, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once believed the connection of before, and what it leased for that was never sent."""
    link, outbox = ShyLink(), Outbox(tmp_path / "o.db", boot="b1")
    running(outbox)
    assert outbox.opened.wait(10)
    uplink = Uplink(outbox, link, "d1", info=dict, metrics=dict, agent_version="0")
    with monkeypatch.context() as patch:
        patch.setattr(uplink, "_close_holes", lambda now_s: 1 / 0)
        failing = running(uplink)
        eventually(lambda: link.births, "started")
        link.post(Connected())
        assert isinstance(failing.wait(), ZeroDivisionError)
    outbox.put("kw", {"n": 1}, priority=Priority.ALARM)
    eventually(outbox.leasable, "stored")
    running(uplink)
    eventually(lambda: len(link.births) == 2, "started again")
    assert not uplink.state().connected
    link.post(Connected())
    eventually(lambda: "res/kw" in kinds(link), "sent")
    assert [one.id for one in outbox._leases.leased.values()] == [1] and uplink.state().in_flight == 1


def test_what_was_leased_before_a_connection_is_offered_on_it(tmp_path: Path, running: Start) -> None:
    link = ShyLink()
    device = Device(tmp_path, link, running)
    device.put(1)
    eventually(lambda: link.births, "started")
    assert len(device.outbox.lease(5, 0.0)) == 1
    link.post(Connected())
    device.wait_sent(1)


def test_there_is_no_goodbye_to_a_broker_that_takes_no_more(tmp_path: Path) -> None:
    stop, link = Flag(), ListLink(receive_max=1)
    link.mute = True
    uplink = Uplink(Outbox(tmp_path / "o.db", boot="b1"), link, "d1", info=dict, metrics=dict, agent_version="0")

    def beat() -> None:
        if link.sent:
            stop.set()

    uplink.run(stop, beat)
    assert kinds(link) == ["metrics"]
