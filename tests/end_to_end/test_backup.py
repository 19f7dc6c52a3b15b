"""A backup of a running agent, and of the running demo, onto a clean tree: it resumes, nothing is lost or doubled."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.hub.store import HubStore
from agent.outbox_store import audit
from agent.status import StatusUnavailable, ask
from drivers.synthetic import motion
from hil.emulators.witmotion import WitmotionEmulator
from tests.brokers import MOSQUITTO, Mosquitto
from tests.end_to_end.rig import Process, Rig, axond, rig, wait_for

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    started = Mosquitto(tmp_path / "broker").start()
    yield started
    started.stop()


@pytest.fixture
def installed(tmp_path: Path, broker: Mosquitto) -> Iterator[Rig]:
    rows = motion("walking", 3000, np.random.default_rng(1))
    with WitmotionEmulator(rows, 50.0, tmp_path / "imu"), rig(tmp_path, broker.port) as made:
        made.write_config()
        yield made


def back_up(made: Rig) -> Path:
    target = made.folder / "backup.tar.zst"
    done = axond("backup", str(target), "--config", str(made.config))
    assert done.returncode == 0, done.stderr
    return target


def lose_the_disk(made: Rig) -> None:
    made.config.unlink()
    shutil.rmtree(made.state)


def bring_back(made: Rig, archive: Path) -> None:
    done = axond("restore", str(archive), "--config", str(made.config), "--state-dir", str(made.state))
    assert done.returncode == 0, done.stderr
    assert "the configuration is right" in done.stdout, done.stdout


def pending(made: Rig) -> dict[tuple[str, str], int]:
    return {key: counts.pending for key, counts in audit(made.state / "outbox.db").items()}


def test_what_was_delivered_since_the_backup_is_not_doubled(installed: Rig) -> None:
    agent = installed.agent()
    wait_for("results wait for a hub", lambda: installed.status().get("outbox", {}).get("rows", 0) >= 6)
    archive = back_up(installed)
    hub = installed.hub()
    wait_for("all of it at the hub", lambda: installed.status()["outbox"]["rows"] <= 1)
    assert agent.stop()[0] == 0
    delivered = installed.committed()
    assert installed.missing_at_hub(delivered) == {}
    lose_the_disk(installed)

    bring_back(installed, archive)
    waiting = pending(installed)
    assert sum(waiting.values()) >= 6
    agent = installed.agent()
    wait_for("a result of the new boot", lambda: len({boot for boot, _ in installed.committed()}) == 2)
    wait_for("what came back is delivered", lambda: not sum(pending(installed)[key] for key in waiting))
    assert agent.stop()[0] == 0
    committed = installed.committed()
    assert installed.missing_at_hub({**committed, **delivered}) == {}
    assert installed.stored_twice() == 0
    assert [line.problem for line in installed.hub_ledger() if line.problem] == []
    assert hub.stop()[0] == 0


def test_what_nobody_had_yet_arrives_from_the_backup(installed: Rig) -> None:
    agent = installed.agent()
    wait_for("results wait for a hub", lambda: installed.status().get("outbox", {}).get("rows", 0) >= 6)
    archive = back_up(installed)
    agent.kill()
    lose_the_disk(installed)
    bring_back(installed, archive)
    saved = installed.committed()
    assert sum(pending(installed).values()) >= 6
    hub = installed.hub()
    wait_for("the hub listens", lambda: "hub connected" in hub.text())
    agent = installed.agent()
    wait_for("all of the backup at the hub", lambda: bool(saved) and installed.missing_at_hub(saved) == {})
    assert agent.stop()[0] == 0
    assert installed.missing_at_hub(installed.committed()) == {}
    assert installed.stored_twice() == 0
    assert [line.problem for line in installed.hub_ledger() if line.problem] == []


@pytest.mark.skipif(find_spec("sqlalchemy") is None, reason="no SQLAlchemy: the demo has no hub")
def test_the_demo_goes_on_from_its_backup(tmp_path: Path) -> None:
    folder, archive = tmp_path / "demo", tmp_path / "demo.tar.zst"
    config = ("--config", str(folder / "axond.toml"))
    with (tmp_path / "demo.log").open("wb") as log:
        demo = subprocess.Popen(
            [sys.executable, "-m", "agent", "demo", "--keep", str(folder), "--json"], stdout=log, stderr=log
        )
    try:
        wait_for("results of the demo", lambda: reported(folder) >= 6, 60)
        done = axond("backup", str(archive), *config)
        assert done.returncode == 0, done.stderr
        at = reported(folder)
        wait_for("results after the backup", lambda: reported(folder) >= at + 3, 60)
        os.kill(demo.pid, signal.SIGINT)
        assert demo.wait(30) == 0, (tmp_path / "demo.log").read_text()
    finally:
        demo.kill()
        demo.wait()
    before = stored(folder)
    (folder / "state").rename(tmp_path / "lost")
    (folder / "axond.toml").unlink()

    done = axond("restore", str(archive), *config, "--state-dir", str(folder / "state"))
    assert done.returncode == 0, done.stderr
    assert audit(folder / "state" / "outbox.db")
    broker = Mosquitto(tmp_path / "broker").start()
    (folder / "axond.toml.d").mkdir()
    (folder / "axond.toml.d" / "broker.toml").write_text(f"[uplink]\nport = {broker.port}\n")
    hub = Process("hub-again", tmp_path, "hub", "run", "--port", str(broker.port), "--db", str(folder / "hub.db"))
    agent = Process("agent-again", tmp_path, "run", *config)
    try:
        db = folder / "state" / "outbox.db"
        wait_for("it is connected", lambda: (status(folder).get("uplink") or {}).get("connected") is True)
        wait_for("nothing of the demo waits", lambda: not sum(counts.pending for counts in audit(db).values()))
        assert agent.stop()[0] == 0, agent.text()
    finally:
        for process in (agent, hub):
            process.kill()
        broker.stop()
    after = stored(folder)
    assert {key: after[key] for key in before} == before
    with closing(HubStore.open_for_reading(folder / "hub.db")) as store:
        lines = store.ledger("demo")
        rows = [
            (line.boot, line.stream, row["seq"])
            for line in lines
            for row in store.results("demo", line.stream, 10**9, boot=line.boot)
        ]
    assert len(rows) == len(set(rows))
    assert [line.problem for line in lines if line.problem] == []


def status(folder: Path) -> dict[str, Any]:
    try:
        return ask(folder / "state")
    except StatusUnavailable:
        return {}


def reported(folder: Path) -> int:
    return sum(pipeline["reported"] for pipeline in status(folder).get("pipelines", {}).values())


def stored(folder: Path) -> dict[tuple[str, str], int]:
    with closing(HubStore.open_for_reading(folder / "hub.db")) as store:
        return {(line.boot, line.stream): line.stored for line in store.ledger("demo")}
