"""The traps of the uplink, each with a test that falls into it if the code does. Where each one is:

paho: a lock around publish() and in on_publish deadlocks
    test_mqtt: many_messages_from_another_thread_do_not_deadlock
paho: an exception in a callback ends its thread, is_connected() stays true
    test_mqtt: an_exception_in_a_callback_does_not_end_the_network_thread
    test_uplink: a_broker_that_never_answers_is_left; test_uplink_hub: a_broker_that_hangs_is_left_and_found_again
paho: an in-flight window of 1000 is half as fast as 100
    test_uplink: no_more_than_the_window_is_under_way
paho: ReceiveMaximum is ignored
    test_mqtt: the_window_of_the_broker_is_told; here: a_broker_with_a_small_window_is_not_overrun
paho: a topic alias and a reconnect are protocol errors
    test_mqtt: no_topic_alias_is_used
paho: publish() that says NO_CONN has queued the message
    test_mqtt: what_was_sent_into_a_dead_connection_is_not_repeated_by_paho
a PUBACK is not delivery, the broker drops
    here: what_the_broker_acknowledges_and_drops; test_uplink_hub: a_hub_that_is_away_loses_nothing
delete on PUBACK loses with kill -9
    here: a_broker_killed_with_what_it_had_acknowledged, a_device_killed_again_and_again, with_ack_broker
MQTT 3.1.1 acknowledges what an access rule denies
    here: a_forbidden_publish_over_3_1_1_frees_nothing
SUBACK grants what an access rule denies
    here: a_broker_that_lets_no_watermark_through_is_a_sentence
dots and blanks in topic levels
    here: every_topic_level_is_made_of_harmless_letters
two clients of one name throw each other out
    test_mqtt: who_is_thrown_out_by_another_with_its_name_is_told
an old broker does not speak MQTT 5
    test_mqtt_versions
"""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from agent.ledger import Counts
from agent.link import Acked, Birth, Connected, Event, Message
from agent.mqtt import Broker, PahoLink
from agent.outbox import Outbox
from agent.outbox_group import Queued
from agent.record import Priority
from agent.topics import Topics
from agent.uplink import Uplink
from agent.wire import encode_gap
from tests.agent.raw_hub import RawHub
from tests.agent.test_uplink import Device
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually
from tests.contract.links import ListLink

Start = Callable[[Any], Running]
Brokers = Callable[..., Mosquitto]


@pytest.fixture
def hub_at() -> Iterator[Callable[..., RawHub]]:
    with ExitStack() as stack:

        def start(broker: Mosquitto, **options: Any) -> RawHub:
            hub = RawHub(broker.port, **options).start()
            stack.callback(hub.stop)
            return hub

        yield start


def at(broker: Mosquitto, **access: Any) -> Broker:
    return Broker(broker.host, broker.port, **access)


def wired(folder: Path, link: PahoLink, running: Start, **options: Any) -> tuple[Outbox, Uplink]:
    outbox = Outbox(folder / "o.db", boot="b1")
    running(outbox)
    assert outbox.opened.wait(10)
    named = {"info": dict, "metrics": dict, "agent_version": "0", "stall_first_s": 0.5, **options}
    uplink = Uplink(outbox, link, "d1", **named)
    running(uplink)
    return outbox, uplink


def alarms(outbox: Outbox, count: int) -> None:
    """A batch each."""
    for number in range(count):
        outbox.put("kw", {"n": number}, priority=Priority.ALARM)
        eventually(lambda: not outbox.unwritten, "stored")


def test_what_the_broker_acknowledges_and_drops_is_why_a_puback_is_not_delivery(
    broker: Mosquitto, hub_at: Callable[..., RawHub]
) -> None:
    """mosquitto as it is installed: 1 500 messages are acknowledged, 1 000 are kept for who is away."""
    away = hub_at(broker, persistent=True)
    eventually(lambda: "Sending SUBACK to rawhub" in broker.log.read_text("utf-8", "replace"), "subscribed")
    away.stop()
    link, events = PahoLink(at(broker), "d1"), SimpleQueue[Event]()
    link.start(events, Birth(), None)
    assert isinstance(events.get(timeout=20), Connected)
    topic, answered = Topics("axond/v1", "d1").results("kw"), 0
    for seq in range(1, 1501):
        link.send(seq, Message(topic, encode_gap("b1", "kw", seq, seq, "made")))
        if seq >= 100:  # as many under way as a device has
            answer = events.get(timeout=20)
            assert isinstance(answer, Acked) and answer.code == 0
            answered += 1
    while answered < 1500:
        answer = events.get(timeout=20)
        assert isinstance(answer, Acked) and answer.code == 0
        answered += 1
    link.stop()
    back = hub_at(broker, persistent=True)
    marker, marker_events = PahoLink(at(broker), "d2"), SimpleQueue[Event]()
    eventually(lambda: len(back.batches) >= 900, "what was kept arrives")
    marker.start(marker_events, Birth(), None)
    assert isinstance(marker_events.get(timeout=20), Connected)
    marker.send(1, Message(Topics("axond/v1", "d2").results("end"), encode_gap("b1", "end", 1, 1, "made")))
    eventually(lambda: any(batch.stream == "end" for _, batch in back.batches), "and after it the end")
    marker.stop()
    kept = sum(batch.stream == "kw" for _, batch in back.batches)
    assert 1000 <= kept < 1500, f"{1500 - kept} of 1500 acknowledged messages are gone"


def test_a_broker_killed_with_what_it_had_acknowledged_loses_nothing(
    tmp_path: Path, running: Start, broker: Mosquitto, hub_at: Callable[..., RawHub]
) -> None:
    away = hub_at(broker, persistent=True)
    eventually(lambda: "Sending SUBACK to rawhub" in broker.log.read_text("utf-8", "replace"), "subscribed")
    away.stop()
    outbox, uplink = wired(tmp_path, PahoLink(at(broker), "d1"), running, stall_first_s=30.0)
    alarms(outbox, 50)
    eventually(lambda: uplink.state().in_flight == 50 and not uplink._flight.unanswered, "the broker has them")
    broker.kill()
    broker.start()
    hub = hub_at(broker)
    assert outbox.wait_drained(30)
    assert hub.numbers() == list(range(1, 51)) and not hub.missing


def test_with_ack_broker_a_killed_broker_takes_what_it_had(
    tmp_path: Path, running: Start, broker: Mosquitto, hub_at: Callable[..., RawHub]
) -> None:
    """What the documentation of ``ack = "broker"`` says that it is worth."""
    away = hub_at(broker, persistent=True)
    eventually(lambda: "Sending SUBACK to rawhub" in broker.log.read_text("utf-8", "replace"), "subscribed")
    away.stop()
    outbox, _ = wired(tmp_path, PahoLink(at(broker), "d1"), running, ack="broker")
    alarms(outbox, 50)
    assert outbox.wait_drained(10), "freed at PUBACK"
    broker.kill()
    broker.start()
    hub = hub_at(broker, persistent=True)
    alarms(outbox, 1)
    eventually(hub.numbers, "the next one arrives")
    assert hub.numbers() == [51]


DEVICE = """
import sys, threading
from pathlib import Path
from agent.mqtt import Broker, PahoLink
from agent.outbox import Outbox
from agent.record import Priority
from agent.uplink import Uplink

outbox = Outbox(Path(sys.argv[1]), boot=sys.argv[3])
uplink = Uplink(outbox, PahoLink(Broker("127.0.0.1", int(sys.argv[2])), "d1"), "d1", info=dict, metrics=dict,
                agent_version="0", stall_first_s=0.5)
stop = threading.Event()
for worker in (outbox, uplink):
    threading.Thread(target=worker.run, args=(stop, lambda: None), daemon=True).start()
outbox.opened.wait(10)
pause = threading.Event()
for number in range(10**9):
    outbox.put("kw", {"n": number}, priority=Priority.ALARM)
    pause.wait(0.002)
"""


def test_a_device_killed_again_and_again_loses_nothing_that_it_had_stored(
    tmp_path: Path, running: Start, broker: Mosquitto, hub_at: Callable[..., RawHub]
) -> None:
    hub, path = hub_at(broker), tmp_path / "o.db"
    for boot in ("k1", "k2", "k3"):
        command = [sys.executable, "-c", DEVICE, str(path), str(broker.port), boot]
        with subprocess.Popen(command) as device:
            try:
                eventually(lambda boot=boot: len(hub.numbers(boot)) > 100, "results arrive")  # type: ignore[misc]
            finally:
                device.send_signal(signal.SIGKILL)
    outbox, _ = wired(tmp_path, PahoLink(at(broker), "d1"), running)
    assert outbox.wait_drained(30)
    for boot in ("k1", "k2", "k3"):
        numbers = hub.numbers(boot)
        counts = outbox.ledger()[boot, "kw"]
        assert numbers == list(range(1, len(numbers) + 1)), "no holes"
        assert counts.balanced() and counts.produced == len(numbers)
    assert not hub.missing


def test_a_broker_with_a_small_window_is_not_overrun(
    tmp_path: Path, running: Start, make_broker: Brokers, hub_at: Callable[..., RawHub]
) -> None:
    broker = make_broker(extra="max_inflight_messages 2")
    hub = hub_at(broker)
    outbox, uplink = wired(tmp_path, PahoLink(at(broker), "d1"), running)
    alarms(outbox, 60)
    assert outbox.wait_drained(30)
    assert hub.numbers() == list(range(1, 61))
    assert uplink.state().connected
    connects = re.findall(r"New client connected from \S+ as d1 ", broker.log.read_text("utf-8", "replace"))
    assert len(connects) == 1, "a device that oversteps the window is thrown out"


def test_a_forbidden_publish_over_3_1_1_frees_nothing(tmp_path: Path, running: Start, make_broker: Brokers) -> None:
    broker = make_broker(acl="topic read axond/#\ntopic write axond/v1/d1/up/status\ntopic write axond/v1/d1/up/info\n")
    link = PahoLink(at(broker), "d1")
    link._old.add(at(broker))
    outbox, uplink = wired(tmp_path, link, running)
    alarms(outbox, 3)
    eventually(lambda: "acknowledges nothing" in str(uplink.state().error), "said")
    assert uplink.state().mqtt == "3.1.1"
    assert outbox.depth().rows == 3
    forbidden = re.findall(r"Denied PUBLISH from d1", broker.log.read_text("utf-8", "replace"))
    assert len(forbidden) >= 3, "the broker has refused them and acknowledged them all the same"


def test_a_broker_that_lets_no_watermark_through_is_a_sentence(
    tmp_path: Path, running: Start, make_broker: Brokers, hub_at: Callable[..., RawHub]
) -> None:
    broker = make_broker(acl="topic write axond/#\ntopic read axond/+/+/up/#\n")
    hub = hub_at(broker)
    outbox, uplink = wired(tmp_path, PahoLink(at(broker), "d1"), running)
    alarms(outbox, 3)
    eventually(lambda: "the hub acknowledges nothing" in str(uplink.state().error), "said")
    assert outbox.depth().rows == 3 and hub.numbers() == [1, 2, 3], "kept, although the hub has them"


def test_every_topic_level_is_made_of_harmless_letters(
    tmp_path: Path, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = ListLink()
    device = Device(tmp_path, link, running, metrics_interval_s=0.1)
    for bad in ("a.b", "a b", "A", "a/b", "a+", "#", "$x", "ü", ""):
        device.outbox.put(bad, {"n": 1})
    device.put(1, "a-b_9")
    device.uplink.show([Queued("a-b_9", {"n": 1}, 1, 0)])
    monkeypatch.setattr(device.outbox, "ledger", lambda: {("b1", "a-b_9"): Counts(produced=2, pending=1)})
    kinds = ("res", "live", "metrics", "event")

    def topics() -> set[str]:
        births = {message.topic for birth in link.births for message in birth.messages}
        deaths = {death.message.topic for death in link.deaths if death}
        return births | deaths | {message.topic for _, message in list(link.sent)}

    eventually(lambda: all(any(f"/up/{kind}" in topic for topic in topics()) for kind in kinds), "one of each kind")
    assert all(re.fullmatch(r"[a-z0-9_-]+(/[a-z0-9_-]+)*", topic) for topic in topics()), topics()
