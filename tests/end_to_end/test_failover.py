"""The real agent with a backend in a child process that is killed, stopped and fills its memory during a live run."""

import json
import os
import signal
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from drivers.packet import Packet
from models.backends.reference import ReferenceBackend
from models.bundle import Bundle
from models.datasets.recording import audio_info
from models.stream import Stream
from tests.end_to_end.rig import Process, Rig, axond, log_lines, rig, wait_for
from tests.models import faulty, networks

FAILOVERS = int(os.environ.get("AXOND_FAILOVERS", "6"))
"""``make failover`` sets 100."""
RATE_HZ = 8000
STEPS = {"frame": 800, "hop": 800, "rate_hz": 8000, "high_hz": 3900, "levels_db": [-60, -50, -40], "bands": 24}
"""Ten time steps in a second, each a result; the network's state goes on through all of them."""
SERVED_S = 3.2
"""So long a backend has to hold before its back-off begins anew (RETRY_FIRST_S * SERVED_FACTOR)."""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    faulty.install(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{ROOT}")
    monkeypatch.setenv("AXOND_FAULT", str(tmp_path / "fault"))
    return tmp_path / "fault"


@pytest.fixture
def installed(tmp_path: Path, fault: Path) -> Iterator[Rig]:
    with rig(tmp_path, None) as made:
        rng = np.random.default_rng(7)
        loud = np.repeat(rng.uniform(50, 9000, 120), RATE_HZ // 10)
        soundfile.write(made.wav, (rng.normal(0, 1, len(loud)) * loud / 4).astype(np.int16), RATE_HZ, subtype="PCM_16")
        made.config.write_text(f"""
[device]
id = "rig"
state_dir = "{made.state}"
[http]
listen = []
[sensors.mic0]
driver = "audio.file"
path = "{made.wav}"
rate_hz = {RATE_HZ}
loop = true
[pipelines.sound]
sensors = ["mic0"]
model = "made-noise"
backend = ["faulty", "reference"]
[log]
format = "json"
""")
        yield made


@pytest.fixture
def bundle(installed: Rig) -> Bundle:
    info = audio_info(RATE_HZ)
    return networks.write_bundle(
        installed.state / "models" / "made-noise",
        networks.random_network(np.random.default_rng(3), 120, (32,), integrator=True),
        name="made-noise",
        input={"family": "audio", "channels": list(info.channels), "rate_hz": info.rate_hz},
        window=None,
        state="carry",
        readout_steps=5,
        temperature=1e6,
        encoder={"kind": "audio_delta", **STEPS},
    )


def expected(bundle: Bundle, wav: Path, count: int) -> list[tuple[str, float, int]]:
    """What a run without any incident says: label, score and input spikes of the first ``count`` steps."""
    backend = ReferenceBackend()
    backend.load(bundle)
    session = Stream(bundle, backend, audio_info(RATE_HZ))
    samples, _ = soundfile.read(wav, dtype="int16", always_2d=True)
    step = RATE_HZ // 10
    said: list[tuple[str, float, int]] = []
    for seq, begin in enumerate(cycle(range(0, len(samples), step))):
        t0_ns = seq * step * 10**9 // RATE_HZ
        part = samples[begin : begin + step]
        said += [
            (one.label, one.score, one.input_spikes)
            for one in session.push(Packet("mic0", seq, t0_ns, 10**9 // RATE_HZ, part))
        ]
        if len(said) >= count:
            return said[:count]
    raise AssertionError("no sound")


def pipeline(installed: Rig) -> dict[str, Any]:
    found: dict[str, Any] = installed.status().get("pipelines", {}).get("sound", {})
    return found


def child_of(agent: Process) -> psutil.Process:
    """The process of the backend."""
    (child,) = psutil.Process(agent.child.pid).children()
    return child


def left(agent: Process) -> tuple[int, int, int, list[str]]:
    """Processes, descriptors, shared memory and named segments that the agent holds."""
    me = psutil.Process(agent.child.pid)
    maps = Path(f"/proc/{me.pid}/maps").read_text()
    named = sorted(p.name for p in Path("/dev/shm").iterdir() if "axond" in p.name)
    return len(me.children(recursive=True)), me.num_fds(), maps.count("memfd:axond"), named


def test_kill_stop_and_full_memory_lose_no_result(installed: Rig, bundle: Bundle, fault: Path) -> None:
    agent = installed.agent()
    wait_for("results of the preferred backend", lambda: pipeline(installed).get("backend") == "faulty")
    slowest_s = 0.0
    baseline = None
    for n in range(FAILOVERS):
        before = pipeline(installed)["inferences"]
        wait_for("results go on", lambda n=before: pipeline(installed)["inferences"] >= n + 2)  # type: ignore[misc]
        child = child_of(agent)
        what = ("kill", "stop", "fill")[n % 3]
        begun_s = time.monotonic()
        if what == "fill":
            fault.write_text("fill")
        else:
            child.send_signal(signal.SIGKILL if what == "kill" else signal.SIGSTOP)
        wait_for(f"the next backend ({what})", lambda: pipeline(installed)["backend"] == "reference", 5)
        slowest_s = max(slowest_s, time.monotonic() - begun_s)
        fault.unlink(missing_ok=True)
        now = pipeline(installed)
        assert (now["incidents"], now["state"]) == (n + 1, "live")
        assert now["incident"].startswith("faulty failed: the process of faulty ")
        assert "goes on" in installed.status()["health"]["reasons"]["pipeline sound"]
        wait_for(f"the preferred backend is back after {n}", lambda: pipeline(installed)["backend"] == "faulty")
        back_s = time.monotonic()
        assert not psutil.pid_exists(child.pid)
        assert installed.status()["health"]["state"] == "ok"
        baseline = baseline or left(agent)
        wait_for("nothing is left over", lambda b=baseline: left(agent) == b, 5)  # type: ignore[misc]
        wait_for("it holds", lambda s=back_s: time.monotonic() - s > SERVED_S)  # type: ignore[misc]
    print(f"{FAILOVERS} incidents, next result within {slowest_s:.2f} s at most; held at the end: {left(agent)}")
    assert slowest_s < 1.0
    family = [child_of(agent).pid, agent.child.pid]
    status = installed.status()
    assert status["sensors"]["mic0"]["dropped"] == status["sensors"]["mic0"]["lost"] == 0
    assert agent.stop()[0] == 0
    assert not any(map(psutil.pid_exists, family))
    assert (installed.state / "streams" / "sound.npz").is_file()
    exported = axond("outbox", "export", "--config", str(installed.config)).stdout
    rows = sorted((json.loads(line) for line in exported.splitlines()), key=lambda row: row["seq"])
    assert [row["seq"] for row in rows] == list(range(rows[0]["seq"], rows[0]["seq"] + len(rows)))
    said = [(row["label"], row["score"], row["spikes"]) for row in rows]
    assert said == expected(bundle, installed.wav, len(said))
    assert len(set(said)) > 20
    assert {row["backend"] for row in rows} == {"faulty", "reference"}
    warnings = [line["message"] for line in log_lines(agent) if line["level"] == "warning"]
    assert sum("faulty failed" in message for message in warnings) == FAILOVERS, warnings
    assert "Traceback" not in agent.text()


@pytest.mark.usefixtures("bundle")
def test_kill_nine_of_the_agent_takes_a_stopped_child_with_it(installed: Rig) -> None:
    agent = installed.agent()
    wait_for("results of the preferred backend", lambda: pipeline(installed).get("backend") == "faulty")
    child = child_of(agent)
    child.suspend()
    agent.kill()
    wait_for("the child is gone", lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 3)
