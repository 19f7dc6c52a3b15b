"""A captured audio sample until its result is durable, in a real ``axond run`` at real pace; start-up and memory."""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from agent.cli.command import CommandError
from agent.status import StatusUnavailable, ask
from hil.bench.process import cpu_s, pss_mib
from hil.demo import stage, stimuli
from models.speech import SpeechUnavailable

FIRST_RESULT_TIMEOUT_S = 30.0
IDLE_SETTLE_S = 3.0
POLL_S = 0.01
LEAD_IN_S = 0.15
"""Somebody speaks as soon as we listen, so that the time to the first result is ours."""
FSYNCS = 100
FSYNC_EVERY_S = 0.1
ROW_BYTES = 4096


def measure(seconds: float) -> dict[str, Any]:
    """All numbers in milliseconds, seconds or MiB as their names say. Raises CommandError."""
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as scratch:
        folder = Path(scratch)
        try:
            words = stimuli.digits(max(seconds, 10.0), seed=3, lead_in_s=LEAD_IN_S)
        except SpeechUnavailable as error:
            raise CommandError(str(error)) from error
        wav = folder / "words.wav"
        stimuli.write_wav(words, wav)
        numbers: dict[str, Any] = {"speech": words.source}
        numbers |= _live(folder, _config(folder / "live", wav), seconds)
        numbers |= _disk(folder / "disk")
        numbers |= {
            f"{key}_without_model": value for key, value in _idle(folder, _config(folder / "bare", None)).items()
        }
        return numbers


def _config(state: Path, wav: Path | None) -> Path:
    """Without ``wav``: an agent without sensors and models."""
    text = (
        f'[device]\nid = "bench"\nstate_dir = {json.dumps(str(state))}\n[http]\nlisten = []\n[log]\nformat = "text"\n'
    )
    if wav:
        text += f'[sensors.mic0]\ndriver = "audio.file"\npath = {json.dumps(str(wav))}\nrate_hz = 8000\nloop = true\n'
        text += '[pipelines.words]\nsensors = ["mic0"]\nmodel = "spoken-digits"\n'
    path = state.with_suffix(".toml")
    path.write_text(text)
    return path


def _live(folder: Path, config: Path, seconds: float) -> dict[str, Any]:
    start_s = time.monotonic()
    with stage.process("live", stage.axond("run", "--config", str(config)), folder) as agent:
        state = config.with_suffix("")
        while True:
            facts = _ask(state)
            if facts and facts["pipelines"]["words"]["reported"]:
                break
            if agent.poll() is not None or time.monotonic() - start_s > FIRST_RESULT_TIMEOUT_S:
                raise CommandError(
                    f"the agent gave no result: {(folder / 'live.log').read_text(errors='replace')[-500:]}"
                )
            time.sleep(POLL_S)
        first_s = time.monotonic() - start_s
        while time.monotonic() - start_s < seconds and agent.poll() is None:
            time.sleep(POLL_S * 10)
        facts = _ask(state)
        if facts is None:
            raise CommandError(
                f"the agent stopped answering: {(folder / 'live.log').read_text(errors='replace')[-500:]}"
            )
        memory = pss_mib(agent.pid)
        cpu = cpu_s(agent.pid) / (time.monotonic() - start_s)
    latency = facts["pipelines"]["words"]["latency"]
    return {
        "results": facts["pipelines"]["words"]["reported"],
        "backend": facts["pipelines"]["words"]["backend"],
        **{f"capture_to_durable_{key}": value for key, value in latency.items()},
        "model_share_of_p50": round(latency["backend_p50_ms"] / latency["p50_ms"], 3),
        "start_to_first_result_s": round(first_s, 2),
        "cpu_share_of_a_core": round(cpu, 3),
        "pss_mib": memory,
    }


def _idle(folder: Path, config: Path) -> dict[str, Any]:
    with stage.process("bare", stage.axond("run", "--config", str(config)), folder) as agent:
        state = config.with_suffix("")
        start_s = time.monotonic()
        while _ask(state) is None and time.monotonic() - start_s < FIRST_RESULT_TIMEOUT_S:
            time.sleep(POLL_S)
        ready_s = time.monotonic() - start_s
        before_s = cpu_s(agent.pid)
        time.sleep(IDLE_SETTLE_S)
        return {
            "start_to_ready_s": round(ready_s, 2),
            "idle_pss_mib": pss_mib(agent.pid),
            "idle_cpu_share_of_a_core": round((cpu_s(agent.pid) - before_s) / IDLE_SETTLE_S, 4),
        }


def _disk(path: Path) -> dict[str, float]:
    """The baseline of "durable": now and then append a page to a file and fsync it, on the same disk, just after."""
    took_ns = []
    with path.open("wb") as file:
        for _ in range(FSYNCS):
            time.sleep(FSYNC_EVERY_S)
            start_ns = time.perf_counter_ns()
            file.write(b"x" * ROW_BYTES)
            file.flush()
            os.fsync(file.fileno())
            took_ns.append(time.perf_counter_ns() - start_ns)
    p50, p99 = np.percentile(took_ns, (50, 99)) / 1e6
    return {"bare_fsync_p50_ms": round(float(p50), 3), "bare_fsync_p99_ms": round(float(p99), 3)}


def _ask(state: Path) -> dict[str, Any] | None:
    try:
        return ask(state)
    except StatusUnavailable:
        return None
