"""What a hub answers: no more at a time than the broker takes, the newest of each stream only, never for ever."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

from agent.hub import answers
from agent.hub.answers import MAX_WAITING, WINDOW, Answers
from agent.hub.service import Hub
from agent.link import Message
from agent.mqtt import Broker
from tests.agent.test_hub import Peer, batch
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]
WINDOW_OF_BROKER = 3


class SmallBroker:
    """The other end of one connection at a time: hands out batches of many devices at once, and takes three answers."""

    def __init__(self, devices: int) -> None:
        self.connections = 0
        self.answered: list[str] = []
        """Topics, in the order of arrival."""
        self._devices = devices
        self._unanswered: list[bytes] = []
        self._lock = Lock()
        self._client: socket.socket | None = None
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        for one in (self._server, self._client):
            with suppress(OSError):
                if one is not None:
                    one.shutdown(socket.SHUT_RDWR)
                    one.close()
        self._thread.join(5)

    def acknowledge(self) -> int:
        """PUBACKs what has come; returns how many that were."""
        with self._lock:
            mids, self._unanswered = self._unanswered, []
            for mid in mids:
                self._client.sendall(b"\x40\x02" + mid)  # type: ignore[union-attr]
        return len(mids)

    @property
    def unanswered(self) -> int:
        return len(self._unanswered)

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                self._client, _ = self._server.accept()
                self.connections += 1
                with closing(self._client), suppress(OSError, EOFError):
                    self._talk(self._client)

    def _talk(self, client: socket.socket) -> None:
        stream = client.makefile("rb")
        while True:
            kind, body = self._packet(stream)
            if kind == 0x10:
                client.sendall(b"\x20\x06\x00\x00\x03\x21" + struct.pack(">H", WINDOW_OF_BROKER))
            elif kind == 0x80:
                client.sendall(b"\x90\x08" + body[:2] + b"\x00" + b"\x01" * 5)
                with self._lock:
                    client.sendall(b"".join(self._publish(number) for number in range(1, self._devices + 1)))
            elif kind == 0x30:
                (size,) = struct.unpack(">H", body[:2])
                with self._lock:
                    self.answered.append(body[2 : 2 + size].decode())
                    self._unanswered.append(body[2 + size : 4 + size])

    def _packet(self, stream: Any) -> tuple[int, bytes]:
        head = stream.read(1)
        if not head:
            raise EOFError
        size = shift = 0
        while True:
            (byte,) = stream.read(1)
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return head[0] & 0xF0, stream.read(size)

    def _publish(self, number: int) -> bytes:
        topic = f"axond/v1/d{number}/up/res/kw".encode()
        body = struct.pack(">H", len(topic)) + topic + struct.pack(">HB", number, 0) + batch(1)
        length = bytes([len(body) & 127 | 128, len(body) >> 7]) if len(body) > 127 else bytes([len(body)])
        return b"\x32" + length + body


@pytest.fixture
def small_broker() -> Iterator[SmallBroker]:
    with closing(SmallBroker(200)) as made:
        yield made


def test_a_broker_with_a_small_window_is_not_overrun(small_broker: SmallBroker, running: Start, tmp_path: Path) -> None:
    running(Hub(Broker("127.0.0.1", small_broker.port), tmp_path / "hub.db"))
    most = 0
    while len(small_broker.answered) < 200:
        eventually(lambda: small_broker.unanswered, "an answer")
        most = max(most, small_broker.acknowledge())
    assert 1 <= most <= WINDOW_OF_BROKER
    assert sorted(small_broker.answered) == sorted(f"axond/v1/d{n}/down/ack/kw" for n in range(1, 201))


def test_a_broker_that_acknowledges_nothing_is_left(
    small_broker: SmallBroker, running: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "STUCK_S", 0.5)
    running(Hub(Broker("127.0.0.1", small_broker.port), tmp_path / "hub.db"))
    eventually(lambda: small_broker.connections >= 2, "another connection")
    assert len(small_broker.answered) >= WINDOW_OF_BROKER


def test_a_broker_that_forbids_the_answers_is_a_sentence(
    make_broker: Callable[..., Mosquitto], running: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make_broker(acl="topic read axond/#\ntopic write axond/v1/d1/up/#\n")
    hub = Hub(Broker(broker.host, broker.port), tmp_path / "hub.db")
    running(hub)
    assert hub.connected.wait(20)
    device = Peer(broker)
    try:
        for seq in (1, 2):
            device.send_batch(batch(seq))
        eventually(lambda: "refuses the hub's answers: Not authorized" in caplog.text, "said")
    finally:
        device.close()


def message(text: str, *, retain: bool = True) -> Message:
    return Message("t", text.encode(), retain=retain)


def test_what_waits_is_replaced_by_what_is_newer() -> None:
    sent: list[tuple[int, bytes]] = []
    made = Answers(lambda seq, one: sent.append((seq, one.payload)))
    key, other = ("d1", "b1", "kw"), ("d2", "b1", "kw")
    for one in (message("1"), message("2"), message("no", retain=False), message("3")):
        made.put(key, one)
    made.put(other, message("4"))
    assert sent == [(1, b"1")], "until the broker has said how many it takes"
    made.acked(1)
    made.widen(2)
    assert [text for _, text in sent] == [b"1", b"3", b"no"]
    for seq in (99, 2, 3, 3):
        made.acked(seq)
    assert [text for _, text in sent] == [b"1", b"3", b"no", b"4"]


def test_no_more_wait_than_memory_bears() -> None:
    sent: list[int] = []
    made = Answers(lambda seq, one: sent.append(seq))
    made.widen(65535)
    for number in range(WINDOW + MAX_WAITING + 7):
        made.put(("d1", f"b{number}", "kw"), message("1"))
    made.put(("d1", f"b{WINDOW}", "kw"), message("2"))
    assert (len(sent), made.dropped) == (WINDOW, 7)


def test_an_answer_that_nobody_needs_yet_waits_for_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    made = Answers(lambda _, one: sent.append(one.payload))
    made.widen(10)
    first, second = ("d1", "b1", "kw"), ("d2", "b1", "kw")
    made.put(first, message("1"), patient=True)
    made.put(second, message("2"), patient=True)
    made.put(first, message("3"), patient=True)
    made.hurry()
    assert sent == []
    assert 0 < made.due_s() <= answers.PATIENCE_S
    monkeypatch.setattr(answers, "PATIENCE_S", 60.0)
    eventually(lambda: made.due_s() <= 0, "due")
    made.put(first, message("4"), patient=True)
    made.hurry()
    assert sent[0] == b"4", "the newest, when the first was due"
    made.put(first, message("5"), patient=True)
    made.put(first, message("6"))
    assert sent[-1] == b"6", "what is needed takes its place at once"
    made.put(first, message("7"), patient=True)
    made.hurry()
    assert sent[-1] == b"6"
    made.hurry(all_of_them=True)
    assert sorted(sent) == [b"2", b"4", b"6", b"7"]
    assert made.due_s() == float("inf")


def test_patient_answers_take_part_in_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_WAITING", 3)
    made = Answers(lambda _, __: None)
    made.widen(10)
    for number in range(5):
        made.put(("d1", f"b{number}", "kw"), message("1"), patient=True)
    assert made.dropped == 2


def test_a_device_that_has_more_to_send_is_answered_at_once() -> None:
    sent: list[bytes] = []
    made = Answers(lambda _, one: sent.append(one.payload))
    made.widen(10)
    for number in range(9):
        made.put(("d1", "b1", "kw"), message(str(number)), patient=True)
    assert sent == [b"3", b"7"]


def test_what_waits_outlives_its_connection() -> None:
    sent: list[bytes] = []
    made = Answers(lambda _, one: sent.append(one.payload))
    made.widen(1)
    for number in range(2):
        made.put(("d1", f"b{number}", "kw"), message(str(number)))
    made.put(("d1", "b2", "kw"), message("2"), patient=True)
    made.reconnect()
    made.hurry(all_of_them=True)
    assert sent == [b"0"], "nothing goes before the broker has said how much it takes"
    assert made.due_s() == float("inf"), "a hub without a broker has nothing to hurry for"
    made.widen(10)
    made.hurry(all_of_them=True)
    assert sent == [b"0", b"1", b"2"]
