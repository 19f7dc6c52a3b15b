"""``axond model teach`` and ``undo`` as a user calls them: files, recordings, a live sensor, and what goes wrong."""

import json
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from agent.__main__ import main
from agent.cli.model_examples import from_files
from drivers.packet import EVENT, Packet
from drivers.recording import save
from models.bundle import Bundle, load
from models.datasets.nmnist import CAMERA_INFO
from models.registry import open_bundle
from tests.models import sounds

NEW_HZ = 3000.0


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return sounds.make(tmp_path_factory.mktemp("sounds"))


def wav(path: Path, data: npt.NDArray[np.int16], rate_hz: int = sounds.RATE_HZ) -> str:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(data.astype("<i2").tobytes())
    return str(path)


def files(folder: Path) -> list[str]:
    rng = np.random.default_rng(1)
    return [wav(folder / f"{i}.wav", sounds.sound(NEW_HZ, rng)) for i in range(5)]


def recorded(path: Path) -> str:
    data = sounds.sound(NEW_HZ, np.random.default_rng(2))[:, None]
    save(path, sounds.INFO, [Packet("mic0", 0, 0, 10**9 // sounds.RATE_HZ, data)])
    return str(path)


def test_from_files_and_back(parent: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine"
    assert (
        main(["model", "teach", str(parent.path), "whistle", "--json", "--from", *files(tmp_path), "-o", str(out)]) == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert (facts["bundle"], facts["parent"], facts["examples"]) == ("sounds@1.1.0", "sounds@1.0.0", 5)
    assert load(out).manifest.labels[-1] == "whistle"
    assert main(["model", "verify", str(out)]) == 0
    capsys.readouterr()
    assert main(["model", "undo", str(out), "-o", str(tmp_path / "before")]) == 0
    assert "as it was" in capsys.readouterr().out
    assert load(tmp_path / "before").digest == parent.digest


def test_a_file_of_another_rate_is_resampled(parent: Bundle, tmp_path: Path) -> None:
    paths = files(tmp_path)
    data = np.repeat(sounds.sound(NEW_HZ, np.random.default_rng(3)), 2)
    paths[0] = wav(tmp_path / "fast.wav", data, 2 * sounds.RATE_HZ)
    assert main(["model", "teach", str(parent.path), "whistle", "--from", *paths, "-o", str(tmp_path / "mine")]) == 0


def test_the_last_events_of_a_recording_are_a_window_too(tmp_path: Path) -> None:
    bundle = open_bundle("event-digits", [])
    events = np.zeros(2001, EVENT)
    events["t_ns"][1:] = np.linspace(10**9, 1.2 * 10**9, 2000).astype(np.int64)  # long behind the first one
    save(tmp_path / "camera.npz", CAMERA_INFO, [Packet("cam0", 0, 0, 0, events)])
    (window,) = from_files(bundle, [tmp_path / "camera.npz"])
    assert len(window.data) > 1800


def test_from_a_recording_and_from_a_live_sensor(
    parent: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recorded(tmp_path / "whistle.npz")
    out = tmp_path / "mine"
    assert main(["model", "teach", str(parent.path), "whistle", "--from", path, "-o", str(out)]) == 0
    assert "from 5 examples" in capsys.readouterr().out
    config = tmp_path / "axond.toml"
    config.write_text(
        f'[device]\nid = "dut"\nstate_dir = "{tmp_path}"\n[sensors.mic0]\ndriver = "replay"\npath = "{path}"\n'
    )
    live = tmp_path / "live"
    command = ["model", "teach", str(parent.path), "whistle", "--from", "mic0", "--windows", "4", "-o", str(live)]
    assert main([*command, "--config", str(config)]) == 0
    heard = capsys.readouterr()
    assert "4 of 4" in heard.err and "from 4 examples" in heard.out


def test_what_goes_wrong_is_one_sentence(parent: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stereo = tmp_path / "stereo.wav"
    with wave.open(str(stereo), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(400))
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "nothing.wav").write_bytes(b"")
    still, fast = (
        wav(tmp_path / f"at{rate_hz}.wav", np.ones(8000, np.int16), rate_hz) for rate_hz in (1, 2_000_000_000)
    )
    config = tmp_path / "axond.toml"
    config.write_text(f'[device]\nid = "dut"\nstate_dir = "{tmp_path}"\n')
    good = files(tmp_path)
    for label, source, complaint in (
        ("whistle", [str(stereo)], "expected one of 16 bits"),
        ("whistle", [str(tmp_path / "text.wav")], "not a WAV file"),
        ("whistle", [str(tmp_path / "nothing.wav")], "it ends too early"),
        ("whistle", [still], "a rate of 1 Hz, expected 100"),
        ("whistle", [fast], "a rate of 2e+09 Hz, expected 100"),
        ("whistle", [str(tmp_path / "absent.wav")], "cannot be read"),
        ("whistle", [str(tmp_path / "absent.npz")], "cannot be opened"),
        ("whistle", ["mic9"], "no sensor"),
        ("whistle", ["mic8", "mic9"], "expected one sensor, or files"),
        ("low", good, "--user"),
    ):
        out = tmp_path / "child"
        command = [
            "model",
            "teach",
            str(parent.path),
            label,
            "--config",
            str(config),
            "-o",
            str(out),
            "--from",
            *source,
        ]
        assert main(command) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert complaint in error
        assert not out.exists()


def test_what_cannot_be_taught_is_refused_before_anybody_gives_examples(
    parent: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recorded(tmp_path / "whistle.npz")
    config = tmp_path / "axond.toml"
    config.write_text(
        f'[device]\nid = "dut"\nstate_dir = "{tmp_path}"\n[sensors.mic0]\ndriver = "replay"\npath = "{path}"\n'
    )
    (tmp_path / "full").mkdir()
    command = ["model", "teach", str(parent.path), "--from", "mic0", "--config", str(config)]
    for label, out, complaint in (("low", "new", "knows 'low' already"), ("whistle", "full", "is no bundle")):
        assert main([*command, label, "-o", str(tmp_path / out)]) == 1
        said = capsys.readouterr().err
        assert complaint in said and "now do" not in said


def test_a_recording_of_another_kind_is_named_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "whistle.npz")
    assert main(["model", "teach", "activity", "x", "--from", path, "-o", str(tmp_path / "child")]) == 1
    said = capsys.readouterr().err
    assert "whistle.npz" in said and "wants imu" in said
