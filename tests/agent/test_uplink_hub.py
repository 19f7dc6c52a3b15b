"""Device, broker and hub together: nothing is lost and nothing is stored twice, whoever dies."""

import json
import logging
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import Any

import pytest

from agent.hub.books import StreamLedger
from agent.hub.service import Hub
from agent.hub.store import HubStore
from agent.link import Birth, Event, Received
from agent.mqtt import Broker, PahoLink
from agent.outbox import Outbox
from agent.record import Priority
from agent.uplink import Uplink
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]
Brokers = Callable[..., Mosquitto]


def at(broker: Mosquitto, **access: Any) -> Broker:
    return Broker(broker.host, broker.port, **access)


class Device:
    def __init__(self, folder: Path, broker: Broker, running: Start, boot: str = "b1", **options: Any) -> None:
        self.outbox = Outbox(folder / "outbox.db", boot=boot)
        self.outbox_runs = running(self.outbox)
        assert self.outbox.opened.wait(10)
        options = {"metrics_interval_s": 0.3, "stall_first_s": 0.5, **options}
        self.uplink = Uplink(
            *(self.outbox, PahoLink(broker, "d1"), "d1"),
            **{"info": dict, "metrics": dict, "agent_version": "0.1.0", **options},
        )
        self.uplink_runs = running(self.uplink)
        self.numbers = iter(range(10**9))

    def put(self, count: int) -> None:
        for _ in range(count):
            self.outbox.put("kw", {"n": next(self.numbers)}, priority=random.choice(list(Priority)))

    def stop(self) -> None:
        self.uplink_runs.stop()
        self.outbox_runs.stop()


def accounts(path: Path) -> list[StreamLedger]:
    with closing(HubStore.open_for_reading(path)) as store:
        return store.ledger()


def numbers(path: Path, boot: str = "b1") -> list[Any]:
    with closing(HubStore.open_for_reading(path)) as store:
        return [row["n"] for row in store.results("d1", "kw", 10**6, boot=boot)]


def start_hub(broker: Mosquitto, path: Path, running: Start) -> Running:
    hub = Hub(at(broker), path)
    started = running(hub)
    assert hub.connected.wait(30)
    return started


def test_everything_arrives_once_and_the_books_agree(tmp_path: Path, running: Start, broker: Mosquitto) -> None:
    path = tmp_path / "hub.db"
    start_hub(broker, path, running)
    device = Device(tmp_path, at(broker), running)
    device.put(5000)
    assert device.outbox.wait_drained(60)
    assert numbers(path) == list(range(5000))
    eventually(lambda: (accounts(path)[0].reported or {}).get("delivered") == 5000, "device tells its books")
    (account,) = accounts(path)
    assert (account.problem, account.duplicates, account.missing) == (None, 0, 0)


def test_a_broker_killed_again_and_again_loses_nothing(tmp_path: Path, running: Start, broker: Mosquitto) -> None:
    path = tmp_path / "hub.db"
    start_hub(broker, path, running)
    device = Device(tmp_path, at(broker), running)
    for _ in range(4):
        before = device.uplink.state().delivered
        device.put(400)
        eventually(lambda before=before: device.uplink.state().delivered > before, "something is delivered")  # type: ignore[misc]
        broker.kill()
        device.put(400)
        eventually(lambda: not device.uplink.state().connected, "noticed")
        broker.start()
    assert device.outbox.wait_drained(60)
    assert numbers(path) == list(range(3200))
    (account,) = accounts(path)
    assert (account.stored, account.problem) == (3200, None)


def test_a_hub_that_is_away_loses_nothing(tmp_path: Path, running: Start, make_broker: Brokers) -> None:
    broker = make_broker(extra="max_queued_messages 10\nmax_inflight_messages 5")
    path = tmp_path / "hub.db"
    hub = start_hub(broker, path, running)
    device = Device(tmp_path, at(broker), running)
    device.put(100)
    assert device.outbox.wait_drained(60)
    hub.stop()
    for _ in range(30):
        device.put(10)
        eventually(lambda: not device.outbox.unwritten, "taken")
    eventually(lambda: "hub acknowledges nothing" in str(device.uplink.state().error), "said")
    start_hub(broker, path, running)
    assert device.outbox.wait_drained(60)
    assert numbers(path) == list(range(400))
    eventually(lambda: device.uplink.state().error is None, "over")


def test_a_device_that_restarts_delivers_what_the_earlier_boot_left(
    tmp_path: Path, running: Start, broker: Mosquitto
) -> None:
    path = tmp_path / "hub.db"
    first = Device(tmp_path, at(broker), running)
    first.put(300)
    first.stop()
    start_hub(broker, path, running)
    second = Device(tmp_path, at(broker), running, boot="b2")
    second.put(200)
    assert second.outbox.wait_drained(60)
    assert (numbers(path, "b1"), numbers(path, "b2")) == (list(range(300)), list(range(200)))


def test_what_nobody_heard_is_sent_again_although_another_boot_goes_on(
    tmp_path: Path, running: Start, broker: Mosquitto
) -> None:
    """Nothing overtakes the last records of an ended boot but those of the next one."""
    first = Device(tmp_path, at(broker), running)
    first.put(50)
    eventually(lambda: first.uplink.state().sent == 50, "sent to a broker without subscribers")
    first.stop()
    device = Device(tmp_path, at(broker), running, boot="b2", stall_first_s=60.0)
    eventually(lambda: device.uplink.state().sent > 0, "sent again, in vain")
    path = tmp_path / "hub.db"
    start_hub(broker, path, running)

    def arrived() -> bool:
        device.put(1)
        return numbers(path) == list(range(50))

    eventually(arrived, "what the earlier boot left")


def test_a_hub_with_a_new_store_goes_on_knowingly(tmp_path: Path, running: Start, broker: Mosquitto) -> None:
    hub = start_hub(broker, tmp_path / "old.db", running)
    device = Device(tmp_path, at(broker), running)
    device.put(100)
    assert device.outbox.wait_drained(60)
    hub.stop()
    start_hub(broker, tmp_path / "new.db", running)
    device.put(50)
    assert device.outbox.wait_drained(60)
    eventually(lambda: accounts(tmp_path / "new.db")[0].upto == 150, "told what was delivered before")
    (account,) = accounts(tmp_path / "new.db")
    assert (account.stored, account.missing) == (50, 100)
    assert numbers(tmp_path / "new.db") == list(range(100, 150))


HUB = """
import sys, threading
from pathlib import Path
from agent.hub.service import Hub
from agent.mqtt import Broker
Hub(Broker("127.0.0.1", int(sys.argv[1])), Path(sys.argv[2])).run(threading.Event())
"""


def test_a_hub_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, running: Start, broker: Mosquitto
) -> None:
    path = tmp_path / "hub.db"
    device = Device(tmp_path, at(broker), running)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", HUB, str(broker.port), path]) as hub:
            before = device.uplink.state().delivered
            device.put(1500)
            eventually(lambda before=before: device.uplink.state().delivered > before, "delivers")  # type: ignore[misc]
            hub.send_signal(signal.SIGKILL)
    start_hub(broker, path, running)
    assert device.outbox.wait_drained(60)
    assert numbers(path) == list(range(4500))
    (account,) = accounts(path)
    assert account.problem is None


def test_a_refused_password_is_a_sentence_and_mends_itself(
    tmp_path: Path, running: Start, make_broker: Brokers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "agent.uplink")
    broker = make_broker(users={"d1": "right"})
    password = tmp_path / "password"
    password.write_text("wrong")
    device = Device(tmp_path, at(broker, username="d1", password_file=password), running)
    eventually(lambda: sum("refused" in one.getMessage() for one in caplog.records) >= 2, "refused twice")
    refused = [one for one in caplog.records if "refused" in one.getMessage()]
    assert [one.levelname for one in refused[:2]] == ["WARNING", "DEBUG"]
    assert "check username and password_file" in str(device.uplink.state().error)
    password.write_text("right")
    eventually(lambda: any("connected again after" in one.getMessage() for one in caplog.records), "connected")
    assert device.uplink.state().connected
    recovered = [one for one in caplog.records if "connected again after" in one.getMessage()]
    assert [one.levelname for one in recovered] == ["INFO"]


def test_a_broker_that_hangs_is_left_and_found_again(tmp_path: Path, running: Start, broker: Mosquitto) -> None:
    path = tmp_path / "hub.db"
    start_hub(broker, path, running)
    device = Device(tmp_path, at(broker), running, silent_s=1.0)
    device.put(10)
    assert device.outbox.wait_drained(30)
    broker.freeze()
    device.put(10)
    eventually(lambda: not device.uplink.state().connected, "left")
    broker.thaw()
    assert device.outbox.wait_drained(60)
    assert numbers(path) == list(range(20))


def test_the_status_is_online_then_offline(tmp_path: Path, running: Start, broker: Mosquitto) -> None:
    states: list[str] = []
    listener, events = PahoLink(at(broker), "listener"), SimpleQueue[Event]()
    listener.start(events, Birth(("axond/v1/d1/up/status",)), None)
    done = Flag()

    def listen() -> None:
        while not done.is_set():
            event = events.get()
            if isinstance(event, Received):
                states.append(json.loads(event.payload)["state"])

    Thread(target=listen, daemon=True).start()
    device = Device(tmp_path, at(broker), running)
    eventually(lambda: states == ["online"], "online")
    device.stop()
    eventually(lambda: states == ["online", "offline"], "offline")
    done.set()
    listener.stop()
