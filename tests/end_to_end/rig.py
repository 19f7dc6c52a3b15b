"""A whole installation in a folder: broker, hub, agent as real processes, an IMU on a pty, a microphone from a file."""

import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from agent.hub.books import StreamLedger
from agent.hub.store import HubStore
from agent.outbox_store import audit
from agent.status import StatusUnavailable, ask
from drivers.packet import SensorInfo
from models.datasets.recording import IMU_INFO, audio_info
from tests.models import networks

AUDIO_RATE_HZ = 8000
WAIT_S = 20.0


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = WAIT_S, pause_s: float = 0.02) -> None:
    """Poll until true, or fail by name."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(pause_s)


def bursts(seconds: float) -> np.ndarray:
    """Tone bursts in quiet noise: each is an onset."""
    rng = np.random.default_rng(5)
    t = np.arange(round(seconds * AUDIO_RATE_HZ))
    on = (t % round(1.4 * AUDIO_RATE_HZ)) < round(0.4 * AUDIO_RATE_HZ)
    tone = 8000 * np.sin(2 * np.pi * (300 + 200 * (t // round(1.4 * AUDIO_RATE_HZ) % 5)) * t / AUDIO_RATE_HZ)
    on[: AUDIO_RATE_HZ // 4] = False
    return np.where(on, tone, rng.normal(0, 3, len(t))).astype(np.int16)


def make_models(folder: Path) -> None:
    """Random networks with the real encoders: what they say means nothing, but it is always the same."""
    audio = audio_info(AUDIO_RATE_HZ)
    made_bundle(folder, "made-audio", audio, {"mode": "onset", "samples": 8000, "pre": 400}, {"kind": "audio_mel"})
    window = {"mode": "time", "samples": 128, "hop": 16}
    made_bundle(folder, "made-motion", IMU_INFO, window, {"kind": "imu_delta"})


def made_bundle(folder: Path, name: str, info: SensorInfo, window: dict[str, Any], encoder: dict[str, Any]) -> None:
    rng = np.random.default_rng(len(name))
    changes = {
        "name": name,
        "input": {"family": info.family, "channels": list(info.channels), "rate_hz": info.rate_hz},
        "window": window,
        "encoder": encoder,
    }
    module = importlib.import_module(f"models.encoders.{encoder['kind']}")
    features = module.ENCODER(module.ENCODER.Config(), info, window["samples"]).shape[1]
    networks.write_bundle(folder / name, networks.random_network(rng, features), **changes)


class Process:
    """A child with its output in a file."""

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "agent", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.child.kill()
        self.child.wait()

    def stop(self, timeout_s: float = 15.0) -> tuple[int, float]:
        """SIGTERM; exit code and how long it took."""
        start_s = time.monotonic()
        if self.child.poll() is None:
            os.kill(self.child.pid, signal.SIGTERM)
        return self.child.wait(timeout_s), time.monotonic() - start_s

    def text(self) -> str:
        return self.log.read_text(errors="replace")


class Rig:
    """Paths and processes; ``with rig(...)`` stops whatever still runs."""

    def __init__(self, folder: Path, port: int | None) -> None:
        self.folder = folder
        self.port = port
        self.state = folder / "state"
        self.hub_db = folder / "hub.db"
        self.config = folder / "axond.toml"
        self.imu = folder / "imu"
        self.wav = folder / "bursts.wav"
        self.running: list[Process] = []
        make_models(self.state / "models")
        soundfile.write(self.wav, bursts(28), AUDIO_RATE_HZ, subtype="PCM_16")

    def write_config(self, *, pace: str = "real", extra: str = "") -> None:
        text = f"""
[device]
id = "rig"
state_dir = "{self.state}"
[sensors.mic0]
driver = "audio.file"
path = "{self.wav}"
rate_hz = {AUDIO_RATE_HZ}
pace = "{pace}"
loop = true
[sensors.imu0]
driver = "imu.witmotion"
port = "{self.imu}"
baud = 115200
rate_hz = 50
[pipelines.sound]
sensors = ["mic0"]
model = "made-audio"
[pipelines.motion]
sensors = ["imu0"]
model = "made-motion"
[http]
listen = []
[log]
format = "json"
"""
        if self.port is not None:
            text += f'[uplink]\nhost = "127.0.0.1"\nport = {self.port}\nmetrics_interval_s = 1\n'
        self.config.write_text(text + extra)

    def agent(self) -> Process:
        return self._start("agent", "run", "--config", str(self.config))

    def hub(self) -> Process:
        return self._start("hub", "hub", "run", "--port", str(self.port), "--db", str(self.hub_db))

    def _start(self, name: str, *arguments: str) -> Process:
        process = Process(name, self.folder, *arguments)
        self.running.append(process)
        return process

    def status(self) -> dict[str, Any]:
        """The running agent's snapshot; empty while none answers."""
        try:
            return ask(self.state)
        except StatusUnavailable:
            return {}

    def reported(self) -> int:
        return sum(p["reported"] for p in self.status().get("pipelines", {}).values())

    def hub_ledger(self) -> list[StreamLedger]:
        try:
            with closing(HubStore.open_for_reading(self.hub_db)) as store:
                return store.ledger("rig")
        except FileNotFoundError:
            return []

    def committed(self) -> dict[tuple[str, str], int]:
        """Boot and stream -> results that the outbox committed so far."""
        outbox = self.state / "outbox.db"
        try:
            return {key: c.produced - c.refused for key, c in audit(outbox).items()} if outbox.exists() else {}
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # the file is just being made
                return {}
            raise

    def missing_at_hub(self, committed: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
        """What was committed and is not stored."""
        stored = {(line.boot, line.stream): line.stored for line in self.hub_ledger()}
        return {key: n - stored.get(key, 0) for key, n in committed.items() if stored.get(key, 0) < n}

    def stored_twice(self) -> int:
        with closing(HubStore.open_for_reading(self.hub_db)) as store:
            lines = store.ledger("rig")
            rows = [
                (line.boot, line.stream, row["seq"])
                for line in lines
                for row in store.results("rig", line.stream, 10**9, boot=line.boot)
            ]
        return len(rows) - len(set(rows))


@contextmanager
def rig(folder: Path, port: int | None) -> Iterator[Rig]:
    made = Rig(folder, port)
    try:
        yield made
    finally:
        for process in made.running:
            if process.child.poll() is None:
                process.kill()


def axond(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command of axond to its end."""
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def log_lines(process: Process) -> list[dict[str, Any]]:
    """The JSON lines of an agent's log."""
    return [json.loads(line) for line in process.text().splitlines() if line.startswith("{")]
