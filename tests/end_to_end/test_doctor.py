"""``axond doctor`` as a user runs it: beside a running agent, which it leaves alone, without one, and as anybody."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pwd import getpwnam
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from agent.link import Birth, Event
from agent.mqtt import Broker, PahoLink
from drivers.synthetic import motion
from hil.emulators.witmotion import WitmotionEmulator
from hil.guest.device import device, installable
from tests.agent.doctor_stage import staged
from tests.brokers import MOSQUITTO, Mosquitto
from tests.end_to_end.rig import Process, Rig, axond, rig, wait_for

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

AS_NOBODY = """
import encodings.idna, os, sys, json
from pathlib import Path
import rich.console, rich.table, rich.text
from agent.doctor.checks import CHECKS
from agent.doctor.configuration import set_up
from agent.doctor.examine import examine
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
checks = [check for check in CHECKS if check.topic != "accelerators"]
print(json.dumps([finding.told() for finding in examine(set_up(Path(sys.argv[1])), checks)]))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Rig]:
    broker = Mosquitto(tmp_path / "broker").start()
    rows = motion("walking", 3000, np.random.default_rng(1))
    try:
        with WitmotionEmulator(rows, 50.0, tmp_path / "imu"), rig(tmp_path, broker.port) as made:
            made.write_config()
            yield made
    finally:
        broker.stop()


def doctor(made: Rig, *more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and the findings by their id."""
    done = axond("doctor", "--json", "--config", str(made.config), *more)
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["format"] == 1
    return done.returncode, {finding["id"]: finding for finding in document["findings"]}


@contextmanager
def rival(port: int) -> Iterator[None]:
    """A second device with the same id that logs in again as soon as it is thrown out."""
    over = threading.Event()

    def play() -> None:
        link = PahoLink(Broker("127.0.0.1", port), "rig")
        while not over.is_set():
            events: SimpleQueue[Event] = SimpleQueue()
            link.start(events, Birth(), None)
            events.get(timeout=10)
            while not over.is_set() and events.empty():
                over.wait(0.02)
        link.stop()

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_beside_a_running_agent(installed: Rig) -> None:
    agent = installed.agent()
    hub = installed.hub()
    wait_for("results are delivered", lambda: (installed.status().get("uplink") or {}).get("delivered", 0) > 2)
    before = installed.status()
    code, found = doctor(installed, "--bundle", str(installed.folder / "support.tar.gz"))
    assert code == 0, [finding for finding in found.values() if finding["level"] == "problem"]
    assert {"sensors.live", "broker.acl", "agent.runs", "outbox.whole"} <= set(found)
    after = installed.status()
    assert after["boot"] == before["boot"] and after["uplink"]["connected"]
    assert after["sensors"]["imu0"]["reopened"] == before["sensors"]["imu0"]["reopened"]
    assert after["uplink"]["since_s"] > before["uplink"]["since_s"], "it was never thrown out"

    assert installed.port is not None
    with rival(installed.port):
        wait_for("the agent is thrown out", lambda: not installed.status()["uplink"]["connected"])
        code, found = doctor(installed)
    # mosquitto hangs up without a word; other brokers say that the session is taken over.
    assert {"broker.unsteady", "broker.taken_over"} & set(found), found
    (thrown_out,) = {"broker.unsteady", "broker.taken_over"} & set(found)
    assert found[thrown_out]["where"] == "device.id" and "rig" in found[thrown_out]["seen"]
    assert found["broker.acl"]["level"] == "ok"

    agent.child.send_signal(signal.SIGSTOP)
    code, found = doctor(installed)
    agent.child.send_signal(signal.SIGCONT)
    assert code == 1 and str(installed.state) in found["agent.mute"]["seen"]
    assert hub.stop()[0] == 0


def test_without_an_agent(installed: Rig) -> None:
    code, found = doctor(installed)
    assert code == 0, [finding for finding in found.values() if finding["level"] == "problem"]
    assert {"sensors.speaks", "broker.acl", "accelerators.usable", "agent.not_running"} <= set(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_as_an_ordinary_user() -> None:
    """State, password and port are for the service's user alone, as after an installation."""
    uid = getpwnam("nobody").pw_uid
    with staged() as stage:
        stage.real_proc()
        stage.fill(10)
        stage.state.chmod(0o750)
        stage.imu(stage.port())
        stage.table("pipelines.motion", 'sensors = ["imu0"]\nmodel = "mine"')
        secret = stage.folder / "secret"
        secret.write_text("x")
        secret.chmod(0o600)
        stage.table("uplink", f'host = "localhost"\nport = 1\nusername = "u"\npassword_file = "{secret}"')
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(stage.config), str(uid)],
            capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[2],
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {finding["id"]: finding for finding in json.loads(done.stdout)}
    assert [name for name in found if name.endswith((".raised", ".deadline"))] == []
    assert {"config.not_yours", "permissions.device", "broker.tcp", "outbox.unreadable"} <= set(found)
    assert "config.wrong" not in found


def test_ctrl_c_ends_it_without_a_traceback(installed: Rig) -> None:
    process = Process("doctor", installed.folder, "doctor", "--config", str(installed.config))
    installed.running.append(process)
    wait_for("it works", lambda: len(os.listdir(f"/proc/{process.child.pid}/task")) > 5)  # noqa: PTH208
    process.child.send_signal(signal.SIGINT)
    assert process.child.wait(15) == 130
    assert "Traceback" not in process.text()


@pytest.mark.skipif(os.environ.get("AXOND_SERVICE") != "full", reason="a booted systemd takes a minute: make service")
def test_what_a_real_systemd_says(tmp_path: Path) -> None:
    if (reason := installable()) is not None:
        pytest.skip(reason)
    with device(tmp_path / "guest") as made:
        guest = made.guest

        def look(*after: str) -> tuple[int, set[str]]:
            guest.run("systemctl", *after, check=False)
            done = guest.run("axond", "doctor", "--json", check=False)
            return done.returncode, {one["id"] for one in json.loads(done.stdout)["findings"]}

        made.configure('[device]\nid = "guest"\n')
        code, found = look("start", "axond")
        assert code == 0 and {"service.active", "agent.runs", "outbox.whole"} <= found
        assert not found & {"service.no_watchdog", "service.no_sandbox", "service.restarts_on_wrong_config"}
        made.adjust("axond", "WatchdogSec=0", "ProtectSystem=no", "RestartPreventExitStatus=", "RestartSec=100ms")
        code, found = look("restart", "axond")
        assert {"service.no_watchdog", "service.no_sandbox", "service.restarts_on_wrong_config"} <= found
        assert code == 0 and "service.overridden" in found
        guest.run("systemctl", "revert", "axond")
        code, found = look("restart", "axond")
        assert not found & {"service.no_watchdog", "service.overridden"}
        made.configure("[log]\nx = 1\n")
        code, found = look("restart", "axond")
        assert code == 78 and {"service.refused", "config.wrong"} <= found
        made.configure('[device]\nid = "guest"\n')
        code, found = look("restart", "axond")
        assert code == 0 and "service.active" in found
