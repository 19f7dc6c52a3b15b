"""The whole agent as a process: it finds the broker that is there, shows its results live and delivers them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from agent.link import Birth, Connected, Event, Received
from agent.mqtt import Broker, PahoLink
from tests.agent.raw_hub import RawHub
from tests.brokers import Mosquitto, free_port
from tests.conftest import eventually
from tests.end_to_end.rig import Rig, rig


@pytest.fixture
def place(tmp_path: Path, broker: Mosquitto) -> Iterator[Rig]:
    """An agent whose first broker is dead; the microphone plays a file, the other sensor is missing."""
    with rig(tmp_path, None) as made:
        made.write_config(
            extra=f'[uplink]\nhost = "127.0.0.1"\nport = {free_port()}\nfallbacks = ["127.0.0.1:{broker.port}"]\n'
            "metrics_interval_s = 1\n"
        )
        yield made


@pytest.fixture
def hears(broker: Mosquitto) -> Iterator[Callable[[str], dict[str, Any]]]:
    """The next document on a topic."""
    link, events = PahoLink(Broker(broker.host, broker.port), "display"), SimpleQueue[Event]()
    link.start(events, Birth(("axond/v1/rig/up/#",)), None)
    assert isinstance(events.get(timeout=20), Connected)
    documents: dict[str, dict[str, Any]] = {}

    def read(topic: str) -> dict[str, Any]:
        while topic not in documents:
            try:
                event = events.get_nowait()
            except Empty:
                return {}
            if isinstance(event, Received) and not event.topic.startswith("axond/v1/rig/up/res/"):
                documents[event.topic] = json.loads(event.payload)
        return documents[topic]

    yield read
    link.stop()


def test_the_agent_delivers_through_its_second_broker_and_shows_results_live(
    place: Rig, broker: Mosquitto, hears: Callable[[str], dict[str, Any]]
) -> None:
    hub = RawHub(broker.port).start()
    try:
        agent = place.agent()
        live = eventually(lambda: hears("axond/v1/rig/up/live/sound"), "a result is shown")
        assert live["ts"].endswith("Z") and isinstance(live["label"], str) and isinstance(live["score"], float)
        assert not any(isinstance(value, list | dict) for value in live.values())
        state = place.status()["uplink"]
        assert (state["connected"], state["broker"], state["mqtt"]) == (True, f"127.0.0.1:{broker.port}", "5")
        boot = place.status()["boot"]
        eventually(lambda: hub.numbers(boot, "sound", "rig"), "delivered")
        code, _ = agent.stop()
        assert code == 0 and "Traceback" not in agent.text()
        numbers = hub.numbers(boot, "sound", "rig")
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) == place.committed()[boot, "sound"]
        assert hears("axond/v1/rig/up/event") == {}, "no alarm: the ledger balances"
    finally:
        hub.stop()
