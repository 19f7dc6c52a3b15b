"""What axond does instead of paho: packets in any pieces, the properties of messages, answers that may wait."""

import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from queue import SimpleQueue
from threading import Thread
from typing import Any
from unittest.mock import ANY

import pytest

from agent import mqtt_client
from agent.hub.answers import PATIENCE_S
from agent.link import FEW, GATHER_S, Acked, Birth, Connected, Disconnected, Event, Message, Received
from agent.mqtt import Broker, PahoLink
from agent.uplink_flight import GATHERED_S, SLOW_S
from tests.brokers import Mosquitto

CONTENT_TYPE = b"\x03\x00\x10application/json"
USER = b"\x26\x00\x04boot\x00\x02b1"
LONG = b"\x26\x00\x04note" + struct.pack(">H", 200) + b"n" * 200


class Script:
    """A broker that takes one client, says what it is told in pieces, and keeps what it hears."""

    def __init__(self, say: bytes, piece: int, *, answer: bool = False, receive_max: int = 65535) -> None:
        """``answer``: each message of QoS 1 is acknowledged."""
        self._say, self._piece, self._answer = say, piece, answer
        self._connack = b"\x20\x06\x00\x00\x03\x21" + struct.pack(">H", receive_max)
        self.heard: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.close()
        self._thread.join(10)

    def _run(self) -> None:
        try:
            client, _ = self._server.accept()
            with client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                stream = client.makefile("rb")
                self._packet(stream)
                client.sendall(self._connack)
                for at in range(0, len(self._say), self._piece):
                    client.sendall(self._say[at : at + self._piece])
                while True:
                    kind, body = self._packet(stream)
                    self.heard.put((kind, body))
                    if kind == 0x30 and self._answer:
                        size = int.from_bytes(body[:2], "big")
                        client.sendall(b"\x40\x02" + body[2 + size : 4 + size])
        except (OSError, IndexError):  # the client went away
            return

    @staticmethod
    def _packet(stream: Any) -> tuple[int, bytes]:
        head, size, shift = stream.read(1)[0], 0, 0
        while True:
            byte = stream.read(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return head & 0xF0, stream.read(size)


def publish(topic: str, payload: bytes, *, mid: int = 0, properties: bytes = b"", retain: bool = False) -> bytes:
    """A PUBLISH of MQTT 5; QoS 1 with ``mid``."""
    ids = struct.pack(">H", mid) if mid else b""
    body = struct.pack(">H", len(topic)) + topic.encode() + ids + length(len(properties)) + properties + payload
    return bytes([0x30 | 2 * bool(mid) | retain]) + length(len(body)) + body


def length(count: int) -> bytes:
    return bytes([count]) if count < 128 else bytes([count & 127 | 128, count >> 7])


@pytest.fixture
def listen() -> Iterator[Callable[..., tuple[Script, PahoLink, "SimpleQueue[Event]"]]]:
    with ExitStack() as stack:

        def start(say: bytes, piece: int = 1 << 20, **options: Any) -> tuple[Script, PahoLink, "SimpleQueue[Event]"]:
            broker = stack.enter_context(closing(Script(say, piece, **options)))
            link, events = PahoLink(Broker("127.0.0.1", broker.port), "d1"), SimpleQueue[Event]()
            stack.callback(link.stop)
            link.start(events, Birth(), None)
            return broker, link, events

        yield start


def messages(events: "SimpleQueue[Event]", count: int) -> list[Received]:
    found = []
    while len(found) < count:
        event = events.get(timeout=20)
        assert not isinstance(event, Disconnected), event
        if isinstance(event, Received):
            found.append(event)
    return found


SAID = [
    publish("t/a", b"one", mid=7, properties=CONTENT_TYPE + USER),
    publish("t/b", b"", retain=True),
    publish("t/c", b"x" * 300, mid=8),
    publish("t/d", b"long", mid=9, properties=USER + LONG),
    b"\xd0\x00",
    publish("t/a", b"two", mid=10, properties=CONTENT_TYPE + USER),
]
HEARD = [
    ("t/a", b"one", False, 7, 1, {"boot": "b1"}),
    ("t/b", b"", True, 0, 0, {}),
    ("t/c", b"x" * 300, False, 8, 1, {}),
    ("t/d", b"long", False, 9, 1, {"boot": "b1", "note": "n" * 200}),
    ("t/a", b"two", False, 10, 1, {"boot": "b1"}),
]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 20])
def test_packets_come_in_any_pieces(piece: int, listen: Callable[..., Any]) -> None:
    broker, _, events = listen(b"".join(SAID), piece)
    got = messages(events, len(HEARD))
    assert [(m.topic, m.payload, m.retain, m.mid, m.qos, dict(m.properties)) for m in got] == HEARD
    acknowledged = [broker.heard.get(timeout=20) for _ in range(4)]
    assert acknowledged == [(0x40, struct.pack(">H", mid)) for mid in (7, 8, 9, 10)]


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\x03t/a\x05\x26\x00\x04bo",  # a property that ends in the middle
        b"\x00\x03t/a\x02\xee\x00",  # an unknown one
        b"\x00\x03t/a\x7f",  # more than there is
        b"\x00\xfft/a",  # a topic that is longer than the packet
        b"\x00",
    ],
)
def test_a_malformed_message_ends_the_connection_with_a_sentence(body: bytes, listen: Callable[..., Any]) -> None:
    _, _, events = listen(bytes([0x30, len(body)]) + body)
    while not isinstance(event := events.get(timeout=20), Disconnected):
        assert isinstance(event, Connected)
    assert event.sentence.endswith("lost: Protocol error")


def test_whoever_sends_much_is_answered_at_once(listen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to a little may wait for each other, here for a minute."""
    monkeypatch.setattr(mqtt_client, "GATHER_S", 60.0)
    _, link, events = listen(b"", answer=True)
    assert isinstance(events.get(timeout=20), Connected)
    assert link._connection is not None
    client = link._connection.client
    with monkeypatch.context() as asleep:
        asleep.setattr(client, "_wake", lambda: None)
        for seq in range(1, FEW + 2):
            link.send(seq, Message("t/a", b"x"))
    client._wake()
    seen = set()
    while len(seen) < FEW + 1:
        event = events.get(timeout=20)
        assert isinstance(event, Acked)
        seen.add(event.seq)


def test_the_answer_to_a_little_comes_after_a_moment(listen: Callable[..., Any]) -> None:
    _, link, events = listen(b"", answer=True)
    assert isinstance(events.get(timeout=20), Connected)
    for seq in (1, 2):
        link.send(seq, Message("t/a", b"x"))
        assert events.get(timeout=20) == Acked(seq)


def test_whoever_is_awake_to_write_hears_what_has_come(
    listen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A steady flow of a few messages needs no wake-up for their answers."""
    monkeypatch.setattr(mqtt_client, "GATHER_S", 60.0)
    _, link, events = listen(b"", answer=True)
    assert isinstance(events.get(timeout=20), Connected)
    assert link._connection is not None
    link.send(1, Message("t/a", b"x"))
    assert select.select([link._connection.client.socket()], [], [], 20)[0], "the answer is there, and not heard"
    link.send(2, Message("t/a", b"x"))
    assert events.get(timeout=20) == Acked(1)


def test_a_broker_that_takes_one_message_at_a_time_is_not_made_slow(
    listen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_client, "GATHER_S", 60.0)
    _, link, events = listen(b"", answer=True, receive_max=1)
    assert events.get(timeout=20) == Connected(1, ANY, "5")
    for seq in (1, 2):
        link.send(seq, Message("t/a", b"x"))
        assert events.get(timeout=20) == Acked(seq)


def test_a_message_without_acknowledgement_never_counts_as_one(listen: Callable[..., Any]) -> None:
    """paho reports that it was written, with a number that a later message of QoS 1 gets as well."""
    _, link, events = listen(b"", answer=True)
    assert isinstance(events.get(timeout=20), Connected)
    for _ in range(50):
        link.send(1, Message("t/live", b"x", qos=0))
    link.send(2, Message("t/a", b"x"))
    assert events.get(timeout=20) == Acked(2)
    assert link._connection is not None
    assert not link._connection._early


def test_a_packet_of_no_type_ends_the_connection(listen: Callable[..., Any]) -> None:
    _, _, events = listen(b"\x00\x02\x00\x01" + SAID[0])
    while not isinstance(event := events.get(timeout=20), Disconnected):
        assert isinstance(event, Connected)


def test_answers_that_are_gathered_do_not_look_like_a_slow_hub() -> None:
    """Else a backlog goes at one batch per answer, for ever."""
    assert PATIENCE_S + GATHER_S < GATHERED_S < SLOW_S


def test_what_is_retained_comes_after_the_connection(make_broker: Callable[..., Mosquitto]) -> None:
    """The broker sends it together with the answer to the subscription."""
    broker = make_broker()
    at = Broker(broker.host, broker.port)
    with ExitStack() as stack:
        teller, told = PahoLink(at, "d2"), SimpleQueue[Event]()
        stack.callback(teller.stop)
        teller.start(told, Birth(messages=(Message("t/kept", b"x", retain=True),)), None)
        assert isinstance(told.get(timeout=20), Connected)
        for number in range(20):
            link, events = PahoLink(at, f"d1-{number}"), SimpleQueue[Event]()
            stack.callback(link.stop)
            link.start(events, Birth(("t/+",)), None)
            assert isinstance(events.get(timeout=20), Connected)
            assert isinstance(events.get(timeout=20), Received)
