"""The hub with a real broker: stored exactly once, whatever comes twice, late, broken or not at all."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from agent import wire
from agent.errors import ConfigError
from agent.hub.service import Hub
from agent.hub.store import HubStore
from agent.link import Acked, Birth, Connected, Event, Message, Received
from agent.messages import batch_message
from agent.mqtt import Broker, PahoLink
from agent.topics import Topics
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]


def batch(seq0: int, count: int = 1, boot: str = "b1", stream: str = "kw") -> bytes:
    rows: list[tuple[int, wire.Row]] = [(seq, {"n": seq}) for seq in range(seq0, seq0 + count)]
    return wire.encode(boot, stream, seq0, rows, wire.SystemClock())


class Peer:
    """Talks to the hub as a device does, message by message."""

    def __init__(self, broker: Mosquitto, name: str = "d1") -> None:
        self.topics = Topics("axond/v1", name)
        self.answers: list[dict[str, Any]] = []
        self._link = PahoLink(Broker(broker.host, broker.port), f"peer-{name}")
        self._events = SimpleQueue[Event]()
        self._seq = 0
        self._link.start(self._events, Birth((self.topics.ack("+"),)), None)
        assert isinstance(self._events.get(timeout=20), Connected)

    def send(self, topic: str, payload: bytes, *, retain: bool = False, **properties: str) -> None:
        """Returns when the broker has it."""
        self._seq += 1
        self._link.send(self._seq, Message(topic, payload, retain=retain, properties=properties))
        eventually(lambda: self.poll() == self._seq, "broker's answer")

    def send_batch(self, payload: bytes, stream: str = "kw") -> None:
        self.send(self.topics.results(stream), payload)

    def answered(self, **expected: Any) -> dict[str, Any]:
        """Waits for an acknowledgement with these entries."""

        def find() -> dict[str, Any] | None:
            self.poll()
            return next((one for one in self.answers if expected.items() <= one.items()), None)

        answer = eventually(find, f"answer {expected}")
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        self._link.stop()

    def poll(self) -> int:
        """Takes what came; returns at the broker's answer to a message, with its number, else 0."""
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, Received):
                self.answers.append({**json.loads(event.payload), "retained": event.retain})
            elif isinstance(event, Acked):
                return event.seq
        return 0


@pytest.fixture
def peer(broker: Mosquitto) -> Iterator[Callable[..., Peer]]:
    with ExitStack() as stack:

        def make(name: str = "d1") -> Peer:
            made = Peer(broker, name)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def start_hub(broker: Mosquitto, running: Start, tmp_path: Path) -> Callable[[], Running]:
    def start() -> Running:
        hub = Hub(Broker(broker.host, broker.port), tmp_path / "hub.db")
        started = running(hub)
        assert hub.connected.wait(20)
        return started

    return start


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Callable[[HubStore], Any]], Any]:
    def ask(question: Callable[[HubStore], Any]) -> Any:
        with closing(HubStore.open_for_reading(tmp_path / "hub.db")) as store:
            return question(store)

    return ask


Read = Callable[[Callable[[HubStore], Any]], Any]


def test_batches_are_stored_once_and_answered_each_time(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], read: Read
) -> None:
    start_hub()
    device = peer()
    first, second = batch(1, 3), batch(4, 2)
    for payload in (first, second, first, second):
        device.send_batch(payload)
    device.answered(boot="b1", upto=5)
    eventually(lambda: read(lambda store: store.ledger()[0].duplicates) == 5, "duplicates counted")
    (account,) = read(lambda store: store.ledger("d1"))
    assert (account.upto, account.stored, account.missing, account.problem) == (5, 5, 0, None)
    rows = read(lambda store: store.results("d1", "kw", 3))
    assert [(row["boot"], row["seq"], row["n"]) for row in rows] == [("b1", 3, 3), ("b1", 4, 4), ("b1", 5, 5)]
    assert read(lambda store: store.results("d1", "kw", 10, boot="b2")) == []


def test_the_watermark_is_retained(start_hub: Callable[[], Running], peer: Callable[..., Peer]) -> None:
    start_hub()
    device = peer()
    device.send_batch(batch(1))
    device.answered(upto=1, retained=False)
    peer("d1").answered(upto=1, retained=True)


def test_what_comes_out_of_order_is_stored_and_said(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], read: Read
) -> None:
    start_hub()
    device = peer()
    device.send_batch(batch(1))
    device.send_batch(batch(3, 2))
    assert device.answered(have=[[3, 4]]) == {"boot": "b1", "upto": 1, "have": [[3, 4]], "retained": False}
    device.send_batch(batch(7))
    device.answered(upto=1, have=[[3, 4], [7, 7]])
    (account,) = read(lambda store: store.ledger())
    assert (account.upto, account.stored, account.ahead, account.problem) == (1, 4, 3, None)
    device.send_batch(batch(2, 5))
    assert "have" not in device.answered(upto=7)
    (account,) = read(lambda store: store.ledger())
    assert (account.stored, account.ahead, account.duplicates, account.problem) == (7, 0, 2, None)
    assert [row["seq"] for row in read(lambda store: store.results("d1", "kw"))] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["n"] for row in read(lambda store: store.results("d1", "kw", 3))] == [5, 6, 7]


def test_a_gap_record_closes_a_gap_knowingly(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], read: Read
) -> None:
    start_hub()
    device = peer()
    device.send_batch(wire.encode_gap("b1", "kw", 1, 40, "quota"))
    device.send_batch(batch(41, 2))
    device.send_batch(wire.encode_gap("b1", "kw", 40, 45, "quota"))
    device.answered(upto=45)
    (account,) = read(lambda store: store.ledger())
    assert (account.stored, account.missing, account.problem) == (2, 43, None)
    assert read(lambda store: store.gaps("d1")) == [("b1", "kw", 1, 40, "quota"), ("b1", "kw", 43, 45, "quota")]


def test_boots_and_streams_and_devices_are_apart(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], read: Read
) -> None:
    start_hub()
    for name in ("d1", "d2"):
        device = peer(name)
        for boot in ("b1", "b2"):
            for stream in ("kw", "imu"):
                device.send_batch(batch(1, 2, boot, stream), stream)
                device.answered(boot=boot, upto=2)
    eventually(lambda: len(read(lambda store: store.ledger())) == 8, "eight accounts")
    assert {(one.upto, one.problem) for one in read(lambda store: store.ledger())} == {(2, None)}


def test_what_is_no_batch_is_counted_and_harms_nothing(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], read: Read
) -> None:
    start_hub()
    device = peer()
    good = device.topics.results("kw")
    device.send(good, b"")
    device.send(good, b"junk")
    device.send(good, b"x" * (wire.MAX_WIRE_BYTES + 1))
    device.send(device.topics.results("imu"), batch(1))
    device.send("axond/v1/Bad Device/up/res/kw", batch(1))
    device.send("axond/v1/d1/up/res/Bad Stream", batch(1))
    device.send(device.topics.status, b"[]")
    device.send(device.topics.info, b"\xff")
    device.send(device.topics.metrics, b"[" * 300_000)
    device.send_batch(batch(1))
    device.answered(upto=1)
    counted = read(lambda store: store.rejected())
    assert counted == {
        ("d1", "bad batch"): 4,
        ("", "wrong topic"): 2,
        ("d1", "bad status"): 1,
        ("d1", "bad info"): 1,
        ("d1", "bad metrics"): 1,
    }
    (known,) = read(lambda store: store.devices())
    assert (known.name, known.rejected) == ("d1", 7)


def test_a_rejected_batch_that_says_what_it_is_is_answered(
    start_hub: Callable[[], Running], peer: Callable[..., Peer]
) -> None:
    start_hub()
    device = peer()
    device.send_batch(batch(1, 2))
    message = batch_message(device.topics, "b1", "kw", 3, 9, b"rotten")
    device.send(message.topic, message.payload, **message.properties)

    def reject() -> dict[str, Any] | None:
        device.poll()
        return next((answer for answer in device.answers if "reject" in answer), None)

    answer = eventually(reject, "rejected")
    assert (answer["boot"], answer["upto"], answer["retained"]) == ("b1", 2, False)
    assert answer["reject"]["seq"] == [3, 9]
    assert "not zstd" in answer["reject"]["reason"]


def test_what_devices_say_is_kept_and_their_books_are_compared(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], read: Read
) -> None:
    start_hub()
    device = peer()
    device.send_batch(batch(1, 3))
    device.answered(upto=3)
    device.send(device.topics.status, b'{"state":"online"}')
    device.send(device.topics.info, b'{"streams":["kw"]}')
    books = {"produced": 5, "delivered": 3, "pending": 2, "evicted": 0, "refused": 0}
    device.send(device.topics.metrics, json.dumps({f"ledger_kw_{k}": v for k, v in books.items()}).encode(), boot="b1")
    eventually(lambda: read(lambda store: store.ledger()[0].reported) == books, "books")
    (known,) = read(lambda store: store.devices())
    assert (known.status["state"], known.info["streams"]) == ("online", ["kw"])
    assert read(lambda store: store.ledger()[0].problem) is None
    books["delivered"], books["pending"] = 4, 1
    device.send(device.topics.metrics, json.dumps({f"ledger_kw_{k}": v for k, v in books.items()}).encode(), boot="b1")
    eventually(lambda: read(lambda store: store.ledger()[0].problem), "the books differ")
    assert read(lambda store: store.ledger()[0].problem) == "the device delivered 4, stored are 3"


def test_metrics_that_do_not_tell_their_boot_are_of_the_one_in_the_status(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], read: Read
) -> None:
    start_hub()
    device = peer()
    device.send_batch(batch(1, 3))
    device.answered(upto=3)
    device.send(device.topics.status, b'{"state":"online","boot":"b1"}')
    device.send(device.topics.metrics, b'{"ledger_kw_produced":3,"ledger_kw_delivered":3}')
    eventually(lambda: read(lambda store: store.ledger())[0].reported == {"produced": 3, "delivered": 3}, "books")


def test_messages_wait_for_a_hub_that_is_away(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], read: Read
) -> None:
    first = start_hub()
    device = peer()
    device.send_batch(batch(1))
    device.answered(upto=1)
    first.stop()
    for seq in range(2, 100):
        device.send_batch(batch(seq))
    start_hub()
    device.answered(upto=99)
    assert read(lambda store: store.ledger()[0].problem) is None


def test_what_is_stored_is_acknowledged_to_the_broker_and_does_not_come_again(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], read: Read
) -> None:
    first = start_hub()
    device = peer()
    device.send_batch(batch(1))
    device.answered(upto=1)
    first.stop()
    start_hub()
    device.send_batch(batch(2))
    device.answered(upto=2)
    assert read(lambda store: store.ledger()[0].duplicates) == 0


def test_a_locked_store_is_waited_for(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start_hub()
    device = peer()
    with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        device.send_batch(batch(1))
        eventually(lambda: "messages wait" in caplog.text, "said")
        device.send_batch(batch(2))
        assert device.answers == []
        intruder.execute("ROLLBACK")
    device.answered(upto=2)


def test_a_hub_that_stops_with_a_locked_store_gets_the_message_again(
    start_hub: Callable[[], Running], peer: Callable[..., Peer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = start_hub()
    device = peer()
    with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        device.send_batch(batch(1))
        eventually(lambda: "messages wait" in caplog.text, "said")
        first.stop()
    start_hub()
    device.answered(upto=1)


def test_a_store_that_cannot_be_opened_is_a_sentence(broker: Mosquitto, running: Start, tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"no database at all" * 100)
    error = running(Hub(Broker(broker.host, broker.port), tmp_path / "hub.db")).wait()
    assert isinstance(error, ConfigError) and "hub.db" in str(error)
    with pytest.raises(FileNotFoundError, match="has a hub run"):
        HubStore.open_for_reading(tmp_path / "none.db")
