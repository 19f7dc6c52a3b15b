"""What a person does wrong: one clear sentence, the right exit code, no traceback."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.brokers import MOSQUITTO, Mosquitto
from tests.end_to_end.rig import Rig, axond, rig, wait_for

UNPLUGGED = '[sensors.x]\ndriver = "imu.witmotion"\nport = "/dev/serial/by-id/usb-none"\n'


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, None) as installed:
        installed.write_config()
        yield installed


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr + done.stdout
    last = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last, last


def test_no_configuration(tmp_path: Path) -> None:
    refused(axond("run", "--config", str(tmp_path / "none.toml")), 78, "none.toml", "cannot be read")


def test_unknown_key(made: Rig) -> None:
    made.write_config(extra="[outbox]\nmax_byte = 1\n")
    for command in ("run", "check"):
        refused(axond(command, "--config", str(made.config)), 78, "outbox.max_byte: unknown key", "'max_bytes'")


def test_unknown_model_and_backend(made: Rig) -> None:
    text = made.config.read_text()
    made.config.write_text(text.replace("made-motion", "made-moton"))
    refused(axond("check", "--config", str(made.config)), 78, "pipelines.motion.model", "did you mean 'made-motion'")
    made.config.write_text(text.replace('model = "made-motion"', 'model = "made-motion"\nbackend = "abacus"'))
    refused(axond("check", "--config", str(made.config)), 78, "pipelines.motion.backend", "onnx, tflite, reference")


def test_model_for_another_sensor(made: Rig) -> None:
    made.config.write_text(made.config.read_text().replace('"made-motion"', '"made-audio"'))
    refused(axond("run", "--config", str(made.config)), 78, "pipelines.motion.model", "wants audio", "gives imu")


def test_model_for_another_rate(made: Rig) -> None:
    made.config.write_text(made.config.read_text().replace("rate_hz = 8000", "rate_hz = 16000"))
    refused(axond("run", "--config", str(made.config)), 78, "8000 Hz", "16000 Hz")


def test_alarm_that_the_model_never_gives(made: Rig) -> None:
    text = made.config.read_text()
    made.config.write_text(text.replace('model = "made-motion"', 'model = "made-motion"\nalarms = ["fall"]'))
    refused(axond("check", "--config", str(made.config)), 78, "pipelines.motion.alarms", "no label 'fall'", "c0, c1")


def test_tampered_bundle(made: Rig) -> None:
    weights = made.state / "models" / "made-audio" / "network.npz"
    content = bytearray(weights.read_bytes())
    content[-30] ^= 1
    weights.write_bytes(content)
    refused(axond("run", "--config", str(made.config)), 78, "network.npz", "SHA-256", "restore the bundle")


def test_missing_and_truncated_wav_end_the_agent(made: Rig) -> None:
    made.wav.write_bytes(made.wav.read_bytes()[:5000])
    refused(axond("run", "--config", str(made.config)), 78, "bursts.wav", "truncated")
    made.wav.unlink()
    refused(axond("run", "--config", str(made.config)), 78, "bursts.wav")


def test_state_folder_that_cannot_be(made: Rig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made.config.write_text(f'[device]\nid = "x"\nstate_dir = "{tmp_path / "file" / "below"}"\n')
    refused(axond("run", "--config", str(made.config)), 78, "device.state_dir", "Not a directory")


def test_two_agents_on_one_folder(made: Rig) -> None:
    made.agent()
    wait_for("the first agent runs", lambda: bool(made.status()))
    refused(axond("run", "--config", str(made.config)), 78, "outbox", "another")
    assert made.status(), "the first agent must not notice"


def test_missing_device_is_waited_for(made: Rig) -> None:
    made.config.write_text(f'[device]\nid = "x"\nstate_dir = "{made.state}"\n' + UNPLUGGED)
    agent = made.agent()
    wait_for("the agent says what is missing", lambda: "sensor x" in made.status().get("health", {}).get("reasons", {}))
    assert "/dev/serial/by-id/usb-none" in made.status()["health"]["reasons"]["sensor x"]
    assert agent.stop()[0] == 0


def test_no_agent_to_ask(made: Rig) -> None:
    refused(axond("status", "--config", str(made.config)), 1, "no agent runs on", "axond run")
    refused(axond("outbox", "stats", "--config", str(made.config)), 1, "no outbox")


def test_usage() -> None:
    assert axond("status", "--nonsense").returncode == 2
    assert axond().returncode == 2
    assert axond("--help").returncode == 0
    refused(axond("replay", "--model", "nope", "x.wav"), 1, "no model 'nope'")


def test_replay_of_what_is_no_recording(made: Rig, tmp_path: Path) -> None:
    model = str(made.state / "models" / "made-audio")
    (tmp_path / "noise.wav").write_bytes(b"RIFF no")
    refused(axond("replay", "--model", model, str(tmp_path / "noise.wav")), 1, "noise.wav", "neither WAV, FLAC")
    (tmp_path / "noise.npz").write_bytes(b"PK no")
    done = axond("replay", "--model", model, str(tmp_path / "noise.npz"))
    assert done.returncode in (1, 78)
    assert "noise.npz" in done.stderr
    assert "Traceback" not in done.stderr


def test_replay_of_a_clip_decides_as_between_silences_and_says_when_nothing_begins(made: Rig, tmp_path: Path) -> None:
    model = str(made.state / "models" / "made-audio")
    samples, rate_hz = soundfile.read(made.wav, dtype="int16")
    loud = np.flatnonzero(np.abs(samples) > 1000)[0]
    soundfile.write(tmp_path / "clip.wav", samples[loud : loud + rate_hz // 5], rate_hz)
    done = axond("replay", "--model", model, "--json", str(tmp_path / "clip.wav"))
    assert done.returncode == 0, done.stderr
    (row,) = (json.loads(line) for line in done.stdout.splitlines())
    assert row["t_s"] == 0
    soundfile.write(tmp_path / "still.wav", np.zeros(rate_hz, np.int16), rate_hz)
    done = axond("replay", "--model", model, "--json", str(tmp_path / "still.wav"))
    assert (done.returncode, done.stdout) == (0, "")
    assert "still.wav: no decision" in done.stderr
    refused(axond("replay", "--model", model, str(tmp_path / "none.wav")), 1, "none.wav: no such file")


def test_a_recording_that_is_not_there_is_named_with_its_sensor(made: Rig, tmp_path: Path) -> None:
    sensor = '[sensors.old]\ndriver = "replay"\npath = "none.npz"\n'
    pipeline = '[pipelines.p]\nsensors = ["old"]\nmodel = "activity"\n'
    made.config.write_text(f'[device]\nid = "x"\nstate_dir = "{made.state}"\n{sensor}{pipeline}')
    refused(axond("check", "--config", str(made.config)), 78, "axond.toml", "sensors.old", "none.npz")


def test_replay_gives_the_same_twice(made: Rig) -> None:
    model = str(made.state / "models" / "made-audio")
    first = axond("replay", "--model", model, "--json", str(made.wav))
    assert first.returncode == 0, first.stderr
    rows = [json.loads(line) for line in first.stdout.splitlines()]
    assert len(rows) == 20, "one result for each burst"
    assert axond(
        "replay", "--model", model, "--json", "--backend", "reference", str(made.wav)
    ).stdout == first.stdout.replace('"backend": "onnx"', '"backend": "reference"')


def test_record_then_replay(made: Rig, tmp_path: Path) -> None:
    made.write_config(pace="fast")
    out = tmp_path / "mic.npz"
    done = axond("record", "mic0", "--seconds", "3", "-o", str(out), "--config", str(made.config))
    assert done.returncode == 0, done.stderr
    replayed = axond("replay", "--model", str(made.state / "models" / "made-audio"), "--json", str(out))
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout.splitlines()[0])["model"] == "made-audio@1.0.0"


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_broker_that_refuses_the_password(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "broker", users={"rig": "right"}).start()
    try:
        with rig(tmp_path, broker.port) as made:
            password = tmp_path / "password"
            password.write_text("wrong\n")
            made.write_config(extra=f'username = "rig"\npassword_file = "{password}"\n')
            agent = made.agent()
            wait_for("the refusal", lambda: "password" in str((made.status().get("uplink") or {}).get("error")))
            assert made.status()["health"]["state"] == "degraded"
            wait_for("results are kept", lambda: made.status()["outbox"]["rows"] > 0)
            password.write_text("right\n")
            wait_for("the right password is taken without a restart", lambda: made.status()["uplink"]["connected"], 60)
            assert agent.stop()[0] == 0
    finally:
        broker.stop()


def test_the_module_and_the_script_are_the_same() -> None:
    script = Path(sys.executable).with_name("axond")
    done = subprocess.run([script, "version", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(axond("version", "--json").stdout)
