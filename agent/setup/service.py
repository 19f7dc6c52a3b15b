"""Takes a new configuration into service where systemd runs, and waits for what comes of it."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from threading import Event
from typing import Any

from agent.setup.save import SetupError
from agent.status import StatusUnavailable, ask

UNIT = "axond.service"
BOOTED = Path("/run/systemd/system")
"""Exists where systemd is in charge: sd_booted(3)."""
START_S = 90
FIRST_RESULT_S = 20.0
POLL_S = 0.1


def installed() -> bool:
    """Whether systemd is in charge here and knows the service."""
    if not BOOTED.is_dir() or shutil.which("systemctl") is None:
        return False
    return _systemctl("cat", UNIT).returncode == 0


def may_start() -> bool:
    """Whether this user may start it without being asked for a password."""
    return os.geteuid() == 0


def start() -> None:
    """Starts it now and at every boot; one that runs takes the new configuration. Raises SetupError."""
    for action in ("enable", "restart"):
        done = _systemctl(action, UNIT)
        if done.returncode:
            told = done.stderr.strip().splitlines()
            raise SetupError(f"systemctl {action} {UNIT}: {told[-1] if told else 'failed'}; see journalctl -u axond")


def first_result(state_dir: Path) -> dict[str, Any] | None:
    """The first decision of any pipeline, with its name; None if none came in a while."""
    pause, end_s = Event(), time.monotonic() + FIRST_RESULT_S
    while time.monotonic() < end_s:
        try:
            pipelines = ask(state_dir)["pipelines"]
        except StatusUnavailable:
            pipelines = {}
        for name, facts in pipelines.items():
            if facts["last"] is not None:
                return {"pipeline": name, **facts["last"]}
        pause.wait(POLL_S)
    return None


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemctl", "--no-ask-password", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {START_S} s")
