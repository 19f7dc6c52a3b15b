"""The demo's processes: a broker on a free port, the hub, and the agent, each a real one, in a folder of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hil.bench.process import cpu_s, waited_s

DEVICE = "demo"
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 12.0
POLL_S = 0.02
MIC_BAUD = 500_000
FUSED_MODEL = "fused-digits"


class StageError(Exception):
    """A part of the demo did not start: one sentence."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the demo's sensors are plugged in."""

    mic: Path
    imu: Path
    camera: Path | None
    """None without a model that fuses it with the microphone."""


def find_mosquitto() -> str | None:
    """The broker's binary; Debian keeps it where not every user looks."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(name: str, command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` with its output in ``<folder>/<name>.log``; SIGTERM at the end, SIGKILL if that does not help."""
    setpriv = shutil.which("setpriv")
    if setpriv:
        # Nobody is left behind, even if we are killed with -9 (prctl PR_SET_PDEATHSIG).
        command = [setpriv, "--pdeathsig", "TERM", *command]
    with (folder / f"{name}.log").open("ab") as log:
        # A session of its own: Ctrl-C reaches us alone, and we stop the others in order.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> float:
    """Ask ``child`` to stop and wait; returns how long that took in seconds."""
    start_s = time.monotonic()
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return time.monotonic() - start_s


def occupied_s(child: subprocess.Popen[bytes]) -> float:
    """For how long ``child``, which nobody has waited for yet, computed or waited for a core to do so."""
    return cpu_s(child.pid) + waited_s(child.pid)


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A mosquitto of our own on loopback; yields its port. Raises StageError."""
    binary = find_mosquitto()
    if binary is None:
        raise StageError("mosquitto is not installed (apt install mosquitto)")
    port = free_port()
    settings = folder / "mosquitto.conf"
    # As ourselves: a broker that changes its user would not be told of our death.
    user = "user root\n" if os.geteuid() == 0 else ""
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n{user}")
    with process("broker", [binary, "-c", str(settings)], folder) as child:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            with socket.socket() as probe:
                probe.settimeout(1.0)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(POLL_S)
            if child.poll() is not None or time.monotonic() > deadline_s:
                raise StageError(f"the broker did not start; its log is {folder / 'broker.log'}")
        yield port


def axond(*arguments: str) -> list[str]:
    """The command line of an axond process of this environment."""
    return [sys.executable, "-m", "agent", *arguments]


def write_config(folder: Path, port: int | None, ports: Ports, imu_rate_hz: float) -> Path:
    """The agent's configuration for the demo. (JSON strings are TOML strings as well.)"""
    text = f"""\
[device]
id = "{DEVICE}"
state_dir = {json.dumps(str(folder / "state"))}

[http]
listen = []

[sensors.mic0]
driver = "audio.serial_pcm"
port = {json.dumps(str(ports.mic))}
baud = {MIC_BAUD}
rate_hz = 8000

[sensors.imu0]
driver = "imu.witmotion"
port = {json.dumps(str(ports.imu))}
baud = 115200
rate_hz = {imu_rate_hz:g}

[pipelines.digits]
sensors = ["mic0"]
model = "spoken-digits"

[pipelines.activity]
sensors = ["imu0"]
model = "activity"

[log]
format = "text"
"""
    if ports.camera is not None:
        text += f"""
[sensors.cam0]
driver = "event_camera.edvs"
port = {json.dumps(str(ports.camera))}

[pipelines.fused]
sensors = ["mic0", "cam0"]
model = "{FUSED_MODEL}"
"""
    if port is not None:
        text += f'\n[uplink]\nhost = "127.0.0.1"\nport = {port}\nmetrics_interval_s = 2\n'
    path = folder / "axond.toml"
    path.write_text(text)
    return path
