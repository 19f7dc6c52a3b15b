"""Brokers that do not speak MQTT 5, and several brokers in order."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import pytest

from agent import mqtt
from agent.link import Acked, Birth, Connected, Death, Disconnected, Event, Message, Received
from agent.mqtt import Broker, PahoLink
from agent.outbox import Outbox
from agent.uplink import Uplink
from tests.agent.raw_hub import RawHub
from tests.brokers import Mosquitto, free_port
from tests.conftest import Running, eventually

NATS = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")
Start = Callable[[Any], Running]
CONNACK_WRONG_VERSION = bytes([0x20, 2, 0, 1])
CONNACK = bytes([0x20, 2, 0, 0])


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[int]:
    """The port of a real broker that speaks MQTT 3.1.1 only."""
    if NATS is None:
        pytest.skip("nats-server is not installed")
    port = free_port()
    config = tmp_path / "nats.conf"
    config.write_text(
        f"listen: 127.0.0.1:{free_port()}\nserver_name: test\njetstream {{ store_dir: {tmp_path / 'nats'} }}\n"
        f"mqtt {{ host: 127.0.0.1, port: {port} }}\n"
    )
    log = (tmp_path / "nats.log").open("wb")
    with log, subprocess.Popen([NATS, "-c", config], stdout=log, stderr=log) as server:
        try:
            eventually(lambda: _listens(port), "nats-server listens")
            yield port
        finally:
            server.send_signal(signal.SIGKILL)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
        return True
    return False


class Stub:
    """A broker's first bytes: for each connection what it does with the version that the client offers."""

    def __init__(self, answer: Callable[[int, int], bytes]) -> None:
        """``answer`` takes the number of the connection and the version (4: 3.1.1, 5); empty hangs up."""
        self.versions: list[int] = []
        self.clean: list[bool] = []
        """Whether each of them wants nothing of an earlier session."""
        self._answer = answer
        self._held: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)
        for held in self._held:
            held.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            packet = client.recv(4096)
            version, flags = packet[packet.index(b"MQTT") + 4 :][:2]
            self.clean.append(bool(flags & 2))
            self.versions.append(version)
            answer = self._answer(len(self.versions), version)
            if not answer:
                client.close()
                continue
            client.sendall(answer)
            self._held.append(client)


@pytest.fixture
def stub() -> Iterator[Callable[..., Stub]]:
    with ExitStack() as stack:

        def make(answer: Callable[[int, int], bytes]) -> Stub:
            made = Stub(answer)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def link_to() -> Iterator[Callable[..., PahoLink]]:
    with ExitStack() as stack:

        def make(*ports: int, **options: Any) -> PahoLink:
            brokers = [Broker("127.0.0.1", port) for port in ports]
            link = PahoLink(brokers[0], "d1", fallbacks=brokers[1:], **options)
            stack.callback(link.stop)
            return link

        yield make


def attempt(link: PahoLink, birth: Birth | None = None, death: Death | None = None) -> Event:
    """What one ``start`` leads to."""
    events = SimpleQueue[Event]()
    link.start(events, birth or Birth(), death)
    return events.get(timeout=20)


def test_a_broker_that_refuses_mqtt_5_is_spoken_to_in_3_1_1_from_then_on(
    stub: Callable[..., Stub], link_to: Callable[..., PahoLink]
) -> None:
    old = stub(lambda number, version: CONNACK_WRONG_VERSION if version == 5 else CONNACK)
    link = link_to(old.port)
    refused = attempt(link)
    assert isinstance(refused, Disconnected) and "going on with MQTT 3.1.1" in refused.sentence
    for _ in range(3):
        connected = attempt(link)
        assert connected == Connected(65535, f"127.0.0.1:{old.port}", "3.1.1")
    assert old.versions == [5, 4, 4, 4]


@pytest.mark.parametrize("persistent_s", [0, 3600])
def test_a_session_is_kept_if_wanted_in_both_versions(
    stub: Callable[..., Stub], link_to: Callable[..., PahoLink], persistent_s: int
) -> None:
    old = stub(lambda number, version: CONNACK_WRONG_VERSION if version == 5 else CONNACK)
    link = link_to(old.port, persistent_s=persistent_s)
    attempt(link)
    assert isinstance(attempt(link), Connected)
    assert old.clean == [not persistent_s] * 2


def test_a_broker_that_hangs_up_on_mqtt_5_again_after_it_has_answered_3_1_1_is_an_old_one(
    stub: Callable[..., Stub], link_to: Callable[..., PahoLink]
) -> None:
    old = stub(lambda number, version: CONNACK if version == 4 else b"")
    link = link_to(old.port)
    answers = [attempt(link) for _ in range(6)]
    kinds = [type(answer) for answer in answers]
    assert kinds == [Disconnected, Disconnected, Disconnected, Connected, Disconnected, Connected]
    assert old.versions == [5, 4, 5, 4, 5, 4], "each time it is asked for MQTT 5 first"
    assert answers[3] == Connected(65535, f"127.0.0.1:{old.port}", "3.1.1")
    sentences = [answer.sentence for answer in answers if isinstance(answer, Disconnected)]
    assert sentences[0] == sentences[2] == sentences[3] and "asked for MQTT 5 once more" in sentences[1]


CONNACK_5 = bytes([0x20, 3, 0, 0, 0])


def test_a_proxy_whose_broker_is_just_starting_is_not_taken_for_an_old_broker(
    stub: Callable[..., Stub], link_to: Callable[..., PahoLink]
) -> None:
    """A device that was restarted meanwhile once stayed with MQTT 3.1.1 as long as the connection held."""
    new = stub(lambda number, version: b"" if number in (1, 4) else CONNACK_5 if version == 5 else CONNACK)
    link = link_to(new.port)
    kinds = [type(attempt(link)) for _ in range(5)]
    assert kinds == [Disconnected, Disconnected, Connected, Disconnected, Connected]
    assert new.versions == [5, 4, 5, 5, 5], "one that has spoken MQTT 5 is asked for nothing else"


def test_a_proxy_without_a_broker_is_one_sentence(stub: Callable[..., Stub], link_to: Callable[..., PahoLink]) -> None:
    link = link_to(stub(lambda number, version: b"").port)
    answers = [attempt(link) for _ in range(4)]
    assert len({answer.sentence for answer in answers if isinstance(answer, Disconnected)}) == 1


def test_the_other_brokers_keep_their_version(
    broker: Mosquitto, stub: Callable[..., Stub], link_to: Callable[..., PahoLink]
) -> None:
    old = stub(lambda number, version: CONNACK_WRONG_VERSION)
    link = link_to(old.port, broker.port)
    first, second, third = attempt(link), attempt(link), attempt(link)
    assert isinstance(first, Disconnected) and isinstance(second, Disconnected)
    assert old.versions == [5, 4]
    assert isinstance(third, Connected) and (third.broker, third.mqtt) == (f"127.0.0.1:{broker.port}", "5")


def test_brokers_are_tried_in_order_and_the_first_again_after_a_connection_that_held(
    make_broker: Callable[..., Mosquitto], link_to: Callable[..., PahoLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "STEADY_S", 0.3)
    second = make_broker()
    dead = free_port()
    link = link_to(dead, second.port)
    events = SimpleQueue[Event]()
    assert isinstance(attempt(link), Disconnected)
    link.start(events, Birth(), None)
    connected = events.get(timeout=20)
    assert isinstance(connected, Connected) and connected.broker == f"127.0.0.1:{second.port}"
    with pytest.raises(Empty):
        events.get(timeout=0.5)
    second.kill()
    assert isinstance(events.get(timeout=20), Disconnected)
    refused = attempt(link)
    assert isinstance(refused, Disconnected) and f":{dead}" in refused.sentence, "the first is tried first again"


def test_a_broker_that_throws_us_out_at_once_is_a_failure_too(
    broker: Mosquitto, stub: Callable[..., Stub], link_to: Callable[..., PahoLink]
) -> None:
    """Else the list would begin anew with it for ever."""
    rude = stub(lambda number, version: bytes([0x20, 3, 0, 0, 0]))
    link, events = link_to(rude.port, broker.port), SimpleQueue[Event]()
    link.start(events, Birth(), None)
    assert isinstance(events.get(timeout=20), Connected)
    eventually(lambda: bool(rude._held), "the stub holds the connection")
    rude._held[0].shutdown(socket.SHUT_RDWR)
    assert isinstance(events.get(timeout=20), Disconnected)
    connected = attempt(link)
    assert isinstance(connected, Connected) and connected.broker == f"127.0.0.1:{broker.port}"


def test_3_1_1_carries_the_payload_and_answers_without_reasons(nats: int, link_to: Callable[..., PahoLink]) -> None:
    link = link_to(nats)
    assert isinstance(attempt(link), Disconnected)
    events = SimpleQueue[Event]()
    birth = Birth(("t/in",), (Message("t/born", b"{}", retain=True, properties={"k": "v"}, content_type="a/b"),))
    link.start(events, birth, Death(Message("t/will", b"lost", retain=True, content_type="a/b")))
    connected = events.get(timeout=20)
    assert isinstance(connected, Connected) and connected.mqtt == "3.1.1"
    link.send(7, Message("t/in", b"payload", properties={"k": "v"}, content_type="a/b"))
    heard = {type(event): event for event in (events.get(timeout=20), events.get(timeout=20))}
    answer, received = heard[Acked], heard[Received]
    assert isinstance(answer, Acked) and (answer.seq, answer.code) == (7, 0)
    assert isinstance(received, Received) and (received.payload, received.properties) == (b"payload", {})


def test_results_arrive_over_a_real_broker_of_3_1_1(
    nats: int, tmp_path: Path, running: Start, link_to: Callable[..., PahoLink]
) -> None:
    hub = RawHub(nats, mqtt5=False).start()
    try:
        outbox = Outbox(tmp_path / "o.db", boot="b1")
        running(outbox)
        assert outbox.opened.wait(10)
        for number in range(500):
            outbox.put("kw", {"n": number})
        uplink = Uplink(outbox, link_to(nats), "d1", info=dict, metrics=dict, agent_version="0.1.0", stall_first_s=1.0)
        running(uplink)
        assert outbox.wait_drained(30)
        assert hub.numbers() == list(range(1, 501)) and not hub.missing
        state = uplink.state()
        assert (state.connected, state.mqtt, state.broker) == (True, "3.1.1", f"127.0.0.1:{nats}")
    finally:
        hub.stop()


def test_the_state_says_which_broker_is_in_use(
    broker: Mosquitto,
    tmp_path: Path,
    running: Start,
    link_to: Callable[..., PahoLink],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "agent.uplink")
    outbox = Outbox(tmp_path / "o.db", boot="b1")
    running(outbox)
    uplink = Uplink(outbox, link_to(free_port(), broker.port), "d1", info=dict, metrics=dict, agent_version="0.1.0")
    running(uplink)
    eventually(lambda: uplink.state().connected, "connected")
    where = f"127.0.0.1:{broker.port}"
    assert (uplink.state().broker, uplink.state().mqtt) == (where, "5")
    assert f"uplink connected to {where}" in caplog.text
