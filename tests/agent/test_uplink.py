"""The uplink against a broker that says what the test wants."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.link import NO_SUBSCRIBERS, Disconnected, Message, Received
from agent.outbox import Outbox
from agent.record import Priority
from agent.uplink import Uplink
from agent.uplink_flight import WINDOW
from agent.wire import Batch, decode
from tests.conftest import Running, eventually
from tests.contract.links import ListLink

Start = Callable[[Any], Running]


class Device:
    """An outbox and an uplink on a ``ListLink``."""

    def __init__(self, folder: Path, link: ListLink, running: Start, **options: Any) -> None:
        self.link = link
        self.outbox = Outbox(folder / "o.db", boot="b1")
        self.outbox_runs = running(self.outbox)
        assert self.outbox.opened.wait(10)
        self.uplink = Uplink(
            self.outbox,
            link,
            "d1",
            info=lambda: {"streams": ["kw"]},
            metrics=lambda: {"cpu": 0.5},
            agent_version="0.1.0",
            region="eu",
            **options,
        )
        self.uplink_runs = running(self.uplink)

    def put(self, count: int, stream: str = "kw") -> None:
        """One batch a row: an alarm is committed at once."""
        for number in range(count):
            before = self.outbox.ledger().get(("b1", stream))
            produced = before.produced if before else 0
            self.outbox.put(stream, {"n": number}, priority=Priority.ALARM)
            eventually(lambda: not self.outbox.unwritten, f"row {produced} stored")

    def batches(self, stream: str = "kw") -> list[Batch]:
        topic = f"axond/v1/d1/up/res/{stream}"
        return [decode(message.payload) for _, message in list(self.link.sent) if message.topic == topic]

    def wait_sent(self, count: int, stream: str = "kw") -> list[Batch]:
        eventually(lambda: len(self.batches(stream)) >= count, f"{count} batches sent")
        return self.batches(stream)

    def acknowledge(self, stream: str = "kw", *, retain: bool = False, **document: Any) -> None:
        payload = json.dumps({"boot": "b1", **document}).encode()
        self.link.post(Received(f"axond/v1/d1/down/ack/{stream}", payload, retain=retain))


@pytest.fixture
def device(tmp_path: Path, running: Start) -> Device:
    return Device(tmp_path, ListLink(), running)


def test_a_result_is_freed_by_the_watermark_and_not_by_the_broker(device: Device) -> None:
    device.put(2)
    first, second = device.wait_sent(2)
    assert (first.seq0, second.seq0) == (1, 2)
    assert not device.outbox.wait_drained(0.3), "the broker's answer frees nothing"
    device.acknowledge(upto=1)
    eventually(lambda: device.outbox.depth().rows == 1, "one freed")
    device.acknowledge(upto=2, retain=True)
    assert device.outbox.wait_drained(10)
    state = device.uplink.state()
    assert (state.connected, state.sent, state.delivered, state.rewinds, state.error) == (True, 2, 2, 0, None)


def test_a_batch_is_a_cloud_event(device: Device) -> None:
    device.put(1)
    device.wait_sent(1)
    (message,) = [message for _, message in device.link.sent if "/res/" in message.topic]
    assert message.properties["ce-id"] == "d1/b1/1-1"
    assert message.properties["content-encoding"] == "zstd"
    assert message.properties["ce-time"].endswith("Z")
    assert (message.qos, message.retain, message.content_type) == (1, False, "application/json")


def test_birth_death_and_goodbye(device: Device) -> None:
    eventually(lambda: device.uplink.state().connected, "connected")
    (birth,) = device.link.births
    assert birth.subscriptions == ("axond/v1/d1/down/ack/+",)
    status, info = birth.messages
    assert status.retain and info.retain
    assert json.loads(status.payload)["state"] == "online"
    assert json.loads(status.payload)["region"] == "eu"
    assert json.loads(info.payload) == {"streams": ["kw"]}
    (death,) = device.link.deaths
    assert death is not None and death.delay_s == 30
    assert json.loads(death.message.payload)["state"] == "lost"
    device.uplink_runs.stop()
    _, last = device.link.sent[-1]
    assert (last.topic, json.loads(last.payload)["state"], last.retain) == ("axond/v1/d1/up/status", "offline", True)


def test_metrics_are_flat_numbers_with_the_ledger(tmp_path: Path, running: Start) -> None:
    device = Device(tmp_path, ListLink(), running, metrics_interval_s=0.2)
    device.put(1)

    def metrics() -> list[Message]:
        return [message for _, message in list(device.link.sent) if message.topic == "axond/v1/d1/up/metrics"]

    eventually(lambda: len(metrics()) > 2, "metrics come again and again")
    numbers = json.loads(metrics()[-1].payload)
    assert numbers["cpu"] == 0.5
    assert (numbers["ledger_kw_produced"], numbers["ledger_kw_pending"]) == (1, 1)
    assert all(isinstance(number, int | float) for number in numbers.values())
    assert metrics()[-1].properties["boot"] == "b1"


def test_no_more_than_the_window_is_under_way(device: Device) -> None:
    for number in range(WINDOW + 10):
        device.put(1, f"s{number}")
    eventually(lambda: device.uplink.state().in_flight == WINDOW, "window full")

    def batches() -> int:
        return sum("/res/" in message.topic for _, message in device.link.sent)

    assert batches() == WINDOW
    device.acknowledge("s0", upto=1)
    eventually(lambda: batches() == WINDOW + 1, "one more")
    assert device.uplink.state().in_flight == WINDOW


def test_the_window_of_the_broker_counts_what_it_has_not_answered(tmp_path: Path, running: Start) -> None:
    link = ListLink(receive_max=3)
    link.mute = True
    device = Device(tmp_path, link, running)
    for number in range(10):
        device.outbox.put(f"s{number}", {"n": 1}, priority=Priority.NORMAL)
    eventually(lambda: link.sent, "something sent")
    assert not device.outbox.wait_drained(0.5)
    assert len(link.sent) <= 3


def test_a_nack_rewinds_in_order_and_once(device: Device) -> None:
    device.put(5)
    device.wait_sent(5)
    for _ in range(3):  # the hub answers each message after the lost one
        device.acknowledge(upto=1, nack=True)
    batches = device.wait_sent(9)
    assert [batch.seq0 for batch in batches] == [1, 2, 3, 4, 5, 2, 3, 4, 5]
    device.acknowledge(upto=5)
    assert device.outbox.wait_drained(10)
    assert device.uplink.state().rewinds == 1
    assert len(device.batches()) == 9


def test_a_retained_nack_is_old(device: Device) -> None:
    device.put(2)
    device.wait_sent(2)
    device.acknowledge(upto=0, nack=True, retain=True)
    device.acknowledge(upto=2)
    assert device.outbox.wait_drained(10)
    assert device.uplink.state().rewinds == 0


def test_a_hub_that_lost_its_store_is_told_what_it_will_never_get(device: Device) -> None:
    device.put(3)
    device.wait_sent(3)
    device.acknowledge(upto=2)
    eventually(lambda: device.outbox.depth().rows == 1, "two freed")
    device.acknowledge(upto=0, nack=True)
    batches = device.wait_sent(5)[3:]
    assert [(batch.seq0, batch.seq1, batch.cause) for batch in batches] == [(1, 2, "delivered before"), (3, 3, "")]
    device.acknowledge(upto=3)
    assert device.outbox.wait_drained(10)


def test_a_rejected_batch_becomes_a_gap_and_the_stream_goes_on(device: Device) -> None:
    device.put(3)
    device.wait_sent(3)
    device.acknowledge(upto=1, reject={"seq": [2, 2], "reason": "bad batch"})
    batches = device.wait_sent(4)[3:]
    assert [(batch.seq0, batch.cause) for batch in batches] == [(2, "rejected by the hub")]
    device.acknowledge(upto=3)
    assert device.outbox.wait_drained(10)
    counts = device.outbox.ledger()["b1", "kw"]
    assert (counts.delivered, counts.evicted) == (2, 1)


def test_silence_of_the_hub_rewinds_again_and_again_later(tmp_path: Path, running: Start) -> None:
    device = Device(tmp_path, ListLink(), running, stall_first_s=0.3)
    device.put(1)
    device.wait_sent(4)
    assert device.uplink.state().rewinds >= 3
    assert "hub acknowledges nothing" in str(device.uplink.state().error)
    device.acknowledge(upto=1)
    assert device.outbox.wait_drained(10)
    eventually(lambda: device.uplink.state().error is None, "trouble over")


def test_a_refusing_broker_is_waited_for(tmp_path: Path, running: Start) -> None:
    link = ListLink()
    link.code = 0x97
    device = Device(tmp_path, link, running)
    device.put(1)
    device.wait_sent(1)
    eventually(lambda: "refuses results" in str(device.uplink.state().error), "said")
    link.code = 0
    assert [batch.seq0 for batch in device.wait_sent(2)] == [1, 1]
    device.acknowledge(upto=1)
    assert device.outbox.wait_drained(10)


def test_a_broker_that_never_answers_is_left(tmp_path: Path, running: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Trap 2 of paho: its thread may be dead while the connection looks alive."""
    link = ListLink()
    link.mute = True
    device = Device(tmp_path, link, running, silent_s=0.5)
    eventually(lambda: len(link.births) >= 2, "connects anew")
    assert "has not acknowledged a message for 0.5 s" in caplog.text
    link.mute = False
    device.put(1)
    device.wait_sent(1)
    eventually(lambda: device.uplink.state().connected, "connected")


def test_a_new_connection_starts_from_the_oldest(device: Device) -> None:
    device.put(3)
    device.wait_sent(3)
    device.link.post(Disconnected("gone"))
    assert [batch.seq0 for batch in device.wait_sent(6)] == [1, 2, 3, 1, 2, 3]
    device.acknowledge(upto=3)
    assert device.outbox.wait_drained(10)


def test_the_first_failure_is_loud_and_the_recovery_has_its_length(
    tmp_path: Path, running: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "agent.uplink")
    link = ListLink()
    device = Device(tmp_path, link, running)
    for attempt in range(1, 4):
        eventually(lambda attempt=attempt: len(link.births) >= attempt, "attempt")  # type: ignore[misc]
        eventually(lambda: device.uplink.state().connected, "connected")
        link.post(Disconnected("cannot reach broker x:1883: refused"))
        eventually(lambda: not device.uplink.state().connected, "gone")
    records = [record for record in caplog.records if "cannot reach" in record.getMessage()]
    assert {record.levelname for record in records} == {"WARNING"}, (
        "each outage is new, because it was connected between"
    )
    assert any("connected again after" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{", b'{"boot":1,"upto":1}', b'{"boot":"b1","upto":"1"}', b'{"boot":"b1","upto":true}', b"\xff"],
)
def test_strange_acknowledgements_do_nothing(device: Device, payload: bytes) -> None:
    device.put(1)
    device.wait_sent(1)
    device.link.post(Received("axond/v1/d1/down/ack/kw", payload))
    device.link.post(Received("axond/v1/d1/down/else", b"x"))
    device.acknowledge(upto=1)
    assert device.outbox.wait_drained(10)


def test_with_a_brokers_word_enough_rows_go_at_puback(tmp_path: Path, running: Start) -> None:
    device = Device(tmp_path, ListLink(), running, ack="broker")
    device.put(3)
    assert device.outbox.wait_drained(10)
    assert device.uplink.state().delivered == 3


def test_with_a_brokers_word_enough_a_message_to_nobody_is_kept(tmp_path: Path, running: Start) -> None:
    link = ListLink()
    link.code = NO_SUBSCRIBERS
    device = Device(tmp_path, link, running, ack="broker")
    device.put(1)
    device.wait_sent(1)
    assert not device.outbox.wait_drained(0.3)
    link.code = 0
    assert device.outbox.wait_drained(10)


def test_it_sends_within_milliseconds(device: Device) -> None:
    eventually(lambda: device.uplink.state().connected, "connected")
    waits = []
    for number in range(20):
        begun_s = time.monotonic()
        device.outbox.put("kw", {"n": number}, priority=Priority.ALARM)
        device.wait_sent(number + 1)
        waits.append(time.monotonic() - begun_s)
    assert sorted(waits)[10] < 0.1
