"""The real ``axond run`` with a microphone and an event camera on ptys, fused: either may be unplugged."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from agent import wire
from agent.outbox_reader import records
from hil.emulators.edvs import EdvsEmulator
from hil.emulators.serial_pcm import SerialPcmEmulator
from tests.brokers import free_port
from tests.end_to_end.rig import Process, Rig, axond, log_lines, rig, wait_for
from tests.models import fusion

LOOP_S = 4.8
ONSETS_S = (0.4, 1.6, 2.8, 4.0)
PATIENCE_S = 40.0


@dataclass
class Fused:
    """An installation with both sensors."""

    rig: Rig
    mic: SerialPcmEmulator
    camera: EdvsEmulator
    agent: Process
    port: int

    def metrics(self) -> dict[str, float]:
        """Samples of one scrape, by name and labels."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def pipeline(self) -> dict[str, Any]:
        return self.rig.status().get("pipelines", {}).get("both", {})

    def whole(self) -> bool:
        pipeline = self.pipeline()
        last = pipeline.get("last")
        return bool(last) and pipeline["health"] == "ok" and last["quality"] > 0.95

    def rests_on_one(self, gone: str, seen: int) -> bool:
        """Three results since ``seen`` without the sensor ``gone``, and the status says so."""
        pipeline = self.pipeline()
        return (
            bool(pipeline)
            and pipeline["inferences"] >= seen + 3
            and pipeline["last"]["quality"] == 0.5
            and f"{gone}: missing" in (pipeline["problem"] or "")
        )


@pytest.fixture
def fused(tmp_path: Path) -> Iterator[Fused]:
    events = fusion.flashes(ONSETS_S)
    events[-1]["t_ns"] = round(LOOP_S * 1e9) - 1000  # the length of the loop
    t_us, x, y, on = (np.ascontiguousarray(events[name]) for name in ("t_ns", "x", "y", "on"))
    port = free_port()
    with rig(tmp_path, None) as made, ExitStack() as stack:
        fusion.write(made.state / "models")
        made.config.write_text(f"""
[device]
id = "rig"
state_dir = "{made.state}"
[sensors.mic0]
driver = "audio.serial_pcm"
port = "{tmp_path / "mic"}"
baud = 500000
rate_hz = 8000
[sensors.cam0]
driver = "event_camera.edvs"
port = "{tmp_path / "camera"}"
[http]
listen = "127.0.0.1:{port}"
[pipelines.both]
sensors = ["cam0", "mic0"]
model = "made-fused"
[log]
format = "json"
""")
        samples = fusion.sound(LOOP_S, ONSETS_S)[:, 0]
        mic = stack.enter_context(SerialPcmEmulator(samples, 8000, tmp_path / "mic", baud=500_000))
        pixels = (x.astype(np.uint8), y.astype(np.uint8), on.astype(np.uint8))
        camera = stack.enter_context(EdvsEmulator(t_us // 1000, *pixels, tmp_path / "camera"))
        yield Fused(made, mic, camera, made.agent(), port)


def test_either_sensor_may_be_unplugged(fused: Fused) -> None:
    wait_for("results that rest on both", fused.whole, PATIENCE_S)
    config = ("--config", str(fused.rig.config))
    for sensor, emulator, other in (("cam0", fused.camera, "mic0"), ("mic0", fused.mic, "cam0")):
        seen = fused.pipeline()["inferences"]
        emulator.unplug()
        wait_for(f"results without {sensor}", lambda s=sensor, n=seen: fused.rests_on_one(s, n), PATIENCE_S)  # type: ignore[misc]
        status = fused.rig.status()
        assert status["health"]["state"] == "degraded"
        reason = status["health"]["reasons"]["pipeline both"]
        assert reason == f"pipeline both: {sensor}: missing; results rest on {other}"
        assert status["pipelines"]["both"]["quality"] < 1
        assert status["pipelines"]["both"]["inputs"][other]["quality"] > 0.95
        shown = axond("status", *config)
        assert shown.returncode == 0, shown.stderr
        assert f"  pipeline both: {sensor}: missing; results rest on {other}" in shown.stdout
        findings = json.loads(axond("doctor", "--json", *config).stdout)["findings"]
        assert {"agent.inputs"} == {one["id"] for one in findings if one["where"] == "pipelines.both"}
        found = fused.metrics()
        assert 0.3 < found['axond_fusion_quality{pipeline="both"}'] < 1
        quality = {
            name: found[f'axond_fusion_input_quality{{pipeline="both",sensor="{name}"}}'] for name in (sensor, other)
        }
        assert quality[sensor] == 0 and quality[other] > 0.95
        assert found[f'axond_sensor_state{{sensor="{sensor}",state="missing"}}'] == 1
        assert found[f'axond_fusion_late_samples_total{{pipeline="both",sensor="{other}"}}'] >= 0
        emulator.plug()
        wait_for(f"{sensor} again", fused.whole, PATIENCE_S)
    wait_for("the mean is whole again", lambda: fused.pipeline()["quality"] > 0.95, PATIENCE_S)
    assert json.loads(axond("status", "--json", *config).stdout)["health"]["state"] == "ok"
    assert fused.agent.stop()[0] == 0, fused.agent.text()
    rows = [row for one in records(fused.rig.state / "outbox.db") for row in wire.decode(one.payload).rows]
    found = {(row["quality"], row["missing"]) for row in rows}
    assert {(0.5, "cam0"), (0.5, "mic0")} <= found
    assert any(quality > 0.95 and missing == "" for quality, missing in found)
    said = [line["message"] for line in log_lines(fused.agent) if "rest on" in line.get("message", "")]
    assert [re.sub(r" [\d.]+ s$", "", text) for text in said] == [
        "pipeline both: cam0: missing; results rest on mic0",
        "pipeline both: mic0: missing; results rest on cam0",
    ]


def test_sensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with rig(tmp_path, None) as made:
        fusion.write(made.state / "models")
        made.write_config(extra='[pipelines.both]\nsensors = ["mic0", "imu0"]\nmodel = "made-fused"\n')
        done = axond("check", "--config", str(made.config))
        assert done.returncode == 78
        assert "pipelines.both.sensors: none fits input 'events' of model made-fused@1.0.0" in done.stderr
        assert "imu0 gives imu of 6 channels" in done.stderr
        made.write_config(extra='[pipelines.both]\nsensors = ["mic0"]\nmodel = "made-fused"\n')
        assert "model 'made-fused' takes 2: audio" in axond("check", "--config", str(made.config)).stderr
        made.write_config(extra='[pipelines.both]\nsensors = ["mic0", "mic0"]\nmodel = "made-fused"\n')
        assert "pipelines.both.sensors.1: 'mic0' is there twice" in axond("check", "--config", str(made.config)).stderr
        both = '[pipelines.both]\nsensors = ["mic0", "imu0"]\nmodel = "made-fused"\n'
        made.write_config(pace="fast", extra=both)
        done = axond("check", "--config", str(made.config))
        assert done.returncode == 78
        assert "sensors.mic0.pace: at full speed it runs ahead of the other sensors" in done.stderr
