"""The Sparkplug B edge node: its bytes against Google's protobuf, its session on a real broker."""

import logging
import math
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.link import Received
from agent.mirrors import mqtt_mirror, sparkplug
from agent.mirrors.sparkplug import LATE_MS, Sparkplug, SparkplugConfig
from agent.mirrors.sparkplug_payload import MAX_COMMAND_BYTES, DataType, Metric, PayloadError, commands, encode
from agent.outbox_group import Queued
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually
from tests.mirror_peers import Listener, device, row
from tests.sparkplug_schema import Payload, values

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
STAMP = st.integers(0, 2**63)
METRICS = st.lists(
    st.one_of(
        st.builds(Metric, TEXT, st.just(DataType.DOUBLE), st.none() | st.floats(allow_nan=False), STAMP, st.booleans()),
        st.builds(Metric, TEXT, st.just(DataType.STRING), st.none() | TEXT, STAMP, st.booleans()),
        st.builds(Metric, TEXT, st.just(DataType.INT64), st.integers(-(2**63), 2**63 - 1), STAMP),
        st.builds(Metric, TEXT, st.just(DataType.BOOLEAN), st.booleans(), STAMP),
    ),
    max_size=5,
)
FIELD = {DataType.DOUBLE: "double_value", DataType.STRING: "string_value", DataType.INT64: "long_value"}


@given(METRICS, STAMP, st.none() | st.integers(0, 255))
def test_the_bytes_are_those_of_the_official_encoder(metrics: list[Metric], stamp: int, seq: int | None) -> None:
    wanted = Payload(timestamp=stamp)
    for metric in metrics:
        made = wanted.metrics.add(name=metric.name, timestamp=metric.timestamp_ms, datatype=metric.datatype)
        if metric.historical:
            made.is_historical = True
        if metric.value is None:
            made.is_null = True
        else:
            whole = isinstance(metric.value, int)
            value = metric.value % 2**64 if whole and metric.datatype is DataType.INT64 else metric.value
            setattr(made, FIELD.get(metric.datatype, "boolean_value"), value)
    if seq is not None:
        wanted.seq = seq
    assert encode(metrics, stamp, seq) == wanted.SerializeToString(deterministic=True)


@given(st.dictionaries(TEXT, st.booleans(), max_size=4), st.integers(0, 2**64 - 1))
def test_commands_are_read(wanted: dict[str, bool], alias: int) -> None:
    payload = Payload(timestamp=1, seq=2, uuid="u", body=b"\x01")
    for name, flag in wanted.items():
        payload.metrics.add(name=name, alias=alias, datatype=11, boolean_value=flag)
    payload.metrics.add(name="other", datatype=10, double_value=1.5)
    payload.metrics.add(name="third", datatype=9, float_value=1.5)
    payload.metrics.add(alias=alias, boolean_value=True)
    assert commands(payload.SerializeToString()) == wanted


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_in_a_sentence(data: bytes) -> None:
    try:
        found = commands(data)
    except PayloadError as error:
        assert "byte" in str(error)
    else:
        assert all(type(flag) is bool for flag in found.values())


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    made = Listener(broker.port, "spBv1.0/#")
    yield made
    made.close()


def mirror(port: int, **settings: Any) -> Sparkplug:
    config = SparkplugConfig.model_validate({"host": "127.0.0.1", "port": port, **settings})
    return Sparkplug("scada", config, device())


def heard(listener: Listener, count: int) -> list[tuple[str, Any]]:
    """Kind and payload of the first ``count`` messages, whose topics must be ours."""
    messages = eventually(lambda: len(m := listener.messages()) >= count and m, f"{count} messages")
    found = []
    for message in messages:
        root, group, kind, node = message.topic.split("/")
        assert (root, group, node) == ("spBv1.0", "axond", "dev7")
        if kind == "NCMD":
            continue
        assert not message.retain
        assert message.qos == (1 if kind == "NDEATH" else 0)
        found.append((kind, Payload.FromString(message.payload)))
    return found


def test_births_come_before_data_and_sequence_numbers_wrap(
    broker: Mosquitto, listener: Listener, running: Callable[[Any], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_mirror, "TICK_S", 0.001)
    sent = mirror(broker.port)
    running(sent)
    [(kind, birth)] = heard(listener, 1)
    assert (kind, birth.seq) == ("NBIRTH", 0)
    assert values(birth) == {"bdSeq": 0, "Node Control/Rebirth": False}
    assert {metric.name: metric.datatype for metric in birth.metrics} == {"bdSeq": 4, "Node Control/Rebirth": 11}
    assert all(abs(metric.timestamp - time.time() * 1000) < 60_000 for metric in birth.metrics)
    sent.offer([row(0, ok=True, none=None)])
    [_, (kind, birth), (data_kind, data)] = heard(listener, 3)
    assert (kind, birth.seq, data_kind, data.seq) == ("NBIRTH", 0, "NDATA", 1)
    names = {"kw/label": 12, "kw/score": 10, "kw/number": 10, "kw/ok": 10}
    assert {m.name: m.datatype for m in birth.metrics if "/" in m.name and m.name[0] == "k"} == names
    assert values(birth) == {"bdSeq": 0, "Node Control/Rebirth": False, **dict.fromkeys(names)}
    assert values(data) == {"kw/label": "yes", "kw/score": 0.5, "kw/number": 0, "kw/ok": 1}
    for number in range(1, 300):
        sent.offer([row(number)])
        heard(listener, 3 + number)
    payloads = [payload for kind, payload in heard(listener, 302)[2:] if kind == "NDATA"]
    assert [payload.seq for payload in payloads] == [(1 + i) % 256 for i in range(300)]
    assert [values(payload)["kw/number"] for payload in payloads] == list(range(300))
    assert sent.state().sent == 300


def test_a_command_brings_a_birth_with_the_present_values(
    broker: Mosquitto, listener: Listener, running: Callable[[Any], Running], caplog: pytest.LogCaptureFixture
) -> None:
    sent = mirror(broker.port)
    running(sent)
    sent.offer([row(5)])
    heard(listener, 3)
    for garbage in (b"\xff\xff\xff", b"\x0f", bytes(MAX_COMMAND_BYTES + 1)):
        listener.client.publish("spBv1.0/axond/NCMD/dev7", garbage)
    command = Payload(timestamp=1)
    command.metrics.add(name="Node Control/Rebirth", datatype=11, boolean_value=False)
    listener.client.publish("spBv1.0/axond/NCMD/dev7", command.SerializeToString())
    command.metrics[0].boolean_value = True
    listener.client.publish("spBv1.0/axond/NCMD/dev7", command.SerializeToString())
    kind, birth = heard(listener, 9)[3]
    assert (kind, birth.seq) == ("NBIRTH", 0)
    known = {"kw/label": "yes", "kw/score": 0.5, "kw/number": 5}
    assert values(birth) == {"bdSeq": 0, "Node Control/Rebirth": False, **known}
    sent.offer([row(6)])
    kind, data = heard(listener, 10)[4]
    assert (kind, data.seq, values(data)["kw/number"]) == ("NDATA", 1, 6)
    assert [r.levelname for r in caplog.records if "no Sparkplug payload" in r.getMessage()] == ["WARNING"]


def test_a_late_result_is_historical_and_no_present_value(
    broker: Mosquitto, listener: Listener, running: Callable[[Any], Running]
) -> None:
    sent = mirror(broker.port)
    running(sent)
    new, old = row(2), row(1)
    old = Queued("kw", {**old.payload, "t_ns": new.payload["t_ns"] - (LATE_MS + 1000) * 1_000_000}, 1, 0)
    sent.offer([new])
    heard(listener, 3)
    sent.offer([old])
    _, late = heard(listener, 4)[3]
    assert all(metric.is_historical for metric in late.metrics)
    command = Payload(timestamp=1)
    command.metrics.add(name="Node Control/Rebirth", datatype=11, boolean_value=True)
    listener.client.publish("spBv1.0/axond/NCMD/dev7", command.SerializeToString())
    _, birth = heard(listener, 6)[4]
    assert values(birth)["kw/number"] == 2
    assert not any(metric.is_historical for metric in birth.metrics)


def test_a_column_that_had_text_stays_text(
    broker: Mosquitto, listener: Listener, running: Callable[[Any], Running]
) -> None:
    sent = mirror(broker.port)
    running(sent)
    heard(listener, 1)
    for value, expected, messages in ((1.5, 1.5, 3), ("text", "text", 5), (2, "2", 6), (math.inf, None, 7)):
        sent.offer([row(0, odd=value)])
        _, data = heard(listener, messages)[-1]
        assert values(data)["kw/odd"] == expected
    kinds = [kind for kind, _ in heard(listener, 7)]
    assert kinds == ["NBIRTH", "NBIRTH", "NDATA", "NBIRTH", "NDATA", "NDATA", "NDATA"]


def test_a_number_that_no_double_holds_is_null(
    broker: Mosquitto, listener: Listener, running: Callable[[Any], Running]
) -> None:
    sent = mirror(broker.port)
    running(sent)
    heard(listener, 1)
    sent.offer([row(1, odd=10**400)])
    _, data = heard(listener, 3)[-1]
    assert values(data)["kw/odd"] is None
    assert values(data)["kw/number"] == 1


def test_a_stop_says_so_before_it_disconnects(
    broker: Mosquitto, listener: Listener, running: Callable[[Any], Running]
) -> None:
    sent = mirror(broker.port)
    worker = running(sent)
    sent.offer([row(0)])
    heard(listener, 3)
    worker.stop()
    kind, death = heard(listener, 4)[-1]
    assert kind == "NDEATH"
    assert values(death) == {"bdSeq": 0}
    assert not death.HasField("seq")
    assert len(listener.messages("NDEATH/dev7")) == 1


def test_nothing_is_sent_into_a_connection_that_takes_nothing(
    broker: Mosquitto, running: Callable[[Any], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_mirror, "TICK_S", 0.001)
    sent = mirror(broker.port)
    worker = running(sent)
    eventually(lambda: sent.state().connected, "a connection")
    broker.freeze()
    big = [row(number, text="x" * 10_000) for number in range(4000)]
    sent.offer(big)
    eventually(sent.slow, "a full connection")
    assert not Event().wait(0.5)  # ample for all of it, did nothing hold it back
    assert sent.slow()
    assert sent.state().waiting > 1000
    worker.stop()
    state = sent.state()
    assert state.sent + state.waiting == len(big)


def test_each_connection_has_its_own_number_in_birth_and_death(
    broker: Mosquitto, running: Callable[[Any], Running]
) -> None:
    sent = mirror(broker.port)
    worker = running(sent)
    eventually(lambda: sent.state().connected, "a connection")
    broker.kill()
    eventually(lambda: sent.state().error, "a sentence")
    broker.start()
    listener = Listener(broker.port, "spBv1.0/#")
    try:
        eventually(lambda: sent.state().connected, "a connection")
        sent.offer([row(0)])
        births = [payload for kind, payload in heard(listener, 2) if kind == "NBIRTH"]
        (number,) = {values(birth)["bdSeq"] for birth in births}
        assert number > 0
        worker.stop()
        [death] = eventually(lambda: listener.messages("NDEATH/dev7"), "a death")
        assert values(Payload.FromString(death.payload)) == {"bdSeq": number}
    finally:
        listener.close()


def test_a_connection_that_was_never_answered_has_its_own_number_as_well(
    running: Callable[[Any], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker may have taken its birth, and then announces its death after the next birth."""
    monkeypatch.setattr(mqtt_mirror, "rest", lambda _wait_s, stop, _beat: stop.wait(0.01))
    numbers: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while len(numbers) < 3:
                client, _ = server.accept()
                with client:
                    packet = client.recv(4096)
                will = packet.partition(b"spBv1.0/axond/NDEATH/dev7")[2]
                numbers.append(values(Payload.FromString(will[2 : 2 + int.from_bytes(will[:2], "big")]))["bdSeq"])

        taker = Thread(target=take, daemon=True)
        taker.start()
        running(mirror(server.getsockname()[1]))
        taker.join(20)
    assert numbers == [0, 1, 2]


def quiet(monkeypatch: pytest.MonkeyPatch) -> tuple[Sparkplug, list[tuple[str, Any]]]:
    """A mirror without a connection, and what it publishes."""
    sent: list[tuple[str, Any]] = []
    made = mirror(1)
    monkeypatch.setattr(made, "publish", lambda m, rows=(): sent.append((m.topic, Payload.FromString(m.payload))))
    return made, sent


def test_a_clock_that_is_corrected_backwards_does_not_freeze_the_present_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, messages = quiet(monkeypatch)
    for number, ahead_us in ((1, 365 * 86_400_000_000), (2, 0), (3, 0)):
        offset_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000 + ahead_us
        monkeypatch.setattr(sent.clock, "offset_us", lambda offset_us=offset_us: offset_us)
        sent.offer([row(number)])
        sent.exchange()
    assert values(Payload.FromString(sent.birth().messages[0].payload))["kw/number"] == 3
    late = row(2)
    sent.offer([row(4), Queued("kw", {**late.payload, "t_ns": late.payload["t_ns"] - 10**9}, 1, 0)])
    sent.exchange()
    assert values(Payload.FromString(sent.birth().messages[0].payload))["kw/number"] == 4
    assert len(messages) == 5


def test_whoever_asks_for_births_all_the_time_gets_one_a_second(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent.mirrors")
    now_s = [1000.0]
    monkeypatch.setattr(sparkplug, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    sent, messages = quiet(monkeypatch)
    command = Payload(timestamp=1)
    command.metrics.add(name="Node Control/Rebirth", datatype=11, boolean_value=True)
    for step in range(100):  # ten times a second, for ten seconds
        now_s[0] = 1000 + step / 10
        sent.received(Received("spBv1.0/axond/NCMD/dev7", command.SerializeToString()))
        sent.exchange()
    assert len(messages) == 10
    assert [r.getMessage() for r in caplog.records] == ["mirror-scada: birth asked for"]
    sent.offer([row(1)])
    sent.exchange()
    assert [topic for topic, _ in messages[10:]] == [], "no data until the birth that was asked for"
    now_s[0] += 1
    sent.exchange()
    assert [topic.split("/")[2] for topic, _ in messages[10:]] == ["NBIRTH", "NBIRTH", "NDATA"]


def test_kill_nine_leaves_the_death_that_belongs_to_the_birth(broker: Mosquitto, listener: Listener) -> None:
    script = (
        "from threading import Event\n"
        "from tests.agent.test_mirror_sparkplug import mirror\n"
        f"mirror({broker.port}).run(Event(), lambda: None)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script])
    try:
        [(kind, birth)] = heard(listener, 1)
        assert kind == "NBIRTH"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    kind, death = heard(listener, 2)[-1]
    assert kind == "NDEATH"
    assert values(death) == {"bdSeq": values(birth)["bdSeq"]}


def test_the_session_is_clean_and_ends_with_the_connection(running: Callable[[Any], Running]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        packets: list[bytes] = []

        def take() -> None:
            client, _ = server.accept()
            with client:
                packets.append(client.recv(4096))

        Thread(target=take, daemon=True).start()
        running(mirror(server.getsockname()[1]))
        eventually(lambda: packets, "a CONNECT packet")
    at = packets[0].index(b"\x00\x04MQTT") + 6
    version, flags = packets[0][at], packets[0][at + 1]
    assert version == 5
    assert flags & 0b0000_0010, "clean start"
    assert flags & 0b0011_1100 == 0b0000_1100, "a will of QoS 1 that is not retained"
    properties = packets[0][at + 5 : at + 5 + packets[0][at + 4]]
    assert b"\x11\x00\x00\x00\x00" in properties, "session expiry 0"
