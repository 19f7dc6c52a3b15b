"""No message, however odd, stops a hub: one that did would come again after each start."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import zstandard

from agent import wire
from agent.__main__ import main
from agent.hub.parse import MAX_EVENT_BYTES, MAX_LEVELS, parse
from agent.hub.reader import HubReader
from agent.hub.service import GROUP_BYTES, Hub
from agent.link import Received
from agent.mqtt import Broker
from tests.agent.test_hub import Peer, batch
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def received(payload: bytes, kind: str = "info") -> Received:
    return Received(f"axond/v1/d1/up/{kind}", payload)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (nested(MAX_LEVELS + 1), "more than 32 levels"),
        (nested(sys.getrecursionlimit() - 150), "more than 32 levels"),
        (nested(100_000), "not JSON"),
        (b'{"a":1e999}', "too large for a number"),
        (b'{"a":-1e999}', "too large for a number"),
        (b'{"a":NaN}', "not a JSON number"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b"{" + b" " * 300_000 + b"}", "too large"),
        ('{"a":"\ud800"}'.encode("utf-8", "surrogatepass")[:-1], "not JSON"),
    ],
)
def test_a_document_that_could_not_be_read_again_is_refused(payload: bytes, reason: str) -> None:
    assert reason in parse("axond/v1", received(payload)).reason


def test_a_batch_that_is_no_good_is_named_even_without_properties() -> None:
    """MQTT 3.1.1 carries none: a device was never told that its batch is rejected, and sent it for ever."""

    def claim(properties: dict[str, str] | None = None, stream: str = "kw", **changes: Any) -> object:
        document = {"v": 2, "boot": "b1", "stream": "kw", "seq": [3, 4], **changes}
        payload = zstandard.compress(json.dumps(document).encode())
        parsed = parse("axond/v1", replace(received(payload, f"res/{stream}"), properties=properties or {}))
        assert parsed.reason
        return parsed.claimed

    assert claim() == (("d1", "b1", "kw"), 3, 4)
    assert claim({"ce-id": "d1/b1/5-6"}) == (("d1", "b1", "kw"), 5, 6)
    assert claim({"ce-id": "strange"}) is None
    assert claim(stream="imu") is None, "topic and payload do not agree"
    assert claim(boot=7) is None and claim(seq=[4, 3]) is None and claim(seq=[1, True]) is None
    assert parse("axond/v1", received(b"no zstd", "res/kw")).claimed is None
    assert parse("axond/v1", received(b"no JSON", "info")).claimed is None


def test_a_document_within_the_limits_is_taken() -> None:
    assert parse("axond/v1", received(nested(MAX_LEVELS))).reason == ""
    assert parse("axond/v1", received(b'{"a":' + b"9" * 4000 + b"}")).reason == ""
    full = b'{"a":"' + b"x" * (MAX_EVENT_BYTES - 8) + b'"}'
    assert parse("axond/v1", received(full, "event")).reason == ""
    assert "too large" in parse("axond/v1", received(full + b" ", "event")).reason


def test_results_are_checked_and_then_not_kept_in_memory() -> None:
    parsed = parse("axond/v1", Received("axond/v1/d1/up/res/kw", batch(1, 3)))
    assert parsed.batch == replace(wire.decode(batch(1, 3)), uncertainty_ms=ANY, offset_us=ANY, t_us=(), columns=None)


@pytest.fixture
def device(broker: Mosquitto, running: Start, tmp_path: Path) -> Iterator[Peer]:
    hub = Hub(Broker(broker.host, broker.port), tmp_path / "hub.db")
    running(hub)
    assert hub.connected.wait(20)
    peer = Peer(broker)
    try:
        yield peer
    finally:
        peer.close()


def test_numbers_without_end_stop_no_hub(device: Peer) -> None:
    device.send(device.topics.metrics, b'{"outbox_rows":1' + b"0" * 400 + b"}", boot="b1")
    device.send_batch(batch(1))
    device.answered(upto=1)


def test_a_document_as_deep_as_is_taken_can_be_shown(
    device: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hub.db"
    device.send(device.topics.info, nested(MAX_LEVELS))
    device.send(device.topics.status, nested(900))

    def known() -> bool:
        with closing(HubReader.open_for_reading(path)) as reader:
            return bool(reader.devices()) and reader.devices()[0].rejected == 1

    eventually(known, "both have come")
    assert main(["hub", "devices", "--json", "--db", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["info"] == json.loads(nested(MAX_LEVELS))


def test_numbers_that_json_does_not_know_are_shown_as_null(
    device: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = {"v": 1, "boot": "b1", "stream": "kw", "seq": [1, 2], "t_us": [1, 1], "cols": {"n": [1e999, 2.5]}}
    text = json.dumps(document)
    assert "Infinity" in text
    device.send_batch(zstandard.ZstdCompressor().compress(text.encode()))
    device.answered(upto=2)
    assert main(["hub", "results", "--device", "d1", "--json", "--db", str(tmp_path / "hub.db")]) == 0
    assert [json.loads(line)["n"] for line in capsys.readouterr().out.splitlines()] == [None, 2.5]


def test_a_group_is_bounded_in_bytes(tmp_path: Path) -> None:
    hub = Hub(Broker("127.0.0.1", 1), tmp_path / "hub.db")
    for _ in range(40):
        hub._events.put(received(bytes(1 << 20)))
    assert [len(hub._take()) for _ in range(3)] == [GROUP_BYTES >> 20, GROUP_BYTES >> 20, 8]
