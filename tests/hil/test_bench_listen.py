"""``axond bench listen``, short, with a detector that knows nothing: everything is counted, and its faults are told."""

import csv
import wave
from pathlib import Path

import nir
import numpy as np
import pytest

from agent.cli.command import CommandError
from hil.bench import listen
from models.build import build_graph
from tests.models.networks import nir_graph

RATE_HZ = 16000
RECIPE = {
    "name": "made",
    "version": "1.0.0",
    "input": {"family": "audio", "channels": ["mono"], "rate_hz": RATE_HZ},
    "encoder": {"kind": "audio_relative", "bands": 8, "levels_db": [-20.0], "step_db": 6.0},
    "labels": ["a", "b", "none"],
    "state": "carry",
    "readout_steps": 10,
    "temperature": 1e5,
}
DETECT = {"threshold": 0.9, "ignore": ["none"], "hold_s": 0.5}


def built(folder: Path, detect: dict[str, object] | None) -> str:
    nir.write(str(folder / "network.nir"), nir_graph(np.random.default_rng(3), features=24, hidden=16, dt=0.02))
    recipe = RECIPE if detect is None else {**RECIPE, "detect": detect}
    return str(build_graph(folder / "network.nir", folder / "bundle", recipe).bundle.path)


def sounds(folder: Path, labels: str, seed: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    with (folder / "manifest.csv").open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["file", "label", "split"])
        for i, label in enumerate(labels):
            rows.writerow([f"{i}.wav", label, "test"])
            with wave.open(str(folder / f"{i}.wav"), "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(RATE_HZ)
                loud = np.repeat(10 ** rng.uniform(0, 3.5, 10), RATE_HZ // 10)
                sound.writeframes(np.rint(rng.normal(0, 1, RATE_HZ) * loud).astype("<i2").tobytes())
    return folder


def test_everything_is_counted_and_faults_are_told(tmp_path: Path) -> None:
    bundle = built(tmp_path, DETECT)
    words, noises = sounds(tmp_path / "words", "aabb", 1), sounds(tmp_path / "noises", "nnn", 2)
    numbers = listen.measure(0.001, bundle, words, noises, 10.0)
    assert numbers["said"] == 3 * listen.SETTLE_SCENES
    assert numbers["hours"] == pytest.approx(numbers["said"] * listen.SCENE_S / 3600, abs=1e-3)
    assert 0 <= numbers["hits"] <= numbers["said"]
    assert numbers["hits"] + numbers["wrong_words"] + numbers["false_alarms"] > 0
    assert all(numbers[f"pss_{when}_mib"] > 10 for when in ("start", "middle", "end"))
    assert numbers["cpu_s"] > 0
    assert str(words) in numbers["words"]
    assert any("hits" in fault for fault in numbers["faults"]) == (numbers["hit_rate"] < listen.LEAST_HITS)
    assert any("alarms" in fault for fault in numbers["faults"]) == (numbers["false_alarms_per_hour"] > 1)
    assert numbers["faults"]


def test_a_model_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    bundle = built(tmp_path, None)
    words, noises = sounds(tmp_path / "words", "ab", 1), sounds(tmp_path / "noises", "n", 2)
    with pytest.raises(CommandError, match="no part detect"):
        listen.measure(0.001, bundle, words, noises, 10.0)


def test_an_unknown_model_is_one_sentence() -> None:
    with pytest.raises(CommandError, match="nothing-like-it"):
        listen.measure(0.001, "nothing-like-it", None, None, 10.0)
