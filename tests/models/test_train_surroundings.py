"""The trainings of wall-following and sound-events, small, on made data: what they write is what a build takes."""

import io
import wave
from pathlib import Path

import numpy as np
import pytest

from models import build, evaluate
from models.backends.reference import ReferenceBackend
from models.datasets.load import load
from models.datasets.recording import DataError

pytest.importorskip("torch", reason="torch (extra 'train') is not installed")

from models.train import sound_events, wall_following


def ring(folder: Path, rows: int) -> Path:
    """A robot that turns sharply when something is near in front, and goes on otherwise."""
    rng = np.random.default_rng(3)
    distance_m = np.round(rng.uniform(0.95, 4.0, (rows, 24)), 3)
    near = rng.random(rows) < 0.5
    distance_m[near, 12] = np.round(rng.uniform(0.4, 0.8, near.sum()), 3)
    said = np.where(near, "Sharp-Right-Turn", "Move-Forward")
    lines = [",".join([*(f"S{i + 1}" for i in range(24)), "OUTPUT"])]
    lines += [",".join([*map(str, row), label]) for row, label in zip(distance_m.tolist(), said, strict=True)]
    (folder / "sensor_readings_24.csv").write_text("\n".join(lines) + "\n")
    return folder


def sounds(folder: Path) -> Path:
    """Two kinds of sound in four folds, three clips of two pieces in each."""
    rng = np.random.default_rng(4)
    rows = ["file,label,fold,source_clip,second,split"]
    for fold in range(1, 5):
        for label in ("rain", "clock_tick"):
            for clip in range(3):
                for second in range(2):
                    sound = rng.normal(0, 2000, 15_400)
                    if label == "clock_tick":
                        sound *= np.arange(15_400) % 4000 < 200
                    name = f"{fold}-{label}{clip}-{second}.wav"
                    blob = io.BytesIO()
                    with wave.open(blob, "wb") as writer:
                        writer.setnchannels(1)
                        writer.setsampwidth(2)
                        writer.setframerate(16_000)
                        writer.writeframes(np.rint(sound).astype("<i2").tobytes())
                    (folder / name).write_bytes(blob.getvalue())
                    split = "test" if fold == 4 else "train"
                    rows.append(f"{name},{label},{fold},{fold}-{label}{clip},{second},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def accuracy(made: Path, data: Path) -> float:
    bundle = build.build(made, made.parent / "bundle")
    backend = ReferenceBackend()
    backend.load(bundle)
    found = evaluate.evaluate(bundle, backend, load(data, "test"))
    backend.close()
    assert found.no_window == 0
    return found.correct / found.total


def test_a_ring_learns_to_turn(tmp_path: Path) -> None:
    data = ring(tmp_path, 480)
    wall_following.run(data, tmp_path / "made", epochs=3, fold=None)
    assert accuracy(tmp_path / "made", data) > 0.9


def test_two_sounds_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_events, "VARIANTS", 4)
    data = sounds(tmp_path)
    sound_events.run(data, tmp_path / "made", epochs=8, fold=None)
    assert accuracy(tmp_path / "made", data) > 0.9


def test_a_fold_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wall_following.run(ring(tmp_path, 400), tmp_path / "made", epochs=1, fold=0)
    assert "int8" in capsys.readouterr().out
    assert not (tmp_path / "made").exists()


def test_without_data_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module in (wall_following, sound_events):
        assert module.main(["--out", str(tmp_path / "made"), "--data", str(tmp_path / "nowhere")]) == 1
        assert "no such folder" in capsys.readouterr().err


def test_other_sounds_are_named(tmp_path: Path) -> None:
    data = sounds(tmp_path)
    text = (data / "manifest.csv").read_text().replace(",rain,", ",snow,")
    (data / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match="unknown sounds snow"):
        sound_events.run(data, tmp_path / "made", 1, None)
