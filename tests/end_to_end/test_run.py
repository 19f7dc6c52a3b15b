"""The real ``axond run`` with a real broker, hub and pty: flows, stops, survives."""

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from drivers.synthetic import motion
from hil.emulators.witmotion import WitmotionEmulator
from tests.brokers import MOSQUITTO, Mosquitto
from tests.end_to_end.rig import Rig, axond, log_lines, rig, wait_for

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

KILLS = int(os.environ.get("AXOND_KILLS", "4"))
"""``make kill`` sets 20."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    started = Mosquitto(tmp_path / "broker").start()
    yield started
    started.stop()


@pytest.fixture
def sensor(tmp_path: Path) -> Iterator[WitmotionEmulator]:
    rows = motion("walking", 3000, np.random.default_rng(1))
    with WitmotionEmulator(rows, 50.0, tmp_path / "imu") as emulator:
        yield emulator


@pytest.fixture
def installed(tmp_path: Path, broker: Mosquitto, sensor: WitmotionEmulator) -> Iterator[Rig]:
    with rig(tmp_path, broker.port) as made:
        made.write_config()
        yield made


def both_live(installed: Rig) -> bool:
    pipelines = installed.status().get("pipelines", {})
    return bool(pipelines) and all(p["reported"] for p in pipelines.values())


def test_results_reach_the_hub_and_the_books_balance(installed: Rig) -> None:
    installed.hub()
    agent = installed.agent()
    wait_for("results of both pipelines", lambda: both_live(installed))
    wait_for("20 results", lambda: installed.reported() >= 20)
    status = installed.status()
    assert status["health"]["state"] == "ok", status["health"]
    assert status["sensors"]["imu0"]["lost"] == 0
    assert abs(status["sensors"]["mic0"]["rate_hz"] / 8000 - 1) < 0.05 or status["up_s"] < 6
    assert status["pipelines"]["motion"]["latency"]["overhead_p50_ms"] < 100
    code, took_s = agent.stop()
    assert code == 0, agent.text()
    assert took_s < 10
    committed = installed.committed()
    assert {stream for _, stream in committed} == {"sound", "motion"}
    assert installed.missing_at_hub(committed) == {}
    assert installed.stored_twice() == 0
    assert [line.problem for line in installed.hub_ledger()] == [None, None]
    assert "Traceback" not in agent.text()


def test_results_have_the_class_that_was_configured(installed: Rig) -> None:
    manifest = json.loads((installed.state / "models" / "made-audio" / "manifest.json").read_text())
    text = installed.config.read_text()
    text = text.replace('model = "made-audio"', f'model = "made-audio"\nalarms = {json.dumps(manifest["labels"])}')
    text = text.replace('model = "made-motion"', 'model = "made-motion"\npriority = "telemetry"')
    installed.config.write_text(text)
    agent = installed.agent()
    wait_for("results of both pipelines", lambda: both_live(installed))
    agent.stop()
    listed = json.loads(axond("outbox", "ls", "--json", "--config", str(installed.config)).stdout)
    assert {(batch["stream"], batch["class"]) for batch in listed} == {("sound", "alarm"), ("motion", "telemetry")}


def test_commands_beside_a_running_agent(installed: Rig) -> None:
    config = ("--config", str(installed.config))
    agent = installed.agent()
    wait_for("results wait for a hub", lambda: installed.status().get("outbox", {}).get("rows", 0) >= 4)
    status = axond("status", *config)
    assert status.returncode == 0, status.stderr
    for word in ("rig", "mic0", "imu0", "made-audio@1.0.0", "pending", "ledger"):
        assert word in status.stdout
    stats = json.loads(axond("outbox", "stats", "--json", *config).stdout)
    assert stats["rows"] >= 4
    assert all(counts["balanced"] for counts in stats["ledger"].values())
    listed = json.loads(axond("outbox", "ls", "--json", *config).stdout)
    assert sum(row["seq"][1] - row["seq"][0] + 1 for row in listed) >= stats["rows"]
    pending = [json.loads(line) for line in axond("outbox", "export", *config).stdout.splitlines()]
    assert {row["stream"] for row in pending} == {"sound", "motion"}
    assert all(row["label"] in ("c0", "c1", "c2") and row["backend"] == "onnx" for row in pending)

    hub = installed.hub()
    wait_for("everything at the hub", lambda: installed.status()["outbox"]["rows"] <= 1)
    db = ("--db", str(installed.hub_db))
    wait_for(
        "metrics at the hub", lambda: bool(json.loads(axond("hub", "devices", "--json", *db).stdout)[0]["metrics"])
    )
    (device,) = json.loads(axond("hub", "devices", "--json", *db).stdout)
    assert (device["name"], device["status"]["state"]) == ("rig", "online")
    assert set(device["info"]["streams"]) == {"sound", "motion"}
    results = [
        json.loads(line) for line in axond("hub", "results", "--device", "rig", "--json", *db).stdout.splitlines()
    ]
    stored = {(row["boot"], row["stream"], row["seq"]): row for row in results}
    for row in pending:
        assert stored[row["boot"], row["stream"], row["seq"]] == row
    ledger = axond("hub", "ledger", *db)
    assert ledger.returncode == 0, ledger.stdout
    assert agent.stop()[0] == 0
    wait_for(
        "the hub knows that it went",
        lambda: json.loads(axond("hub", "devices", "--json", *db).stdout)[0]["status"]["state"] == "offline",
    )
    assert hub.stop()[0] == 0


def test_kill_nine_at_random_moments_loses_nothing_committed(installed: Rig) -> None:
    installed.hub()
    moments = random.Random(11)
    committed: dict[tuple[str, str], int] = {}
    installed.write_config(pace="fast")
    for _ in range(KILLS):
        agent = installed.agent()
        before = len(installed.committed())
        wait_for("a commit of this boot", lambda n=before: len(installed.committed()) > n)  # type: ignore[misc]
        time.sleep(moments.uniform(0, 1.0))
        agent.kill()
        committed |= installed.committed()
    installed.write_config()
    agent = installed.agent()
    wait_for("results of both pipelines", lambda: both_live(installed))
    wait_for("everything at the hub", lambda: installed.missing_at_hub(committed) == {}, 60)
    assert agent.stop()[0] == 0
    assert len({boot for boot, _ in committed}) == KILLS
    assert installed.missing_at_hub({**committed, **installed.committed()}) == {}
    assert installed.stored_twice() == 0
    assert [line.problem for line in installed.hub_ledger() if line.problem] == []


def test_broker_away_and_back(installed: Rig, broker: Mosquitto) -> None:
    installed.hub()
    agent = installed.agent()
    wait_for("results at the hub", lambda: sum(line.stored for line in installed.hub_ledger()) >= 5)
    broker.kill()
    wait_for("the agent notices", lambda: installed.status()["uplink"]["connected"] is False)
    assert installed.status()["health"]["state"] == "degraded"
    at = installed.reported()
    wait_for("results go on", lambda: installed.reported() >= at + 8)
    assert installed.status()["outbox"]["rows"] >= 8
    broker.start()
    wait_for("everything at the hub", lambda: installed.status()["outbox"]["rows"] <= 1, 60)
    assert agent.stop()[0] == 0
    assert installed.missing_at_hub(installed.committed()) == {}
    assert installed.stored_twice() == 0
    messages = [line["message"] for line in log_lines(agent)]
    assert sum("uplink is connected again after" in message for message in messages) == 1


def test_agent_first_hub_later(installed: Rig) -> None:
    agent = installed.agent()
    wait_for("results of both pipelines", lambda: both_live(installed))
    assert installed.status()["outbox"]["rows"] > 0
    installed.hub()
    wait_for("everything at the hub", lambda: installed.status()["outbox"]["rows"] <= 1, 60)
    assert agent.stop()[0] == 0
    assert installed.missing_at_hub(installed.committed()) == {}


def test_unplugged_sensor_comes_back(installed: Rig, sensor: WitmotionEmulator) -> None:
    agent = installed.agent()
    wait_for("results of both pipelines", lambda: both_live(installed))
    sensor.unplug()
    wait_for("the agent notices", lambda: installed.status()["sensors"]["imu0"]["state"] == "missing")
    health = installed.status()["health"]
    assert health["state"] == "degraded"
    assert str(installed.imu) in health["reasons"]["sensor imu0"]
    at = installed.status()["pipelines"]["sound"]["reported"]
    wait_for("the other sensor goes on", lambda: installed.status()["pipelines"]["sound"]["reported"] > at)
    sensor.plug()
    wait_for("the sensor is live again", lambda: installed.status()["sensors"]["imu0"]["state"] == "live")
    back = installed.status()["sensors"]["imu0"]
    assert back["reopened"] == 1
    assert back["lost"] >= 25, "half a second away is 25 rows at least"
    at = installed.status()["pipelines"]["motion"]["reported"]
    wait_for("its results go on", lambda: installed.status()["pipelines"]["motion"]["reported"] > at)
    assert agent.stop()[0] == 0
    messages = [line["message"] for line in log_lines(agent)]
    assert sum("sensor imu0 works again after" in message for message in messages) == 1


def test_stops_in_time_when_the_broker_hangs(installed: Rig, broker: Mosquitto) -> None:
    agent = installed.agent()
    wait_for("results of both pipelines", lambda: both_live(installed))
    broker.freeze()
    code, took_s = agent.stop()
    broker.thaw()
    assert code == 0
    assert took_s < 10
    assert sum(installed.committed().values()) > 0
