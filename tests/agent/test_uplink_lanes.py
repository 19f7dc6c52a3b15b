"""Delivery in any order: ranges beyond the watermark, single repeats, holes, two lanes; and what is shown live."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from agent.ledger import Counts
from agent.link import Disconnected
from agent.mqtt import Broker, PahoLink
from agent.outbox import Outbox
from agent.outbox_group import Queued
from agent.record import Priority
from agent.uplink import Uplink
from agent.wire import Batch
from tests.agent.raw_hub import RawHub
from tests.agent.test_uplink import Device
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually
from tests.contract.links import ListLink

Start = Callable[[Any], Running]


@pytest.fixture
def device(tmp_path: Path, running: Start) -> Device:
    return Device(tmp_path, ListLink(), running)


@pytest.fixture
def make_hub(broker: Mosquitto) -> Iterator[Callable[..., RawHub]]:
    hubs: list[RawHub] = []

    def make(**options: Any) -> RawHub:
        hubs.append(RawHub(broker.port, **options).start())
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.stop()


def wired(folder: Path, broker: Mosquitto, running: Start, boot: str = "b1", **options: Any) -> tuple[Outbox, Uplink]:
    """An outbox and an uplink on the real broker."""
    outbox = Outbox(folder / "o.db", boot=boot)
    running(outbox)
    assert outbox.opened.wait(10)
    uplink = Uplink(
        *(outbox, PahoLink(Broker(broker.host, broker.port), "d1"), "d1"),
        **{"info": dict, "metrics": dict, "agent_version": "0.1.0", **options},
    )
    running(uplink)
    return outbox, uplink


def alarms(outbox: Outbox, count: int) -> None:
    """A batch each: an alarm is committed at once."""
    for number in range(count):
        outbox.put("kw", {"n": number}, priority=Priority.ALARM)
        eventually(lambda: not outbox.unwritten, "stored")


def test_what_the_hub_has_beyond_the_watermark_is_freed(device: Device) -> None:
    device.put(6)
    device.wait_sent(6)
    device.acknowledge(upto=1, have=[[3, 4], [6, 6]])
    eventually(lambda: device.outbox.depth().rows == 2, "2 and 5 are left")
    device.acknowledge(upto=1, have=[[3, 6]])
    device.acknowledge(upto=0)
    eventually(lambda: device.outbox.depth().rows == 1, "2 is left")
    device.acknowledge(upto=6)
    assert device.outbox.wait_drained(10)
    assert [batch.seq0 for batch in device.batches()] == [1, 2, 3, 4, 5, 6], "nothing was sent twice"


def test_only_what_was_lost_is_sent_again(device: Device) -> None:
    device.put(5)
    device.wait_sent(5)
    begun_s = time.monotonic()
    device.acknowledge(upto=1, have=[[3, 4]])
    batches = device.wait_sent(6)
    assert time.monotonic() - begun_s >= 1.0, "a second hub may still answer"
    assert [batch.seq0 for batch in batches] == [1, 2, 3, 4, 5, 2]
    device.acknowledge(upto=5)
    assert device.outbox.wait_drained(10)
    state = device.uplink.state()
    assert (state.resent, state.rewinds, state.delivered) == (1, 0, 5)


def test_a_repeat_is_byte_identical(device: Device) -> None:
    device.put(2)
    device.wait_sent(2)
    device.acknowledge(upto=0, have=[[2, 2]])
    device.wait_sent(3)
    first, _, again = [message for _, message in device.link.sent if "/res/" in message.topic]
    assert first == again


def test_what_the_hub_is_known_to_have_is_not_sent_after_all(tmp_path: Path, running: Start) -> None:
    link = ListLink()
    link.code = 0x97
    device = Device(tmp_path, link, running)
    device.put(3)
    eventually(lambda: device.uplink.state().error, "refused, nothing is under way any more")
    device.acknowledge(upto=2, retain=True)
    eventually(device.uplink._events.empty, "heard")
    before = len(device.batches())
    link.code = 0
    assert device.wait_sent(before + 1)[before].seq0 == 3
    device.acknowledge(upto=3)
    assert device.outbox.wait_drained(10)
    assert device.uplink.state().delivered == 3
    assert len(device.batches()) == before + 1


def test_a_hub_that_lacks_what_is_long_delivered_is_told_so(device: Device) -> None:
    device.put(3)
    device.wait_sent(3)
    device.acknowledge(upto=3)
    assert device.outbox.wait_drained(10)
    device.put(1)
    device.wait_sent(4)
    device.acknowledge(upto=0, have=[[4, 4]])
    gap = device.wait_sent(5)[4]
    assert (gap.seq0, gap.seq1, gap.cause) == (1, 3, "delivered before")
    assert device.outbox.wait_drained(10), "and the rest is freed by the hub's word all the same"


def test_the_gap_ends_where_the_device_still_has_something(device: Device) -> None:
    device.put(4)
    device.wait_sent(4)
    device.acknowledge(upto=2, have=[[4, 4]])
    eventually(lambda: device.outbox.depth().rows == 1, "3 is left")
    device.acknowledge(upto=0, have=[[4, 4]], retain=True)
    gaps = eventually(lambda: [batch for batch in device.batches() if batch.cause], "gap sent")
    assert [(gap.seq0, gap.seq1) for gap in gaps] == [(1, 2)]
    device.acknowledge(upto=4)
    assert device.outbox.wait_drained(10)


def test_an_outbox_that_is_being_rebuilt_has_lost_nothing_yet(device: Device) -> None:
    device.put(4)
    device.wait_sent(4)
    device.acknowledge(upto=4)
    assert device.outbox.wait_drained(10)
    device.outbox.opened.clear()
    device.acknowledge(upto=0, have=[[4, 4]], retain=True)
    eventually(lambda: device.uplink._holes.due(time.monotonic() - 0.5), "half a second overdue")
    assert len(device.batches()) == 4
    device.outbox.opened.set()
    assert device.wait_sent(5)[4].cause == "delivered before"


def test_a_word_that_comes_late_makes_no_gap(device: Device) -> None:
    """Two hubs on one store: the answer of the slower one arrives after that of the faster."""
    device.put(4)
    device.wait_sent(4)
    device.acknowledge(upto=3)
    device.acknowledge(upto=1)
    device.acknowledge(upto=4)
    assert device.outbox.wait_drained(10)
    device.put(1)
    device.wait_sent(5)
    device.acknowledge(upto=5)
    assert device.outbox.wait_drained(10)
    assert not [batch for batch in device.batches() if batch.cause]


def test_batches_lost_on_the_way_arrive_in_the_end(
    tmp_path: Path, running: Start, broker: Mosquitto, make_hub: Callable[..., RawHub]
) -> None:
    seen: dict[int, int] = {}

    def takes(batch: Batch) -> bool:
        seen[batch.seq0] = seen.get(batch.seq0, 0) + 1
        return seen[batch.seq0] > 1 or batch.seq0 % 3 != 0

    hub = make_hub(takes=takes)
    outbox, uplink = wired(tmp_path, broker, running)
    alarms(outbox, 60)
    assert outbox.wait_drained(30)
    assert hub.numbers() == list(range(1, 61)) and not hub.missing
    lost = sum(seq % 3 == 0 for seq in seen)
    assert lost > 3 and uplink.state().resent + uplink.state().rewinds > 0
    assert sum(seen.values()) - len(seen) <= lost + 5, "only what was lost was sent again"


def test_fresh_results_come_first_after_an_outage_and_nothing_is_lost(
    tmp_path: Path, running: Start, broker: Mosquitto, make_hub: Callable[..., RawHub]
) -> None:
    outbox, _ = wired(tmp_path, broker, running, stall_first_s=0.5)
    broker.kill()
    old = 300
    alarms(outbox, old)
    hub_answers_slowly = Event()
    broker.start()
    hub = make_hub(takes=lambda batch: not hub_answers_slowly.wait(0.01))
    eventually(lambda: hub.batches, "the first arrives")
    ahead, waits = [], []
    for number in range(old + 1, old + 21):
        begun_s = time.monotonic()
        alarms(outbox, 1)
        eventually(lambda number=number: number in hub.numbers(), f"{number} arrives")  # type: ignore[misc]
        waits.append(time.monotonic() - begun_s)
        ahead.append(number - len(hub.numbers()))
    assert outbox.wait_drained(60)
    assert hub.numbers() == list(range(1, old + 21)) and not hub.missing
    assert ahead[0] > 50, f"the backlog was still waiting when the first fresh one arrived: {ahead}"
    assert sorted(waits)[10] < 0.5, waits


def test_the_last_result_is_shown_live_and_not_more_often_than_once_a_second(device: Device) -> None:
    eventually(lambda: device.uplink.state().connected, "connected")

    def live(stream: str) -> list[dict[str, Any]]:
        topic = f"axond/v1/d1/up/live/{stream}"
        sent = [message for _, message in list(device.link.sent) if message.topic == topic]
        assert all(message.qos == 0 and not message.retain for message in sent)
        return [json.loads(message.payload) for message in sent]

    now_ns = time.monotonic_ns()
    device.uplink.show([Queued("kw", {"t_ns": now_ns, "label": "yes", "score": 0.5}, 1, now_ns)])
    device.uplink.show([Queued("imu", {"t_ns": now_ns, "x": 1}, 1, now_ns)])
    eventually(lambda: live("kw") and live("imu"), "shown")
    (first,) = live("kw")
    assert {**first, "ts": ""} == {"ts": "", "label": "yes", "score": 0.5}
    begun_s = time.monotonic()
    for number in range(5):
        device.uplink.show([Queued("kw", {"t_ns": now_ns, "label": f"no{number}", "score": 0.1}, 1, now_ns)])
    eventually(lambda: len(live("kw")) == 2, "the last one is shown in the end")
    assert live("kw")[1]["label"] == "no4"
    assert time.monotonic() - begun_s > 0.5
    assert device.uplink.state().in_flight == 0 and not device.uplink._flight.unanswered


def test_an_unbalanced_ledger_is_an_alarm_and_its_end_is_told(
    tmp_path: Path, running: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "agent")
    device = Device(tmp_path, ListLink(), running, metrics_interval_s=0.1)
    device.put(1)
    device.wait_sent(1)

    def events() -> list[dict[str, Any]]:
        sent = [message for _, message in list(device.link.sent) if message.topic == "axond/v1/d1/up/event"]
        assert all(message.qos == 1 and not message.retain for message in sent)
        return [json.loads(message.payload) for message in sent]

    true = device.outbox.ledger
    monkeypatch.setattr(device.outbox, "ledger", lambda: {("b1", "kw"): Counts(produced=2, pending=1)})
    eventually(events, "alarm")
    device.link.post(Disconnected("gone"))
    eventually(lambda: len(events()) == 2, "told again on a new connection: it may have been lost")
    alarm, again = events()
    assert {**alarm, "ts": ""} == {**again, "ts": ""}
    assert (alarm["event"], alarm["state"], alarm["boot"], alarm["stream"]) == ("ledger", "raised", "b1", "kw")
    assert (alarm["produced"], alarm["pending"]) == (2, 1)
    monkeypatch.setattr(device.outbox, "ledger", true)
    eventually(lambda: len(events()) == 3, "cleared")
    assert events()[2]["state"] == "cleared"
    levels = [one.levelname for one in caplog.records if "unaccounted" in one.message or "balances" in one.message]
    assert levels == ["ERROR", "ERROR", "INFO"]
