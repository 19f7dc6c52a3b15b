"""axond under a systemd that really booted: starts, restarts, credentials, journal, and nothing lost.

``make service`` runs all of it with the times of the shipped units, which takes minutes; the tests of every day shorten
these times and leave out what must wait for them.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import log
from agent.supervisor import BEAT_FRESH_S
from hil.guest.device import PACKAGE_VARIABLE, Device, device, installable
from hil.guest.root import GuestError, cached_root
from models.backends import lava
from tests.end_to_end.rig import make_models, wait_for

FULL = os.environ.get("AXOND_SERVICE") == "full"
QUICK = ("WatchdogSec=2", "TimeoutAbortSec=1", "RestartSec=200ms")
WATCHDOG_S, ABORT_S, RESTART_S = (30.0, 5.0, 5.0) if FULL else (2.0, 1.0, 0.2)
PATIENCE_S = 45.0

CONFIG = """
[device]
id = "guest"
[sensors.imu0]
driver = "imu.witmotion"
port = "/dev/imu0"
rate_hz = 50
[pipelines.motion]
sensors = ["imu0"]
model = "made-motion"
[uplink]
host = "127.0.0.1"
username = "guest"
password_file = "%d/axond_mqtt"
[http]
listen = []
"""

LAVA_CONFIG = """
[device]
id = "guest"
[sensors.imu0]
driver = "synthetic"
signal = "motion"
[pipelines.motion]
sensors = ["imu0"]
model = "activity"
backend = ["lava"]
[http]
listen = []
"""


@pytest.fixture(scope="module", autouse=True)
def root() -> None:
    """The root is made before the first test's clock runs."""
    if (reason := installable()) is not None:
        pytest.skip(reason)
    try:
        cached_root()
    except GuestError as error:
        pytest.skip(str(error))


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Device]:
    with device(tmp_path / "guest") as made:
        if not FULL:
            made.adjust("axond", *QUICK)
        yield made
        shutil.rmtree(tmp_path / "guest" / "upper", ignore_errors=True)


@pytest.fixture
def sending(installed: Device, tmp_path: Path) -> Device:
    """With a sensor, a model, a broker that wants passwords, and a hub."""
    make_models(tmp_path / "models")
    installed.guest.copy(tmp_path / "models", "/var/lib/axond/models")
    installed.guest.run("chown", "-R", "axond:axond", "/var/lib/axond")
    installed.start_broker({"guest": "geheim", "hub": "auch geheim"})
    installed.guest.write("/etc/axond/credentials/mqtt", "geheim\n")
    installed.guest.write("/etc/axond/hub-credentials/mqtt", "auch geheim\n")
    password = "/run/credentials/axond-hub.service/axond_mqtt"
    installed.guest.write("/etc/axond/hub.env", f"AXOND_HUB_OPTIONS=--username hub --password-file {password}\n")
    installed.configure(CONFIG)
    return installed


def ready_s(installed: Device) -> float:
    """How long the last start took, as systemd measured it."""
    unit = "axond"
    started = int(installed.show(unit, "ExecMainStartTimestampMonotonic"))
    return (int(installed.show(unit, "ActiveEnterTimestampMonotonic")) - started) / 1e6


def note(what: str, value: float) -> None:
    """For ``make service``, which shows what tests print."""
    print(f"\n{what}: {value:.2f} s")


def delivered(installed: Device) -> int:
    """What the hub acknowledged, which it does when it is stored."""
    return int((installed.status().get("uplink") or {}).get("delivered", 0))


def restarts(installed: Device) -> int:
    return int(installed.show("axond", "NRestarts"))


def results(installed: Device) -> int:
    """Of the agent that runs now."""
    return sum(pipeline["reported"] for pipeline in installed.status().get("pipelines", {}).values())


def settled(installed: Device) -> bool:
    """Everything that the outbox ever took is at the hub."""
    produced = installed.status().get("ledger", {})
    if not produced or any(counts["pending"] for counts in produced.values()):
        return False
    there = {f"{line['boot']}/{line['stream']}": line["stored"] for line in installed.hub_ledger()}
    return all(there.get(key, 0) >= counts["delivered"] for key, counts in produced.items())


@contextmanager
def stalled(pid: int, thread: str) -> Iterator[None]:
    """A thread of a process stands still, as in a call that never returns."""
    command = [sys.executable, "-m", "hil.guest.stall", str(pid), thread]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "stalled\n"
        yield
        holder.terminate()


def balanced(installed: Device) -> None:
    """Agent and hub agree on every result of every start: none is missing, none there twice."""
    lines = installed.hub_ledger()
    assert lines
    assert [line for line in lines if line["problem"]] == []
    for key, counts in installed.status()["ledger"].items():
        assert counts["balanced"], (key, counts)
        assert counts["evicted"] == counts["refused"] == 0


def put_lava(installed: Device) -> None:
    """This machine's environment with Lava, and its Python: outside the home folders, which the sandbox hides."""
    python = lava.python(lava.home()).resolve()
    base, moved = python.parents[1], Path("/opt", python.name)
    for path in (python, base / "lib" / python.name, *base.glob(f"lib/lib{python.name}.so.*")):
        installed.guest.copy(path, str(moved / path.relative_to(base)))
    installed.guest.copy(lava.home(), str(lava.SYSTEM_HOME))
    installed.guest.run("ln", "-sfn", str(moved / "bin" / python.name), str(lava.python(lava.SYSTEM_HOME)))
    settings = f"home = {moved}/bin\ninclude-system-site-packages = false\n"
    installed.guest.write(str(lava.SYSTEM_HOME / "pyvenv.cfg"), settings)
    installed.guest.write("/etc/ld.so.conf.d/python.conf", f"{moved}/lib\n")
    installed.guest.run("ldconfig")


def hangs(installed: Device, worker: str) -> bool:
    return "hangs" in installed.status()["health"]["reasons"].get(worker, "")


def messages(entries: list[dict[str, Any]], message_id: str) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry.get("MESSAGE_ID") == message_id]


def test_it_becomes_ready_without_network_and_sensors_and_speaks_to_the_journal(installed: Device) -> None:
    installed.configure('[device]\nid = "guest"\n[sensors.imu0]\ndriver = "imu.witmotion"\nport = "/dev/imu0"\n')
    installed.guest.run("ip", "link", "set", "lo", "down")
    installed.guest.run("systemctl", "start", "axond")
    note("start to READY", ready_s(installed))
    assert installed.show("axond", "ActiveState") == "active"
    wait_for("the sensor is missed", lambda: "/dev/imu0" in installed.show("axond", "StatusText"), PATIENCE_S)
    assert installed.show("axond", "StatusText").startswith("degraded")
    ready = messages(installed.journal(), log.READY)[-1]
    assert ready["MESSAGE"].startswith("axond runs as guest")
    assert (ready["SYSLOG_IDENTIFIER"], ready["PRIORITY"], ready["CODE_FUNC"]) == ("axond", "6", "run")
    assert ready["CODE_FILE"].endswith("agent/app.py")
    assert ready["_SYSTEMD_UNIT"] == "axond.service"
    missed = [entry for entry in installed.journal() if entry.get("AXOND_SENSOR") == "imu0"]
    assert missed[0]["PRIORITY"] == "4"
    explained = installed.guest.run("journalctl", "-x", "-u", "axond", f"MESSAGE_ID={log.READY}", "--no-pager").stdout
    assert "Subject: The agent is ready" in explained
    start_s = time.monotonic()
    installed.guest.run("systemctl", "stop", "axond")
    note("stop", time.monotonic() - start_s)
    assert installed.show("axond", "Result") == "success"


def test_a_refused_configuration_is_not_started_again(installed: Device) -> None:
    installed.configure("[device]\nidd = 1\n")
    failed = installed.guest.run("systemctl", "start", "axond", check=False)
    assert failed.returncode != 0
    assert installed.show("axond", "ExecMainStatus") == "78"
    assert installed.show("axond", "ActiveState") == "failed"
    (refused,) = messages(installed.journal(), log.REFUSED)
    assert "device.idd" in refused["MESSAGE"]
    assert refused["PRIORITY"] == "2"
    # What systemd would start again it has planned at once: it then is "activating (auto-restart)", not "failed".
    assert restarts(installed) == 0
    installed.configure('[device]\nid = "guest"\n')
    installed.guest.run("systemctl", "restart", "axond")
    assert installed.show("axond", "ActiveState") == "active"


def test_results_flow_and_neither_a_frozen_nor_a_killed_agent_loses_one(sending: Device) -> None:
    guest = sending.guest
    guest.run("systemctl", "start", "axond", "axond-hub")
    wait_for("the hub is ready", lambda: sending.show("axond-hub", "ActiveState") == "active")
    assert restarts(sending) == 0
    sending.plug_sensor("/dev/imu0")
    wait_for("results at the hub", lambda: delivered(sending) >= 3, PATIENCE_S)
    assert sending.show("axond", "StatusText") == "ok"

    start_s = time.monotonic()
    guest.run("systemctl", "kill", "-s", "STOP", "axond")
    limit_s = WATCHDOG_S + ABORT_S + RESTART_S + PATIENCE_S
    wait_for("the watchdog restarts it", lambda: restarts(sending) == 1 and results(sending) > 0, limit_s)
    note("SIGSTOP to results again", time.monotonic() - start_s)
    wait_for("all is at the hub", lambda: settled(sending), PATIENCE_S)
    balanced(sending)

    # With nobody to acknowledge, the outbox alone keeps them.
    guest.run("systemctl", "stop", "axond-hub")
    wait_for("some are committed", lambda: sending.status()["outbox"]["rows"] >= 3, PATIENCE_S)
    before = sending.outbox()["ledger"]
    start_s = time.monotonic()
    guest.run("systemctl", "kill", "-s", "KILL", "axond")
    wait_for("it is started again", lambda: restarts(sending) == 2 and results(sending) > 0, RESTART_S + PATIENCE_S)
    note("kill -9 to results again", time.monotonic() - start_s)
    after = sending.outbox()["ledger"]
    for key, counts in before.items():
        assert after[key]["pending"] >= counts["pending"], key
    guest.run("systemctl", "start", "axond-hub")
    wait_for("all is at the hub", lambda: settled(sending), 2 * PATIENCE_S)
    balanced(sending)
    there = {f"{line['boot']}/{line['stream']}": line["stored"] for line in sending.hub_ledger()}
    for key, counts in before.items():
        assert there[key] >= counts["produced"], key


def test_a_wrong_password_is_said_and_a_right_one_taken_at_the_next_start(sending: Device) -> None:
    sending.guest.write("/etc/axond/credentials/mqtt", "falsch\n")
    sending.plug_sensor("/dev/imu0")
    sending.guest.run("systemctl", "start", "axond")
    wait_for("it is refused", lambda: "password" in str(sending.status().get("uplink")), PATIENCE_S)
    sending.guest.write("/etc/axond/credentials/mqtt", "geheim\n")
    sending.guest.run("systemctl", "restart", "axond")
    wait_for("it is let in", lambda: bool((sending.status().get("uplink") or {}).get("connected")), PATIENCE_S)


@pytest.mark.skipif(not FULL, reason="takes a minute: make service")
def test_a_hung_sensor_is_reported_and_a_hung_critical_worker_restarted(sending: Device) -> None:
    sending.guest.run("systemctl", "start", "axond", "axond-hub")
    sending.plug_sensor("/dev/imu0")
    wait_for("results at the hub", lambda: delivered(sending) >= 3, PATIENCE_S)
    pid = sending.pid()
    with stalled(pid, "capture:imu0"):
        wait_for("health tells of the sensor", lambda: hangs(sending, "capture:imu0"), BEAT_FRESH_S + PATIENCE_S)
        end_s = time.monotonic() + WATCHDOG_S + 2 * ABORT_S
        while time.monotonic() < end_s:
            assert sending.show("axond", "ActiveState") == "active"
        assert sending.pid() == pid
        assert restarts(sending) == 0
    start_s = time.monotonic()
    with stalled(pid, "outbox"):
        wait_for("the watchdog restarts it", lambda: restarts(sending) == 1, BEAT_FRESH_S + WATCHDOG_S + PATIENCE_S)
    note("hung outbox to restart", time.monotonic() - start_s)
    entries = sending.journal()
    (told,) = messages(entries, log.HUNG)
    assert "outbox" in told["MESSAGE"]
    stacks = [entry["MESSAGE"] for entry in entries if isinstance(entry.get("MESSAGE"), str)]
    assert any("agent/outbox.py" in line for line in stacks)
    wait_for("all is at the hub", lambda: settled(sending), 2 * PATIENCE_S)
    balanced(sending)


@pytest.mark.skipif(not FULL, reason="takes half a minute: make service")
@pytest.mark.parametrize("model", ["spoken-digits", "activity"])
def test_every_backend_computes_the_same_inside_the_sandbox(installed: Device, model: str) -> None:
    said = installed.in_sandbox("/usr/bin/axond", "model", "verify", model, timeout_s=120)
    verdicts = dict(line.strip().split(": ", 1) for line in said.splitlines() if line.startswith("  "))
    assert {verdicts[backend] for backend in ("onnx", "tflite", "reference")} == {"identical"}
    assert all(verdict == "identical" or verdict.startswith("not here") for verdict in verdicts.values()), said


@pytest.mark.skipif(not FULL, reason="copies half a gigabyte: make service")
def test_lava_decides_inside_the_sandbox(installed: Device) -> None:
    if not lava.is_there(lava.home()):
        pytest.skip(f"no Lava for the guest ({lava.home()} is not there): axond lava install, or AXOND_LAVA")
    put_lava(installed)
    installed.configure(LAVA_CONFIG)
    installed.guest.run("systemctl", "start", "axond")
    wait_for("Lava decides", lambda: results(installed) >= 3, PATIENCE_S)
    now = installed.status()
    assert (now["pipelines"]["motion"]["backend"], now["pipelines"]["motion"]["incidents"]) == ("lava", 0)
    assert now["health"]["state"] == "ok"
    installed.guest.run("systemctl", "stop", "axond")
    rows = json.loads(installed.in_sandbox("/usr/bin/axond", "accelerators", "--json", timeout_s=120))
    (row,) = [row for row in rows if row["backend"] == "lava"]
    assert row["usable"] and row["reason"].startswith("answers the golden vectors"), row


@pytest.mark.skipif(not FULL, reason="takes a minute: make service")
def test_what_the_installed_package_costs(installed: Device) -> None:
    """``axond bench service`` of the package itself; for whoever reads ``make service``."""
    if PACKAGE_VARIABLE not in os.environ:
        pytest.skip(f"{PACKAGE_VARIABLE} names no package to install: make service")
    bench = ("axond", "bench", "service", "--axond", "/usr/bin/axond", "--json")
    numbers = json.loads(installed.guest.run(*bench, timeout_s=300).stdout)
    package = Path(os.environ[PACKAGE_VARIABLE])
    print(f"\n{package.name}: {package.stat().st_size / 2**20:.1f} MiB")
    print("".join(f"{name:36s} {value}\n" for name, value in numbers.items()))
    assert numbers["axond"].startswith("/usr/bin/axond: axond ")
    assert numbers["package"].startswith("axond ") and numbers["installed_mib"] > 50
    # Times depend on what else this machine does, memory does not.
    assert [goal for goal in numbers["missed"] if "pss" in goal] == []


@pytest.mark.skipif(not FULL, reason="starts ten times: make service")
def test_a_service_that_fails_again_and_again_is_never_given_up(installed: Device) -> None:
    installed.configure('[device]\nid = "guest"\n')
    installed.adjust("axond", *QUICK)
    for count in range(1, 11):
        installed.guest.run("systemctl", "start", "axond")
        wait_for("it runs", lambda: installed.show("axond", "SubState") == "running", PATIENCE_S)
        installed.guest.run("systemctl", "kill", "-s", "KILL", "axond")
        wait_for("it is started again", lambda: restarts(installed) >= count, PATIENCE_S)  # noqa: B023
