"""The files of ``packaging/systemd``, as systemd itself judges them, and against what the program does."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent import app, log, realtime, supervisor
from agent.errors import EXIT_CONFIG

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
SERVICES = ("axond.service", "axond-hub.service")
EXPOSURE_TENTHS = 15

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def analyze(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"SYSTEMD_UNIT_PATH": f"{folder}:"} if folder else {})}
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def settings(name: str) -> dict[str, list[str]]:
    """The lines of [Service], several of one key in order."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().partition("[Service]")[2].splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_the_sandbox_is_tight(service: str) -> None:
    judged = analyze("security", "--offline=true", f"--threshold={EXPOSURE_TENTHS}", UNITS / service)
    assert judged.returncode == 0, judged.stdout[-300:] + judged.stderr


@pytest.mark.parametrize("drop_in", [None, "clock.conf"])
@pytest.mark.parametrize("service", SERVICES)
def test_systemd_understands_every_line(tmp_path: Path, service: str, drop_in: str | None) -> None:
    text = (UNITS / service).read_text()
    assert "ExecStart=/usr/bin/axond " in text
    (tmp_path / service).write_text(text.replace("/usr/bin/axond ", "/bin/true "))
    if drop_in:
        (tmp_path / f"{service}.d").mkdir()
        shutil.copy(UNITS / drop_in, tmp_path / f"{service}.d")
    judged = analyze("verify", "--man=no", "--recursive-errors=no", tmp_path / service, folder=tmp_path)
    assert (judged.returncode, judged.stderr) == (0, "")


def test_a_line_that_systemd_does_not_know_would_be_found(tmp_path: Path) -> None:
    unit = tmp_path / "axond.service"
    unit.write_text("[Service]\nExecStart=/bin/true\nRestartStepsForever=yes\n")
    assert "RestartStepsForever" in analyze("verify", "--man=no", unit, folder=tmp_path).stderr


def test_the_agents_unit_agrees_with_the_agent() -> None:
    unit = settings("axond.service")
    assert unit["RestartPreventExitStatus"] == [str(EXIT_CONFIG)]
    assert unit["KillMode"] == ["mixed"]
    assert float(unit["WatchdogSec"][0]) > supervisor.BEAT_FRESH_S
    stop_s = app.STOP_CAPTURE_S + app.STOP_PIPELINES_S + app.DRAIN_S
    stop_s += app.STOP_UPLINK_S + app.STOP_OUTBOX_S + app.STOP_STATUS_S
    assert stop_s < 10 < float(unit["TimeoutStopSec"][0])
    assert float(unit["TimeoutStartSec"][0]) > app.OUTBOX_OPEN_S
    assert unit["LimitRTPRIO"] == [str(realtime.CAPTURE_RR)]
    assert unit["LimitNICE"] == [str(min(realtime.CAPTURE_NICE, realtime.PIPELINE_NICE))]


def test_nothing_keeps_a_service_from_starting_for_ever() -> None:
    for service in SERVICES:
        parsed = configparser.ConfigParser(strict=False, interpolation=None)
        parsed.read(UNITS / service)
        assert parsed["Unit"]["StartLimitIntervalSec"] == "0"
        assert parsed["Service"]["Restart"] == "always"


def test_users_groups_and_folders_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("axond.sysusers", "axond-hub.sysusers"):
        made = subprocess.run(
            ["systemd-sysusers", f"--root={tmp_path}", UNITS / name], capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
    users = {line.split(":")[0]: line for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    assert users.keys() == {"axond", "axond-hub"}
    assert all(line.endswith("/usr/sbin/nologin") for line in users.values())
    members = {line.split(":")[0]: line.split(":")[3] for line in (tmp_path / "etc" / "group").read_text().splitlines()}
    assert {name for name, who in members.items() if who == "axond"} == {"dialout", "audio", "plugdev"}
    for service in SERVICES:
        assert settings(service)["User"][0] in users


def test_the_catalog_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "usr" / "lib" / "systemd" / "catalog"
    folder.mkdir(parents=True)
    shutil.copy(UNITS / "axond.catalog", folder)
    (tmp_path / "var" / "lib" / "systemd" / "catalog").mkdir(parents=True)
    made = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--update-catalog"], capture_output=True, text=True, check=False
    )
    assert (made.returncode, made.stderr) == (0, "")
    listed = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--list-catalog"], capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"^[0-9a-f]{32}", listed, re.MULTILINE)) == {log.READY, log.HUNG, log.DAMAGED, log.REFUSED}
