"""The mirror to Home Assistant: its documents on a real broker, and what a real Home Assistant makes of them."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.mirrors import homeassistant
from agent.mirrors.homeassistant import HomeAssistant, HomeAssistantConfig
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually
from tests.mirror_peers import Listener, device, row

ONCE = Path(__file__).with_name("homeassistant_once.py")


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    made = Listener(broker.port)
    yield made
    made.close()


def mirror(broker: Mosquitto, **settings: Any) -> HomeAssistant:
    config = HomeAssistantConfig.model_validate({"host": broker.host, "port": broker.port, **settings})
    return HomeAssistant("ha", config, device())


def discovered(broker: Mosquitto, count: int) -> dict[str, Any]:
    """The documents that the broker keeps, by topic, once there are ``count``."""

    def found() -> dict[str, Any]:
        return {topic: json.loads(text) for topic, text in retained(broker).items() if topic.endswith("/config")}

    documents: dict[str, Any] = eventually(lambda: len(now := found()) >= count and now, f"{count} documents")
    return documents


def retained(broker: Mosquitto) -> dict[str, Any]:
    """What the broker gives to whoever comes now, by topic."""
    late = Listener(broker.port)
    try:
        late.client.publish("end")
        eventually(lambda: late.messages("end"), "all that is retained")
        return {message.topic: message.payload.decode() for message in late.messages() if message.retain}
    finally:
        late.close()


def test_discovery_is_retained_and_whole(broker: Mosquitto, running: Callable[[Any], Running]) -> None:
    sent = mirror(broker)
    running(sent)
    eventually(lambda: sent.state().connected, "a connection")
    configs = discovered(broker, 5)
    things = ("kw_label", "kw_score", "agent-health", "agent-pending", "agent-up")
    assert set(configs) == {f"homeassistant/sensor/dev7/{thing}/config" for thing in things}
    assert retained(broker)["axond/homeassistant/dev7/availability"] == "online"
    label = configs["homeassistant/sensor/dev7/kw_label/config"]
    assert label == {
        "name": "kw label",
        "state_topic": "axond/homeassistant/dev7/state/kw",
        "value_template": "{{ value_json.label }}",
        "icon": "mdi:brain",
        "json_attributes_topic": "axond/homeassistant/dev7/state/kw",
        "unique_id": "axond.dev7.kw_label",
        "availability_topic": "axond/homeassistant/dev7/availability",
        "payload_available": "online",
        "payload_not_available": "offline",
        "qos": 1,
        "device": {"identifiers": ["axond_dev7"], "name": "dev7", "manufacturer": "axond", "sw_version": "1.2.3"},
        "origin": {"name": "axond", "sw_version": "1.2.3"},
    }
    assert len({config["unique_id"] for config in configs.values()}) == len(configs)
    assert {config["device"]["identifiers"][0] for config in configs.values()} == {"axond_dev7"}


def test_the_latest_state_of_each_stream_once_a_second(
    broker: Mosquitto, listener: Listener, running: Callable[[Any], Running]
) -> None:
    sent = mirror(broker)
    running(sent)
    eventually(lambda: sent.state().connected, "a connection")
    sent.offer([row(0), row(1, "walk")])
    eventually(lambda: sent.state().sent == 2, "one of each stream")
    sent.offer([row(n) for n in range(2, 6)])
    eventually(lambda: sent.state().sent == 3, "the latest")
    messages = eventually(lambda: len(m := listener.messages("state/kw")) >= 2 and m, "two states")
    states = [json.loads(message.payload) for message in messages]
    assert [state["number"] for state in states] == [0, 5]
    assert states[0].keys() == {"label", "score", "number", "time"}
    assert sent.state().skipped == 3
    assert retained(broker)["axond/homeassistant/dev7/state/kw"] == listener.messages("state/kw")[1].payload.decode()


def test_states_that_expire_are_not_retained(broker: Mosquitto, running: Callable[[Any], Running]) -> None:
    sent = mirror(broker, expire_after_s=60)
    running(sent)
    sent.offer([row(0)])
    eventually(lambda: sent.state().sent, "a state")
    assert discovered(broker, 5)["homeassistant/sensor/dev7/kw_score/config"]["expire_after"] == 60
    assert "axond/homeassistant/dev7/state/kw" not in retained(broker)


def test_more_streams_than_a_window_are_all_discovered(broker: Mosquitto, running: Callable[[Any], Running]) -> None:
    streams = [f"s{number}" for number in range(20)]
    info = {"boot": "b0", "streams": {stream: {"columns": {}, "model": "m"} for stream in streams}}
    config = HomeAssistantConfig.model_validate({"host": broker.host, "port": broker.port})
    sent = HomeAssistant("ha", config, device(info=lambda: info))
    assert len(sent.birth().messages) == 1
    running(sent)
    assert len(discovered(broker, 2 * len(streams) + 3)) == 2 * len(streams) + 3


def test_no_two_devices_have_a_thing_with_one_id(broker: Mosquitto, running: Callable[[Any], Running]) -> None:
    config = HomeAssistantConfig.model_validate({"host": broker.host, "port": broker.port})
    for name, stream in (("a", "b_c"), ("a_b", "c")):
        info = {"boot": "b0", "streams": {stream: {"columns": {}, "model": "m"}}}
        running(HomeAssistant("ha", config, device(id=name, info=lambda info=info: info)))
    documents = discovered(broker, 10)
    assert len({document["unique_id"] for document in documents.values()}) == 10


def test_it_is_offline_after_a_stop(broker: Mosquitto, running: Callable[[Any], Running]) -> None:
    sent = mirror(broker)
    worker = running(sent)
    eventually(lambda: sent.state().connected, "a connection")
    worker.stop()
    assert retained(broker)["axond/homeassistant/dev7/availability"] == "offline"


def test_the_will_says_offline(broker: Mosquitto) -> None:
    will = mirror(broker).death()
    assert (will.message.topic, will.message.payload) == ("axond/homeassistant/dev7/availability", b"offline")
    assert (will.message.qos, will.message.retain) == (1, True)


def test_what_was_not_acknowledged_comes_after_the_outage_and_the_latest_wins(
    broker: Mosquitto, running: Callable[[Any], Running]
) -> None:
    sent = mirror(broker)
    running(sent)
    eventually(lambda: sent.state().connected, "a connection")
    broker.freeze()
    sent.offer([row(0)])
    eventually(lambda: sent.under_way() == 1 and not sent.copies, "a state under way")
    sent.offer([row(1)])
    eventually(lambda: not sent.copies, "the next one taken")
    broker.kill()
    eventually(lambda: sent.state().error, "a sentence")
    broker.start()
    eventually(lambda: sent.state().sent == 1, "the state")
    assert json.loads(retained(broker)["axond/homeassistant/dev7/state/kw"])["number"] == 1
    assert sent.state().skipped == 1


def test_a_real_home_assistant_shows_them(
    broker: Mosquitto, running: Callable[[Any], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    python = os.environ.get("AXOND_HOMEASSISTANT")
    if not python:
        pytest.skip(f"AXOND_HOMEASSISTANT names no Python with Home Assistant (see {ONCE.name})")
    monkeypatch.setattr(homeassistant, "HEALTH_S", 0.5)
    sent = mirror(broker)
    running(sent)
    sent.offer([row(1, more=2.5)])
    eventually(lambda: sent.state().sent, "a state")
    once = [python, str(ONCE), str(broker.port), "5", "30"]
    done = subprocess.run(once, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert [line for line in shown["log"] if "mqtt" in line] == []
    states = shown["states"]
    assert {thing.removeprefix("sensor.dev7_"): state["state"] for thing, state in states.items()} == {
        "kw_label": "yes",
        "kw_score": "0.5",
        "health": "ok",
        "pending": "3.0",
        "up": "12.5",
    }
    assert states["sensor.dev7_kw_label"]["more"] == "2.5"
    assert states["sensor.dev7_kw_score"]["state_class"] == "measurement"
    assert shown["devices"] == [["dev7", "axond", "1.2.3"]]
