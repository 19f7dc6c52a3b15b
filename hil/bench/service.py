"""What the service costs a device that has other things to do: package, start, and an agent that waits for its sensors.

The agent is the one that runs the bench, or that of another installation; it is measured as a package installs it, with
its modules compiled, and its uplink is connected to a broker.
"""

import json
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from agent.cli.command import CommandError
from agent.status import StatusUnavailable, ask
from hil.bench import process
from hil.chaos.part import wait_for
from hil.demo import stage

START_S = 30.0
SETTLE_S = 8.0
"""At most, after pipelines have loaded and the uplink is connected: until what only the start needed is given back."""
POLL_S = 0.02
LOOK_S = 0.5
GOALS = {
    "start_to_ready_s": 1.0,
    "idle_pss_mib": 40.0,
    "idle_pss_mib_onnx": 75.0,
    "idle_cpu_percent_of_a_core": 1.0,
    "idle_cpu_percent_of_a_core_onnx": 1.0,
}
"""Not above these."""
DEB_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MODEL = "activity"


def measure(seconds: float, starts: int, axond: Path | None) -> dict[str, Any]:
    """Units as the names say. ``missed``: goals that were, in words. Raises CommandError.

    ``axond``: the program to measure; None: that of this environment.
    """
    program = [str(axond)] if axond else stage.axond()
    numbers: dict[str, Any] = {"axond": _version(program), **(installed(axond) if axond else package(Path("dist")))}
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as scratch:
        folder = Path(scratch)
        try:
            with stage.broker(folder) as port:
                numbers |= _starts(program, folder, port, starts)
                numbers |= _idle(program, folder, port, seconds, runtime="", suffix="")
                numbers |= _idle(program, folder, port, seconds, runtime="onnx", suffix="_onnx")
        except stage.StageError as error:
            raise CommandError(str(error)) from error
    missed = [f"{name} is {numbers[name]}, goal {goal:g}" for name, goal in GOALS.items() if numbers[name] > goal]
    return {**numbers, "missed": missed}


def _version(program: list[str]) -> str:
    """What ``axond version`` says, and by whom. Raises CommandError."""
    try:
        told = subprocess.run([*program, "version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise CommandError(f"{program[0]} cannot be started: {error.strerror}") from error
    if told.returncode or not told.stdout.startswith("axond "):
        raise CommandError(f"{program[0]} is no axond: {(told.stderr or told.stdout).strip()[-200:]}")
    return f"{program[0]}: {told.stdout.strip()}"


def installed(axond: Path) -> dict[str, Any]:
    """What dpkg knows of the package that ``axond`` is of; None with a reason where it is of none."""
    ask_size = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Installed-Size}", "axond"]
    reason = None
    if shutil.which("dpkg-query") is None:
        reason = "no dpkg on this machine"
    elif subprocess.run(["dpkg-query", "--search", str(axond)], capture_output=True, check=False).returncode:
        reason = f"{axond} is of no package"
    if reason:
        return {"package": None, "installed_mib": None, "package_left_out": reason}
    name, version, size_kib = subprocess.run(ask_size, capture_output=True, text=True, check=True).stdout.split()
    return {"package": f"{name} {version}", "installed_mib": round(int(size_kib) / 1024, 1)}


def package(folder: Path) -> dict[str, Any]:
    """The newest package for this machine that ``make deb`` has built; None with a reason where there is none."""
    architecture = DEB_ARCHITECTURES.get(platform.machine(), platform.machine())
    found = sorted(folder.glob(f"axond_*_{architecture}.deb"), key=lambda path: path.stat().st_mtime)
    reason = None
    if not found:
        reason = f"no {folder}/axond_*_{architecture}.deb; make deb builds it"
    elif shutil.which("dpkg-deb") is None:
        reason = "no dpkg-deb on this machine"
    if reason:
        return {"package_mib": None, "installed_mib": None, "package_left_out": reason}
    told = subprocess.run(
        ["dpkg-deb", "--field", str(found[-1]), "Installed-Size"], capture_output=True, text=True, check=False
    )
    if told.returncode or not told.stdout.strip().isdigit():
        raise CommandError(f"{found[-1]} is no package: {told.stderr.strip()}")
    return {
        "package": found[-1].name,
        "package_mib": round(found[-1].stat().st_size / 2**20, 1),
        "installed_mib": round(int(told.stdout) / 1024, 1),
    }


def _config(folder: Path, name: str, port: int, sensors: str = "") -> Path:
    path = folder / f"{name}.toml"
    state = json.dumps(str(folder / name))
    path.write_text(
        f'[device]\nid = "bench"\nstate_dir = {state}\n[http]\nlisten = "127.0.0.1:{stage.free_port()}"\n'
        f'[uplink]\nhost = "127.0.0.1"\nport = {port}\nack = "broker"\n[log]\nformat = "text"\n{sensors}'
    )
    return path


@contextmanager
def _agent(program: list[str], folder: Path, config: Path) -> Iterator[tuple[int, float]]:
    """A started agent; process and seconds from its start to READY=1. Raises CommandError."""
    told_at = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(told_at))
        environment = {"NOTIFY_SOCKET": str(told_at), "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        command = ["env", "-u", "PYTHONDONTWRITEBYTECODE", *(f"{k}={v}" for k, v in environment.items())]
        begin_s = time.monotonic()
        try:
            with stage.process(config.stem, [*command, *program, "run", "--config", str(config)], folder) as child:
                _wait_ready(told, child, folder / f"{config.stem}.log")
                try:
                    yield child.pid, time.monotonic() - begin_s
                finally:
                    child.kill()  # it has nothing to lose, and a stop in order takes seconds
        finally:
            told_at.unlink()


def _wait_ready(told: socket.socket, child: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + START_S
    told.settimeout(LOOK_S)
    while time.monotonic() < end_s and child.poll() is None:
        try:
            if b"READY=1" in told.recv(65536).split(b"\n"):
                return
        except TimeoutError:
            continue
    raise CommandError(f"the agent is not ready within {START_S:g} s: {log.read_text(errors='replace')[-500:]}")


def _starts(program: list[str], folder: Path, port: int, starts: int) -> dict[str, Any]:
    """One more start compiles the modules before, as the installation of a package does."""
    sensors = (
        f'[sensors.imu0]\ndriver = "synthetic"\n[pipelines.p]\nsensors = ["imu0"]\nmodel = "{_MODEL}"\n'
        'backend = ["onnx", "reference"]\n'
    )
    with _agent(program, folder, _config(folder, "compiling", port, sensors)):
        pass
    ready, ready_cpu, first, window_s = [], [], [], 0.0
    for number in range(starts):
        name = f"start{number}"
        begin_s = time.monotonic()
        with _agent(program, folder, _config(folder, name, port, sensors)) as (pid, ready_s):
            ready_cpu.append(process.cpu_s(pid))
            window_s = _wait_result(folder / name)
            first.append(time.monotonic() - begin_s)
            ready.append(ready_s)
    return {
        "starts": starts,
        "start_to_ready_s": round(float(np.median(ready)), 2),
        "start_to_ready_worst_s": round(max(ready), 2),
        "start_to_ready_cpu_s": round(float(np.median(ready_cpu)), 2),
        "start_to_first_result_s": round(float(np.median(first)), 2),
        "of_which_the_first_window_s": round(window_s, 2),
    }


def _wait_result(state_dir: Path) -> float:
    """Until the agent has a result; how long the window was that it rests on."""
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        try:
            last = ask(state_dir)["pipelines"]["p"]["last"]
        except StatusUnavailable:
            last = None
        if last:
            return float(last["stop_ns"] - last["start_ns"]) / 1e9
        time.sleep(POLL_S)
    raise CommandError(f"no result within {START_S:g} s")


def _is_idle(state_dir: Path) -> bool:
    try:
        facts = ask(state_dir)
    except StatusUnavailable:  # ready comes first
        return False
    return facts["uplink"]["connected"] and all(p["state"] == "live" for p in facts["pipelines"].values())


def _idle(program: list[str], folder: Path, port: int, seconds: float, *, runtime: str, suffix: str) -> dict[str, Any]:
    """An agent whose sensors, if it has any, are not plugged in."""
    sensors = (
        '[sensors.imu0]\ndriver = "imu.witmotion"\nport = "/dev/serial/by-id/none"\n[pipelines.p]\n'
        f'sensors = ["imu0"]\nmodel = "{_MODEL}"\nbackend = "{runtime}"\n'
    )
    config = _config(folder, f"idle{suffix}", port, sensors if runtime else "")
    with _agent(program, folder, config) as (pid, _):
        wait_for("the agent is idle", lambda: _is_idle(folder / config.stem), START_S)
        time.sleep(min(SETTLE_S, seconds))
        cpu_s, woken, begin_s = process.cpu_s(pid), process.wakeups(pid), time.monotonic()
        time.sleep(seconds)
        spent_s = time.monotonic() - begin_s
        return {
            f"idle_pss_mib{suffix}": process.pss_mib(pid),
            f"idle_rss_mib{suffix}": process.rss_mib(pid),
            f"idle_cpu_percent_of_a_core{suffix}": round((process.cpu_s(pid) - cpu_s) / spent_s * 100, 2),
            f"idle_wakeups_per_s{suffix}": round((process.wakeups(pid) - woken) / spent_s, 1),
            f"idle_threads{suffix}": process.threads(pid),
        }
