"""``axond locate learn``: from recordings of the user to a file that a pipeline takes."""

import json
from pathlib import Path

import numpy as np
import pytest

from agent.__main__ import main
from drivers.lib.sound import sound_info
from drivers.packet import Packet
from drivers.recording import save
from drivers.ultrasonic.echo import Echo, EchoConfig
from hil.sonar.echoes import Reflector, pings
from models.locate import classes

INFO = Echo("echo0", EchoConfig(port="/dev/none")).info()


def record(path: Path, waveforms: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, INFO, [Packet("echo0", 0, 0, 10**8, waveforms)])


def recordings(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for place in (600.0, 800.0, 1000.0, 1200.0):
        record(folder / "wall" / f"{place:.0f}.npz", pings(8, [Reflector(place)], rng))
        two = [Reflector(place, 0.3), Reflector(place + 120, 0.3)]
        record(folder / "chair" / f"{place:.0f}.npz", pings(8, two, rng))
    record(folder / "wall" / "none.npz", pings(2, [], rng))
    return folder


def test_learn_from_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = recordings(tmp_path / "echoes"), tmp_path / "classes.json"
    assert main(["locate", "learn", "--data", str(folder), "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pings"] == {"chair": 32, "wall": 32}
    assert (told["without_echo"], told["groups"]) == (2, 8)
    assert told["held_out_accuracy"] > 0.9
    assert classes.load(out).labels == ("chair", "wall")
    assert main(["locate", "learn", "--data", str(folder), "-o", str(out)]) == 0
    assert "named right when their recording or place was held out" in capsys.readouterr().out


def test_one_recording_of_each_class_cannot_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    record(tmp_path / "e" / "near" / "1.npz", pings(5, [Reflector(500)], rng))
    record(tmp_path / "e" / "far" / "1.npz", pings(5, [Reflector(1500)], rng))
    assert main(["locate", "learn", "--data", str(tmp_path / "e"), "-o", str(tmp_path / "c.json")]) == 0
    assert "accuracy unknown: record each class twice" in capsys.readouterr().out


def grid(path: Path, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    count = 12
    arrays = {
        "waveform": (pings(count, [Reflector(700)], rng).astype(np.int32) + 32768).astype(np.uint16),
        "n_samples": np.full(count, 1000, np.uint16),
        "dt_us": np.full(count, 8.19, np.float32),
        "tall": np.arange(count) % 2 == 0,
        "x_cm": np.arange(count, dtype=np.int16),
        "y_cm": np.full(count, 70, np.int16),
    }
    np.savez(path, **(arrays | changes))
    return path


def test_learn_from_a_grid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = grid(tmp_path / "grid.npz")
    assert main(["locate", "learn", "--data", str(path), "-o", str(tmp_path / "c.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pings"] == {"short": 6, "tall": 6}


def say(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["locate", "learn", *arguments]) == 1
    text = capsys.readouterr().err
    assert text.startswith("axond: ")
    assert text.count("\n") == 1
    return text


def test_what_cannot_be_learnt_from_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "c.json")]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no recordings LABEL/*.npz" in say(["--data", str(empty), *out], capsys)
    assert "cannot be read" in say(["--data", str(tmp_path / "none.npz"), *out], capsys)
    (tmp_path / "text.npz").write_text("hello")
    assert "no grid file" in say(["--data", str(tmp_path / "text.npz"), *out], capsys)
    uneven = grid(tmp_path / "uneven.npz", x_cm=np.zeros(3, np.int16))
    assert "one number for each ping" in say(["--data", str(uneven), *out], capsys)
    odd = grid(tmp_path / "odd.npz", n_samples=np.full(12, 9999, np.uint16))
    assert "which cannot be" in say(["--data", str(odd), *out], capsys)
    record(empty / "one" / "1.npz", pings(3, [Reflector(700)], np.random.default_rng(0)))
    assert "expected 2 to 64 classes" in say(["--data", str(empty), *out], capsys)
    assert "expected a file FILE.json" in say(["--data", str(empty), "-o", str(tmp_path / "c.txt")], capsys)
    record(empty / "two" / "1.npz", pings(3, [], np.random.default_rng(0)))
    (empty / "one" / "1.npz").unlink()
    assert "no ping with an echo" in say(["--data", str(empty), *out], capsys)
    mono = [Packet("mic0", 0, 0, 1000, np.zeros((10, 1), np.int16))]
    save(empty / "two" / "2.npz", sound_info(8000, 1), mono)
    assert "gives no echo waveforms" in say(["--data", str(empty), *out], capsys)
