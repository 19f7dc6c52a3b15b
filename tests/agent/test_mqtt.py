"""The traps of paho-mqtt, each with the real paho against a real broker."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent import mqtt_connection
from agent.link import NO_SUBSCRIBERS, Acked, Birth, Connected, Death, Disconnected, Event, Message, Received
from agent.mqtt import Broker, PahoLink
from agent.mqtt_client import BurstClient
from tests.brokers import Mosquitto
from tests.conftest import eventually

Make = Callable[..., tuple[PahoLink, "SimpleQueue[Event]"]]


@pytest.fixture
def connect() -> Iterator[Make]:
    """Starts a link to a broker; returns it with its events."""
    with ExitStack() as stack:

        def start(
            broker: Broker,
            name: str = "d1",
            birth: Birth | None = None,
            death: Death | None = None,
            manual_ack: bool = False,
        ) -> tuple[PahoLink, "SimpleQueue[Event]"]:
            link, events = PahoLink(broker, name, manual_ack=manual_ack), SimpleQueue[Event]()
            stack.callback(link.stop)
            link.start(events, birth or Birth(), death)
            return link, events

        yield start


def at(broker: Mosquitto) -> Broker:
    return Broker(broker.host, broker.port)


def take(events: "SimpleQueue[Event]", kind: type[Event], deadline_s: float = 20.0) -> Event:
    end_s = time.monotonic() + deadline_s
    while (left_s := end_s - time.monotonic()) > 0:
        try:
            event = events.get(timeout=left_s)
        except Empty:
            break
        if isinstance(event, kind):
            return event
        assert not isinstance(event, Disconnected), event
    pytest.fail(f"no {kind.__name__} within {deadline_s} s")


def test_many_messages_from_another_thread_do_not_deadlock(broker: Mosquitto, connect: Make) -> None:
    """Trap 1: paho holds its lock in on_publish; a lock of ours around publish would wait for it, and it for ours."""
    link, events = connect(at(broker))
    take(events, Connected)

    def send(first: int) -> None:
        for seq in range(first, first + 2000):
            link.send(seq, Message("t/a", b"x" * 50))

    senders = [Thread(target=send, args=(first,)) for first in (1, 2001)]
    for sender in senders:
        sender.start()
    answered = set()
    for _ in range(4000):
        answer = take(events, Acked)
        assert isinstance(answer, Acked)
        answered.add(answer.seq)
    for sender in senders:
        sender.join()
    assert answered == set(range(1, 4001))


def test_an_exception_in_a_callback_does_not_end_the_network_thread(
    broker: Mosquitto, connect: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 2: an exception in a callback would kill paho's thread while is_connected() stays true."""
    link, events = connect(at(broker), birth=Birth(("t/in",)))
    take(events, Connected)

    class Failing(Exception):
        pass

    failures: list[int] = []

    def fail(*_: object) -> None:
        failures.append(1)
        raise Failing

    assert link._connection is not None
    client = link._connection.client
    monkeypatch.setattr(client, "on_publish", fail)
    monkeypatch.setattr(client, "on_message", fail)
    link.send(1, Message("t/in", b"lost"))
    other, other_events = connect(at(broker), "d2", birth=Birth(("t/in", "t/out")))
    take(other_events, Connected)
    other.send(1, Message("t/in", b"lost too"))
    take(other_events, Received)
    eventually(lambda: len(failures) == 3, "callbacks failed for one answer and two messages")
    monkeypatch.undo()
    other.send(2, Message("t/in", b"heard"))
    heard = take(events, Received)
    assert isinstance(heard, Received) and heard.payload == b"heard"
    link.send(2, Message("t/out", b"x"))
    assert isinstance(take(events, Acked), Acked)


def test_the_window_of_the_broker_is_told(make_broker: Callable[..., Mosquitto], connect: Make) -> None:
    """Trap 4: paho ignores ReceiveMaximum. The link tells it, and keeps to it with its birth."""
    broker = make_broker(extra="max_inflight_messages 1")
    births = tuple(Message(f"t/{number}", b"x") for number in range(5))
    _, events = connect(at(broker), birth=Birth((), births))
    connected = take(events, Connected)
    assert isinstance(connected, Connected) and connected.receive_max == 1


def test_no_topic_alias_is_used(broker: Mosquitto, connect: Make) -> None:
    """Trap 5: a topic alias does not survive a reconnect; each publish names its topic."""
    topics = [f"t/{number}" for number in range(20)]
    _, heard = connect(at(broker), "listener", birth=Birth(("t/+",)))
    take(heard, Connected)
    for _ in range(2):
        link, events = connect(at(broker))
        take(events, Connected)
        for seq, topic in enumerate(topics, 1):
            link.send(seq, Message(topic, b"x"))
        received = [take(heard, Received) for _ in topics]
        assert [message.topic for message in received if isinstance(message, Received)] == topics
        link.stop()


def test_what_was_sent_into_a_dead_connection_is_not_repeated_by_paho(broker: Mosquitto, connect: Make) -> None:
    """Trap 6: publish() that returns NO_CONN has queued the message; the next connection must not send it."""
    link, events = connect(at(broker))
    take(events, Connected)
    broker.kill()
    assert isinstance(events.get(timeout=20), Disconnected)
    for seq in range(1, 20):
        link.send(seq, Message("t/a", b"stale"))
    broker.start()
    _, heard = connect(at(broker), "listener", birth=Birth(("t/+",)))
    take(heard, Connected)
    link.start(events, Birth(), None)
    take(events, Connected)
    link.send(100, Message("t/a", b"fresh"))
    message = take(heard, Received)
    assert isinstance(message, Received) and message.payload == b"fresh"
    answer = take(events, Acked)
    assert isinstance(answer, Acked) and answer.seq == 100


def test_nobody_listening_is_told(broker: Mosquitto, connect: Make) -> None:
    link, events = connect(at(broker))
    take(events, Connected)
    link.send(1, Message("t/nobody", b"x"))
    answer = take(events, Acked)
    assert isinstance(answer, Acked) and answer.code == NO_SUBSCRIBERS


def test_a_refused_publish_has_its_reason(make_broker: Callable[..., Mosquitto], connect: Make) -> None:
    broker = make_broker(acl="topic readwrite allowed/#\n")
    link, events = connect(at(broker))
    take(events, Connected)
    link.send(1, Message("forbidden/a", b"x"))
    answer = take(events, Acked)
    assert isinstance(answer, Acked) and answer.code == 0x87


def test_stop_is_quick_even_if_the_broker_hangs(broker: Mosquitto, connect: Make) -> None:
    link, events = connect(at(broker))
    take(events, Connected)
    broker.freeze()
    for seq in range(1, 400):  # more than the socket's buffers hold
        link.send(seq, Message("t/a", b"x" * 100_000))
    begun_s = time.monotonic()
    link.stop()
    assert time.monotonic() - begun_s < 2.0
    broker.thaw()


def test_stop_is_quick_while_it_still_connects(connect: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link, events = connect(Broker("127.0.0.1", silent.getsockname()[1]))
        begun_s = time.monotonic()
        link.stop()
        assert time.monotonic() - begun_s < 2.0
        assert events.empty()


def test_a_server_that_is_no_broker_is_a_sentence(connect: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        _, events = connect(Broker("127.0.0.1", server.getsockname()[1]))
        client, _ = server.accept()
        client.close()
        answer = events.get(timeout=20)
    assert isinstance(answer, Disconnected) and "is it an MQTT broker?" in answer.sentence


@pytest.mark.parametrize(
    ("birth", "sentence"),
    [
        (Birth(subscriptions=("a/b",)), "did not confirm the subscription"),
        (Birth(messages=(Message("a/b", b"{}"),)), "did not acknowledge the birth message"),
    ],
)
def test_a_broker_that_says_hello_and_no_more_is_a_sentence(
    connect: Make, monkeypatch: pytest.MonkeyPatch, birth: Birth, sentence: str
) -> None:
    monkeypatch.setattr(mqtt_connection, "CONNACK_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        _, events = connect(Broker("127.0.0.1", server.getsockname()[1]), birth=birth)
        client, _ = server.accept()
        with client:
            client.recv(4096)
            client.sendall(bytes([0x20, 3, 0, 0, 0]))  # CONNACK, MQTT 5, success, no properties
            answer = events.get(timeout=20)
    assert isinstance(answer, Disconnected) and sentence in answer.sentence


def test_a_filter_that_mqtt_does_not_know_is_a_sentence(broker: Mosquitto, connect: Make) -> None:
    _, events = connect(at(broker), birth=Birth(subscriptions=("a/#/b",)))
    answer = events.get(timeout=20)
    assert isinstance(answer, Disconnected) and "subscription" in answer.sentence


def test_the_password_is_read_from_its_file(
    make_broker: Callable[..., Mosquitto], connect: Make, tmp_path: Path
) -> None:
    broker = make_broker(users={"d1": "right"})
    password = tmp_path / "password"
    password.write_text("wrong\n")
    access = Broker(broker.host, broker.port, username="d1", password_file=password)
    link, events = connect(access)
    answer = events.get(timeout=20)
    assert isinstance(answer, Disconnected)
    assert "check username and password_file" in answer.sentence
    password.write_text("right\n")
    link.start(events, Birth(), None)
    assert isinstance(events.get(timeout=20), Connected)
    password.unlink()
    link.start(events, Birth(), None)
    answer = events.get(timeout=20)
    assert isinstance(answer, Disconnected) and str(password) in answer.sentence


def test_the_will_is_left_with_the_broker(broker: Mosquitto, connect: Make) -> None:
    _, heard = connect(at(broker), "listener", birth=Birth(("t/will",)))
    take(heard, Connected)
    link, events = connect(at(broker), death=Death(Message("t/will", b"lost"), delay_s=0))
    take(events, Connected)
    connection = link._connection
    assert connection is not None
    connection._shut()
    message = take(heard, Received)
    assert isinstance(message, Received) and message.payload == b"lost"


def test_who_is_thrown_out_by_another_with_its_name_is_told(broker: Mosquitto, connect: Make) -> None:
    _, first = connect(at(broker), "same")
    take(first, Connected)
    _, second = connect(at(broker), "same")
    take(second, Connected)
    answer = first.get(timeout=20)
    assert isinstance(answer, Disconnected) and f"connection to {at(broker)}" in answer.sentence


def test_a_message_that_waits_for_our_acknowledgement_is_never_dropped(
    broker: Mosquitto, connect: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unacknowledged it would keep its place in the broker's window for as long as the connection lasts."""
    monkeypatch.setattr("agent.mqtt_connection.MAX_INCOMING", 5)
    link, events = connect(at(broker), birth=Birth(("t/in",)), manual_ack=True)
    take(events, Connected)
    other, other_events = connect(at(broker), "d2")
    take(other_events, Connected)
    for seq in range(1, 21):
        other.send(seq, Message("t/in", b"loose", qos=0))
    connection = link._connection
    assert connection is not None
    eventually(lambda: connection.dropped == 15, "what nobody takes is dropped and counted")
    for seq in range(21, 31):
        other.send(seq, Message("t/in", b"held"))
    eventually(lambda: events.qsize() == 15, "these wait, however many there are")
    assert connection.dropped == 15


def test_events_are_bounded(broker: Mosquitto, connect: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.mqtt_connection.MAX_INCOMING", 5)
    link, events = connect(at(broker), birth=Birth(("t/in",)))
    take(events, Connected)
    other, other_events = connect(at(broker), "d2")
    take(other_events, Connected)
    for seq in range(1, 21):
        other.send(seq, Message("t/in", b"x"))
    connection = link._connection
    assert connection is not None
    eventually(lambda: connection.dropped == 15, "what nobody takes is dropped and counted")
    assert events.qsize() == 5
    link.stop()
    assert link.dropped == 15


def test_a_connection_that_was_never_served_is_closed() -> None:
    """As one that is stopped while it connects: else it stays open until the garbage is collected."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = BurstClient(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", server.getsockname()[1])
        peer, _ = server.accept()
        with peer:
            peer.settimeout(5)
            client.finish()
            assert peer.recv(1) == b""
