"""The service under systemd: does it run, is it watched, and is it what was installed?"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping

from agent.doctor.finding import Finding, Word
from agent.doctor.scene import UNIT, Scene, unit_file, unit_files, unit_value
from agent.errors import EXIT_CONFIG

ASK_S = 5.0
PROPERTIES = (
    "LoadState", "ActiveState", "Result", "ExecMainStatus", "NRestarts", "WatchdogUSec", "RestartPreventExitStatus",
    "DropInPaths", "NeedDaemonReload", "UnitFileState", "NoNewPrivileges", "ProtectSystem",
)  # fmt: skip
UNDO = ("systemctl cat {unit}", "sudo systemctl revert {unit}", "sudo systemctl restart {unit}")
NEVER = ("", "0", "infinity")


def look(scene: Scene) -> Iterator[Finding]:
    """What systemd says; where it does not run, what the unit's files say."""
    properties = _asked() if (scene.root / "run/systemd/system").is_dir() else None
    yield from judged(properties or _written(scene))


def _asked() -> dict[str, str] | None:
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return None
    wanted = ",".join(PROPERTIES)
    done = subprocess.run(
        [systemctl, "show", UNIT, f"--property={wanted}"], capture_output=True, text=True, timeout=ASK_S, check=False
    )
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {key: value for key, _, value in pairs} if done.returncode == 0 else None


def _written(scene: Scene) -> dict[str, str]:
    if unit_file(scene.root) is None:
        return {"LoadState": "not-found"}
    names = {"WatchdogUSec": "WatchdogSec"}
    said = {key: unit_value(scene.root, names.get(key, key)) or "" for key in PROPERTIES[5:]}
    drop_ins = " ".join(map(str, unit_files(scene.root)[1:]))
    return {**said, "LoadState": "loaded", "ActiveState": "unknown", "DropInPaths": drop_ins, "UnitFileState": ""}


def judged(unit: Mapping[str, str]) -> Iterator[Finding]:
    """From the properties of the unit, as ``systemctl show`` tells them."""
    if unit.get("LoadState") != "loaded":
        yield Finding(
            "service.none", "note", "axond is not installed as a service: after a power cut nobody starts it again",
            UNIT, "install the package", ("sudo apt install ./axond_*.deb",),
        )  # fmt: skip
        return
    yield from _state(unit)
    facts: dict[str, object] = {"paths": unit.get("DropInPaths", ""), "unit": Word(UNIT)}
    if unit.get("WatchdogUSec", "") in NEVER:
        yield Finding(
            "service.no_watchdog", "warning", "systemd does not watch the agent: one that hangs is not restarted",
            UNIT, "take the line that switches WatchdogSec off out of the drop-in",
            UNDO, facts,
        )  # fmt: skip
    if str(EXIT_CONFIG) not in unit.get("RestartPreventExitStatus", "").replace(",", " ").split():
        yield Finding(
            "service.restarts_on_wrong_config", "warning",
            "systemd restarts the agent again and again where its configuration is wrong", UNIT,
            "keep RestartPreventExitStatus=78", UNDO, facts,
        )  # fmt: skip
    if unit.get("NoNewPrivileges") in ("no", "") or unit.get("ProtectSystem") in ("no", ""):
        yield Finding(
            "service.no_sandbox", "warning", "the agent runs with fewer restrictions than its unit comes with", UNIT,
            "take the lines that lift them out of the drop-in",
            UNDO, facts,
        )  # fmt: skip
    if unit.get("DropInPaths"):
        yield Finding(
            "service.overridden", "note", "the unit is changed by {paths}", UNIT,
            "see that each change is still wanted after an upgrade", ("systemctl cat {unit}",), facts,
        )  # fmt: skip
    if unit.get("NeedDaemonReload") == "yes":
        yield Finding(
            "service.reload", "warning", "the unit was changed, and systemd does not know it yet", UNIT,
            "tell it", ("sudo systemctl daemon-reload", "sudo systemctl restart {unit}"), facts,
        )  # fmt: skip


def _state(unit: Mapping[str, str]) -> Iterator[Finding]:
    state, status = unit.get("ActiveState", ""), unit.get("ExecMainStatus", "")
    restarts = int(unit.get("NRestarts") or 0)
    facts: dict[str, object] = {
        "unit": Word(UNIT), "state": Word(state), "result": Word(unit.get("Result", "")), "status": Word(status),
        "restarts": restarts,
    }  # fmt: skip
    log = "journalctl -u {unit} -n 50 --no-pager"
    if state == "failed" and status == str(EXIT_CONFIG):
        yield Finding(
            "service.refused", "problem", "the agent refused its configuration (exit code 78) and was not restarted",
            UNIT, "correct the configuration, then start it", ("axond check", "sudo systemctl restart {unit}"), facts,
        )  # fmt: skip
    elif state == "failed":
        yield Finding(
            "service.failed", "problem", "the service failed: {result}, exit code {status}", UNIT,
            "see its last lines, then start it", (log, "sudo systemctl restart {unit}"), facts,
        )  # fmt: skip
    elif state == "inactive":
        yield Finding(
            "service.inactive", "warning", "the service is installed, but does not run", UNIT,
            "start it, now and at every start", ("sudo systemctl enable --now {unit}",), facts,
        )  # fmt: skip
    elif state == "active":
        yield Finding("service.active", "ok", "the service runs ({restarts} restarts by systemd)", UNIT, facts=facts)
    if state == "active" and unit.get("UnitFileState") == "disabled":
        yield Finding(
            "service.not_enabled", "warning", "the service runs now, but does not start with the machine", UNIT,
            "let it", ("sudo systemctl enable {unit}",), facts,
        )  # fmt: skip
    if restarts:
        yield Finding(
            "service.restarts", "warning", "systemd has restarted the agent {restarts} times", UNIT,
            "its last lines before each tell why", (log,), facts,
        )  # fmt: skip
