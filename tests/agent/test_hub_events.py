"""Events of devices, and what a person has taken note of: kept on SQLite and PostgreSQL, shown, bounded."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from agent import wire
from agent.__main__ import main
from agent.hub import events
from agent.hub.alarms import QUIET_US, Report
from agent.hub.database import Target
from agent.hub.reader import HubReader
from agent.hub.service import Hub
from agent.hub.store import Arrivals, HubStore
from agent.ledger import Counts
from agent.messages import ledger_event
from agent.mqtt import Broker
from tests.agent.test_hub import Peer
from tests.agent.test_hub_store import KEY, arrivals, batch, gap, told
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]


@pytest.fixture
def store(target: Target) -> Iterator[HubStore]:
    with closing(HubStore.open(target)) as opened:
        yield opened


def said(*numbers: int, device: str = "d1") -> Arrivals:
    return Arrivals(events={device: [json.dumps({"event": "made", "n": number}) for number in numbers]})


def kept(store: HubReader, device: str = "d1") -> list[tuple[int, Any]]:
    return [(one.number, one.event["n"]) for one in store.events(device, 10**6)]


def test_events_are_numbered_and_what_comes_again_is_kept_once(store: HubStore) -> None:
    store.store(said(7, 8, 7))
    store.store(said(8, 9))
    store.store(said(7, device="d2"))
    assert kept(store) == [(1, 7), (2, 8), (3, 9)]
    assert kept(store, "d2") == [(1, 7)]
    assert [(one.device, one.number) for one in store.events(limit=2)] == [("d1", 3), ("d2", 1)]
    assert [(one.name, one.events, one.last_event["n"]) for one in store.devices()] == [("d1", 3, 9), ("d2", 1, 7)]
    assert store.devices()[0].last_us > 0


def test_the_newest_of_each_device_are_kept(store: HubStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEPT", 5)
    store.store(said(1, device="quiet"))
    for first in range(0, 12, 3):
        store.store(said(first, first + 1, first + 2))
    store.store(said(*range(20, 40)))
    assert kept(store) == [(28, 35), (29, 36), (30, 37), (31, 38), (32, 39)], "their numbers say that 27 went"
    assert store.devices()[0].events == 32
    assert kept(store, "quiet") == [(1, 1)]


def test_hubs_side_by_side_number_events_together(target: Target) -> None:
    together = Barrier(3)

    def work(hub: int) -> None:
        with closing(HubStore.open(target)) as own:
            together.wait(20)
            for number in range(20):
                own.store(said(100 * hub + number, 10_000 + number))

    threads = [Thread(target=work, args=(hub,)) for hub in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with closing(HubStore.open_for_reading(target)) as reader:
        found = kept(reader)
    assert [number for number, _ in found] == list(range(1, 81))
    assert len({what for _, what in found}) == 80


def test_a_devices_alarm_is_stored_and_shown(
    tmp_path: Path, broker: Mosquitto, running: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hub.db"
    hubs = [Hub(Broker(broker.host, broker.port), path, client_id=f"side-{n}", shared=True) for n in range(2)]
    for hub in hubs:
        running(hub)
        assert hub.connected.wait(20)
    device = Peer(broker)
    try:
        for counts in (Counts(produced=3, delivered=2), Counts(produced=3, delivered=3)):
            message = ledger_event(device.topics, "b1", "kw", counts)
            device.send(message.topic, message.payload)
        device.send(device.topics.event, b"no json")

        def stored() -> bool:
            with closing(HubReader.open_for_reading(path)) as reader:
                return len(reader.events()) == 2 and reader.rejected() == {("d1", "bad event"): 1}

        eventually(stored, "both events, once each")
    finally:
        device.close()
    assert main(["hub", "events", "--json", "--db", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(one["event"]["state"], one["event"]["boot"], one["event"]["delivered"]) for one in found} == {
        ("raised", "b1", 2),
        ("cleared", "b1", 3),
    }
    assert main(["hub", "events", "--db", str(path), "--device", "d1", "--limit", "1"]) == 0
    assert "event ledger, state" in capsys.readouterr().out
    assert main(["hub", "devices", "--db", str(path)]) == 0
    assert "ledger" in capsys.readouterr().out


@pytest.fixture
def ended(target: Target, monkeypatch: pytest.MonkeyPatch) -> str:
    """A boot has ended, and two of its results never came."""
    with closing(HubStore.open(target)) as store:
        store.store(arrivals(batch(1, 3)))
        for _ in range(2):
            store.store(Arrivals(told={KEY: told(5, 3, pending=2)}, reports={"d1": Report("b1", idle=True)}))
        monkeypatch.setattr("agent.hub.store.wall_us", lambda: wire.wall_us() + 2 * QUIET_US)
        assert len(store.store(Arrivals(reports={"d1": Report("b2", idle=True)})).alarms) == 1
    return str(target)


def ledger(target: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["hub", "ledger", "--json", "--db", target])
    (line,) = json.loads(capsys.readouterr().out)
    return code, line


def test_what_a_person_accepted_is_shown_and_fails_nothing_unless_it_grows(
    ended: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = ledger(ended, capsys)
    assert (code, line["open"], line["accepted"]) == (1, True, 0)
    assert main(["hub", "accept", "--db", ended, "--device", "d1", "--boot", "b1"]) == 0
    sentence = "the boot has ended and 2 of its 5 results never came"
    assert capsys.readouterr().out == f"accepted: device d1, boot b1, stream kw: {sentence}\n"
    code, line = ledger(ended, capsys)
    assert (code, line["open"], line["accepted"], line["problem"]) == (0, False, 2, sentence)
    assert line["accepted_us"] > 0
    assert main(["hub", "ledger", "--db", ended]) == 0
    assert "accepted 20" in capsys.readouterr().out
    with closing(HubStore.open(ended)) as store:
        assert store.devices()[0].alarms == 0
        store.store(arrivals(batch(8)))
        store.store(Arrivals(reports={"d1": Report("b2", idle=True)}))
        assert store.devices()[0].alarms == 1
    code, line = ledger(ended, capsys)
    assert (code, line["problem"]) == (1, "the boot has ended and 4 of its 8 results never came")
    assert main(["hub", "accept", "--db", ended, "--device", "d1", "--boot", "b1", "--stream", "kw"]) == 0
    capsys.readouterr()
    assert ledger(ended, capsys)[0] == 0
    with closing(HubStore.open(ended)) as store:
        store.store(arrivals(gap(4, 7)))
        store.store(Arrivals(reports={"d1": Report("b2", idle=True)}))
    code, line = ledger(ended, capsys)
    assert (code, line["problem"], line["open"]) == (0, None, False)


def test_nothing_is_accepted_that_is_not_there(ended: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--boot", "b2"], ["--boot", "b1", "--stream", "imu"]):
        assert main(["hub", "accept", "--db", ended, "--device", "d1", *wrong]) == 1
        assert "nothing to accept; axond hub ledger says what is wrong" in capsys.readouterr().err
    none = tmp_path / "none.db"
    assert main(["hub", "accept", "--db", str(none), "--device", "d1", "--boot", "b1"]) == 1
    assert "has a hub run with this path?" in capsys.readouterr().err
    assert not none.exists()
    assert ledger(ended, capsys)[0] == 1
