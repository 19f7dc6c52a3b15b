"""The mirror to ThingsBoard: what its device API asks for, on a real broker."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.mirrors.thingsboard import ATTRIBUTES, MAX_BYTES, TELEMETRY, ThingsBoard, ThingsBoardConfig
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually
from tests.mirror_peers import Listener, device, row, rows

MOST_BYTES = 64 * 1024


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    made = Listener(broker.port)
    yield made
    made.close()


def mirror(broker: Mosquitto, folder: Path) -> ThingsBoard:
    token = folder / "token"
    settings = {"host": broker.host, "port": broker.port, "token_file": str(token)}
    return ThingsBoard("board", ThingsBoardConfig.model_validate(settings), device())


def telemetry(listener: Listener) -> list[dict[str, Any]]:
    entries = []
    for message in listener.messages(TELEMETRY):
        assert len(message.payload) < MOST_BYTES
        assert message.qos == 1
        entries += json.loads(message.payload)
    return entries


def test_the_token_is_the_user_and_attributes_come_first(
    broker: Mosquitto, listener: Listener, tmp_path: Path, running: Callable[[Any], Running]
) -> None:
    (tmp_path / "token").write_text("A1_TEST_TOKEN\n")
    sent = mirror(broker, tmp_path)
    running(sent)
    result = row(3, "walk", none=None, ok=True)
    sent.offer([result])
    eventually(lambda: sent.state().sent == 1, "the result")
    attributes, data = eventually(lambda: len(m := listener.messages()) >= 2 and m, "two messages")
    assert attributes.topic == ATTRIBUTES
    assert json.loads(attributes.payload) == {"agent": "1.2.3", "device": "dev7", "boot": "b0", "kw_model": "m"}
    [entry] = json.loads(data.payload)
    assert entry["values"] == {"walk_label": "yes", "walk_score": 0.5, "walk_number": 3, "walk_ok": 1}
    expected_ms = (result.payload["t_ns"] // 1000 + sent.clock.offset_us()) // 1000
    assert abs(entry["ts"] - expected_ms) <= 2
    assert "u'A1_TEST_TOKEN'" in broker.log.read_text()


def test_messages_stay_below_the_limit_and_carry_everything_once(
    broker: Mosquitto, listener: Listener, tmp_path: Path, running: Callable[[Any], Running]
) -> None:
    (tmp_path / "token").write_text("t")
    sent = mirror(broker, tmp_path)
    sent.offer([row(number, text="x" * 200) for number in range(3000)])
    running(sent)
    long, too_long = row(3000, text="x" * 59_000), row(3001, text="x" * 60_000)
    sent.offer([long, too_long, row(3002)])
    eventually(lambda: sent.state().sent == 3002, "all results but one")
    eventually(lambda: telemetry(listener)[-1]["values"]["kw_number"] == 3002, "the last one")
    assert [entry["values"]["kw_number"] for entry in telemetry(listener)] == [*range(3001), 3002]
    assert sent.state().dropped == 1


def test_a_message_may_have_just_the_limit(
    broker: Mosquitto, listener: Listener, tmp_path: Path, running: Callable[[Any], Running]
) -> None:
    (tmp_path / "token").write_text("t")
    sent = mirror(broker, tmp_path)
    running(sent)
    sent.offer([row(0, text="")])
    [first] = eventually(lambda: listener.messages(TELEMETRY), "the first")
    room = MAX_BYTES - len(first.payload)
    sent.offer([row(number, text="x" * (room - 2 + number)) for number in range(1, 5)])
    eventually(lambda: sent.state().waiting == 0, "all")
    sizes = eventually(lambda: len(m := listener.messages(TELEMETRY)) == 3 and [len(n.payload) for n in m], "two more")
    assert sizes[1:] == [MAX_BYTES - 1, MAX_BYTES]
    assert (sent.state().sent, sent.state().dropped) == (3, 2)


def test_what_was_not_acknowledged_is_sent_again(
    broker: Mosquitto, tmp_path: Path, running: Callable[[Any], Running]
) -> None:
    (tmp_path / "token").write_text("t")
    sent = mirror(broker, tmp_path)
    running(sent)
    eventually(lambda: sent.state().connected, "a connection")
    broker.freeze()
    sent.offer(rows(50))
    eventually(lambda: sent.under_way() == 50, "results under way")
    sent.offer(rows(50)[40:])
    broker.kill()
    eventually(lambda: sent.state().error, "a sentence")
    broker.start()
    listener = Listener(broker.port)
    try:
        eventually(lambda: sent.state().sent == 60, "all results")
        sent.offer([row(99)])
        eventually(
            lambda: telemetry(listener)[-1:] and telemetry(listener)[-1]["values"]["kw_number"] == 99, "the last"
        )
    finally:
        listener.close()


def test_a_missing_token_is_a_sentence_and_waited_for(
    broker: Mosquitto, tmp_path: Path, running: Callable[[Any], Running]
) -> None:
    sent = mirror(broker, tmp_path)
    running(sent)
    eventually(lambda: "token" in str(sent.state().error), "a sentence")
    (tmp_path / "token").write_text("t")
    eventually(lambda: sent.state().connected, "a connection")
    assert sent.state().error is None


def test_a_refused_result_is_counted(
    make_broker: Callable[..., Mosquitto], tmp_path: Path, running: Callable[[Any], Running]
) -> None:
    (tmp_path / "token").write_text("t")
    broker = make_broker(acl=f"topic write {ATTRIBUTES}\n")
    sent = mirror(broker, tmp_path)
    running(sent)
    sent.offer(rows(4))
    eventually(lambda: sent.state().dropped == 4, "four refused")
    assert "refuses" in str(sent.state().error)
    assert sent.state().sent == 0
