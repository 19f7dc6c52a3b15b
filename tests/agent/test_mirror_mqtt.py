"""What the mirrors over MQTT have in common, where a broker or another client is unkind."""

import json
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import pytest

from agent.link import Birth
from agent.link import Event as LinkEvent
from agent.mirrors import homeassistant, mqtt_mirror
from agent.mirrors.homeassistant import HomeAssistant, HomeAssistantConfig
from agent.mirrors.mqtt_mirror import FRUITLESS, RETRY_LONGEST_S
from agent.mqtt import Broker, PahoLink
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually
from tests.mirror_peers import Listener, device, row


def mirror(broker: Mosquitto, **settings: Any) -> HomeAssistant:
    config = HomeAssistantConfig.model_validate({"host": broker.host, "port": broker.port, **settings})
    return HomeAssistant("ha", config, device())


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between connections are short; this is how long they would have been."""
    asked: list[float] = []

    def hurry(wait_s: float, stop: Event, _beat: Callable[[], None]) -> None:
        asked.append(wait_s)
        stop.wait(0.02)

    monkeypatch.setattr(mqtt_mirror, "rest", hurry)
    return asked


def test_the_client_id_can_be_no_device(broker: Mosquitto, running: Callable[[Any], Running]) -> None:
    sent = mirror(broker)
    running(sent)
    eventually(lambda: sent.state().connected, "a connection")
    assert "as dev7:ha (" in broker.log.read_text()


def test_no_more_is_under_way_than_the_broker_wants(
    make_broker: Callable[..., Mosquitto], running: Callable[[Any], Running]
) -> None:
    broker = make_broker(extra="max_inflight_messages 1")
    sent = mirror(broker)
    running(sent)
    eventually(lambda: sent.state().connected, "a connection")
    broker.freeze()
    sent.offer([row(n, f"s{n}") for n in range(5)])
    eventually(lambda: sent.room() <= 0, "a full window")
    assert not Event().wait(0.3)  # three more looks at what there is to send
    assert sent.room() == 0
    broker.thaw()
    eventually(lambda: sent.state().sent == 5, "all of them")


def test_the_longer_the_more_often_another_client_with_its_user_ends_it(
    make_broker: Callable[..., Mosquitto],
    tmp_path: Path,
    running: Callable[[Any], Running],
    waits: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On such a broker the mirror ends the uplink's connection each time it connects."""
    password = tmp_path / "password"
    password.write_text("p")
    broker = make_broker(users={"dev7": "p"}, extra="use_username_as_clientid true")
    sent = mirror(broker, username="dev7", password_file=str(password))
    running(sent)
    uplink = PahoLink(Broker(broker.host, broker.port, "dev7", password), "dev7")
    try:
        while not waits or waits[-1] <= RETRY_LONGEST_S:
            eventually(lambda: sent.state().connected, "the mirror's turn")
            eventually(lambda: not sent.under_way() and sent.room() > 5, "its messages")
            events: SimpleQueue[LinkEvent] = SimpleQueue()
            turns = len(waits)
            uplink.start(events, Birth(), None)
            eventually(lambda: len(waits) > turns, "the uplink's turn")  # noqa: B023 - asked at once
            assert len(waits) < 30
    finally:
        uplink.stop()
    assert "is there another client with this user name" in caplog.text


def test_a_message_on_which_the_broker_hangs_up_is_given_up_and_the_others_go(
    make_broker: Callable[..., Mosquitto], running: Callable[[Any], Running], waits: list[float]
) -> None:
    broker = make_broker(extra="max_packet_size 3000")
    listener = Listener(broker.port)
    sent = mirror(broker)
    running(sent)
    sent.offer([row(1, "bad", text="x" * 4000), row(2, "good")])
    eventually(lambda: sent.state().sent == 1, "the good one")
    assert sent.state().dropped == 1
    assert len(waits) >= FRUITLESS
    try:
        [state] = eventually(lambda: listener.messages("state/good"), "the good one")
        assert json.loads(state.payload)["number"] == 2
    finally:
        listener.close()


def test_what_is_refused_is_said_as_long_as_it_is_refused(
    make_broker: Callable[..., Mosquitto], running: Callable[[Any], Running]
) -> None:
    broker = make_broker(acl="topic write axond/#\n")
    sent = mirror(broker)
    running(sent)
    sent.offer([row(1)])
    eventually(lambda: sent.state().sent == 1, "what is allowed")
    assert "refuses homeassistant/sensor/dev7/" in str(sent.state().error)
    assert sent.state().connected


def test_topics_that_are_refused_in_turns_are_said_once_each(
    make_broker: Callable[..., Mosquitto],
    running: Callable[[Any], Running],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(homeassistant, "STATE_S", 0.0)
    root = "axond/homeassistant/dev7"
    broker = make_broker(
        acl=f"topic write homeassistant/#\ntopic write {root}/availability\ntopic write {root}/health\n"
    )
    sent = mirror(broker)
    running(sent)
    for number in range(1, 6):
        sent.offer([row(number, "a"), row(number, "b")])
        eventually(lambda: sent.state().dropped == 2 * number, "refusals")  # noqa: B023 - asked at once
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "refuses" in r.getMessage()]
    assert len(warnings) == 2
    assert all(any(f"state/{stream}" in warning for warning in warnings) for stream in "ab")


def test_what_was_under_way_is_accounted_for_when_the_worker_dies(
    broker: Mosquitto, running: Callable[[Any], Running]
) -> None:
    config = HomeAssistantConfig.model_validate({"host": broker.host, "port": broker.port})
    sent = HomeAssistant("ha", config, device(health=dict))
    sent.offer([row(1)])
    assert isinstance(running(sent).wait(), KeyError)
    state = sent.state()
    assert (state.connected, state.sent + state.waiting, state.dropped) == (False, 1, 0)
    assert sent.under_way() == 0
