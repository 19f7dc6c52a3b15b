"""Hubs side by side, and hubs whose database goes away: nothing is lost, nothing is stored twice, all mends itself."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.hub.database import Target
from agent.hub.reader import HubReader
from agent.hub.service import Hub
from agent.hub.store import HubStore
from agent.mqtt import Broker
from agent.wire import wall_us
from tests.agent.test_hub import Peer, batch
from tests.agent.test_uplink_hub import Device
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually
from tests.databases import Postgres, missing

Start = Callable[[Any], Running]
KILLS = int(os.environ.get("AXOND_HUB_KILLS", "4"))


def at(broker: Mosquitto) -> Broker:
    return Broker(broker.host, broker.port)


@contextmanager
def hub_process(broker: Mosquitto, target: Target, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``axond hub run --shared``, connected; killed at the end."""
    where = ["--port", str(broker.port), "--db", str(target)]
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "agent", "hub", "run", "--shared", *where]
        with subprocess.Popen(command, stdout=sink, stderr=sink) as process:
            try:
                eventually(lambda: b"hub connected" in log.read_bytes(), "hub connected")
                yield process
            finally:
                process.kill()


def taken(broker: Mosquitto, name: str) -> int:
    """How many batches the broker has handed to clients whose names begin so."""
    lines = broker.log.read_text().splitlines()
    return sum(f"Sending PUBLISH to {name}" in line and "/up/res/" in line for line in lines)


def test_hubs_side_by_side_share_the_work(tmp_path: Path, target: Target, broker: Mosquitto, running: Start) -> None:
    hubs = [Hub(at(broker), target, client_id=f"side-{n}", shared=True) for n in range(2)]
    for hub in hubs:
        running(hub)
        assert hub.connected.wait(30)
    device = Device(tmp_path, at(broker), running)
    for _ in range(20):
        device.put(200)
        assert device.outbox.wait_drained(60)
    with closing(HubReader.open_for_reading(target)) as reader:
        (account,) = reader.ledger()
        assert (account.upto, account.stored, account.ahead, account.problem) == (4000, 4000, 0, None)
        assert [row["n"] for row in reader.results("d1", "kw", 10**6)] == list(range(4000))
        assert reader.devices()[0].status["state"] == "online"
    assert taken(broker, "side-0-") > 0
    assert taken(broker, "side-1-") > 0


def test_one_of_two_hubs_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, target: Target, broker: Mosquitto, running: Start
) -> None:
    with ExitStack() as stack:
        stack.enter_context(hub_process(broker, target, tmp_path / "steady.log"))
        device = Device(tmp_path, at(broker), running)
        for number in range(KILLS):
            with hub_process(broker, target, tmp_path / f"killed{number}.log") as killed:
                before = device.uplink.state().delivered
                device.put(600)
                eventually(lambda before=before: device.uplink.state().delivered > before, "delivers")  # type: ignore[misc]
                killed.send_signal(signal.SIGKILL)
                device.put(600)
        assert device.outbox.wait_drained(60)
        with closing(HubReader.open_for_reading(target)) as reader:
            assert [row["n"] for row in reader.results("d1", "kw", 10**6)] == list(range(1200 * KILLS))
            (account,) = reader.ledger()
            assert (account.stored, account.problem) == (1200 * KILLS, None)


def test_a_shared_hub_hears_of_devices_that_were_there_before(
    tmp_path: Path, broker: Mosquitto, running: Start
) -> None:
    device = Peer(broker)
    try:
        device.send(device.topics.status, b'{"state":"online","boot":"b1"}', retain=True)
        hub = Hub(at(broker), tmp_path / "hub.db", shared=True)
        running(hub)
        assert hub.connected.wait(30)

        def known() -> bool:
            with closing(HubReader.open_for_reading(tmp_path / "hub.db")) as reader:
                return [one.status.get("state") for one in reader.devices()] == ["online"]

        eventually(known, "the retained status")
    finally:
        device.close()


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server that a test may stop."""
    if reason := missing():
        pytest.skip(reason)
    made = Postgres()
    try:
        yield made.start()
    finally:
        made.remove()


def test_a_database_that_is_restarted_is_waited_for(
    tmp_path: Path, broker: Mosquitto, running: Start, server: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "agent.hub.service")
    target = server.create()
    hub = Hub(at(broker), target)
    running(hub)
    assert hub.connected.wait(30)
    device = Device(tmp_path, at(broker), running)
    device.put(300)
    assert device.outbox.wait_drained(60)
    server.stop()
    device.put(300)
    eventually(lambda: caplog.text.count("messages wait") >= 4, "said")
    said = [one.levelname for one in caplog.records if "messages wait" in one.getMessage()]
    assert (said[0], said[-1]) == ("WARNING", "DEBUG")
    server.start()
    assert device.outbox.wait_drained(60)
    eventually(lambda: "hub stores again after" in caplog.text, "said that it is over")
    with closing(HubReader.open_for_reading(target)) as reader:
        assert [row["n"] for row in reader.results("d1", "kw", 10**6)] == list(range(600))
        assert reader.ledger()[0].problem is None


def test_a_database_that_is_away_at_the_start_is_waited_for(
    broker: Mosquitto, running: Start, server: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    target = server.create()
    server.stop()
    hub = Hub(at(broker), target)
    running(hub)
    eventually(lambda: "waiting for it" in caplog.text, "said")
    server.start()
    assert hub.connected.wait(30)


def test_a_hub_that_hangs_in_a_transaction_does_not_hold_up_the_others(
    broker: Mosquitto, running: Start, server: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    target = server.create()
    hub = Hub(at(broker), target)
    running(hub)
    assert hub.connected.wait(30)
    device = Peer(broker)
    try:
        device.send_batch(batch(1))
        device.answered(upto=1)
        with closing(HubStore.open(target)) as hanging, hanging._engine.connect() as connection:
            connection.exec_driver_sql("SELECT * FROM streams FOR UPDATE")
            device.send_batch(batch(2))
            eventually(lambda: "lock timeout" in caplog.text, "said")
            device.answered(upto=2)
            connection.invalidate()
    finally:
        device.close()


def test_a_file_that_is_locked_at_the_start_is_waited_for(
    tmp_path: Path, broker: Mosquitto, running: Start, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "hub.db"
    with closing(HubStore.open(path)) as intruder:
        with intruder._engine.begin():
            hub = Hub(at(broker), path)
            running(hub)
            eventually(lambda: "waiting for it" in caplog.text, "said")
        assert hub.connected.wait(30)


def test_an_alarm_is_said_once_and_its_end_too(
    tmp_path: Path, broker: Mosquitto, running: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent.hub.service")
    path = tmp_path / "hub.db"
    hub = Hub(at(broker), path)
    running(hub)
    assert hub.connected.wait(30)
    device = Peer(broker)

    def report(delivered: int) -> None:
        """Waits until it is judged: of reports in one group only the last one is."""
        ledger = {"produced": 5, "delivered": delivered, "pending": 5 - delivered, "evicted": 0, "refused": 0}
        numbers = {f"ledger_kw_{name}": number for name, number in ledger.items()}
        device.send(device.topics.metrics, json.dumps(numbers).encode(), boot="b1")

        def judged() -> bool:
            with closing(HubReader.open_for_reading(path)) as reader:
                (line,) = reader.ledger("d1")
            alarm = line.alarm.sentence if line.alarm else "delivered 3"
            return f"delivered {delivered}" in alarm

        eventually(judged, f"judged {delivered}")

    try:
        device.send_batch(batch(1, 3))
        device.answered(upto=3)
        for delivered in (4, 5, 4, 3):
            report(delivered)
        eventually(lambda: "books agree again" in caplog.text, "over")
    finally:
        device.close()
    said = [(one.levelname, one.getMessage()) for one in caplog.records if "books" in one.getMessage()]
    what = "device d1, boot b1, stream kw"
    assert said == [
        ("ERROR", f"{what}: the books do not agree: the device delivered 4, stored are 3"),
        ("INFO", f"{what}: the books agree again"),
    ]


def test_a_hub_keeps_results_as_long_as_it_is_told(
    tmp_path: Path, broker: Mosquitto, running: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "hub.db"
    first = Hub(at(broker), path)
    runs = running(first)
    assert first.connected.wait(30)
    device = Peer(broker)
    try:
        for seq in range(1, 301):
            device.send_batch(batch(seq))
        device.answered(upto=300)
    finally:
        device.close()
    runs.stop()
    untrusted = running(Hub(at(broker), path, keep_days=1e-9))
    eventually(lambda: "no old results are removed until" in caplog.text, "it says why all stays")
    untrusted.stop()
    with closing(HubStore.open(path)) as store:
        (account,) = store.ledger()
        assert (account.expired, len(store.stretches)) == (0, 1)
        store.trust(wall_us())
    running(Hub(at(broker), path, keep_days=1e-9))

    def gone() -> bool:
        with closing(HubReader.open_for_reading(path)) as reader:
            (account,) = reader.ledger()
            return (account.expired, account.stored, account.problem) == (300, 300, None)

    eventually(gone, "everything has expired")
