"""``axond model``: a graph becomes a bundle, which is looked into, measured, exported and compared."""

import json
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from agent.__main__ import main
from models import bundle
from models.registry import ZOO
from tests.models import networks

FEATURES = 129
"""What imu_delta gives with its usual settings."""
LABELS = "walking,sitting,laying"


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "net.nir"
    made = networks.nir_graph(np.random.default_rng(0), features=FEATURES, hidden=12)
    made.metadata = {}
    nir.write(str(path), made)
    return path


def build(graph: Path, out: Path, *more: str) -> int:
    arguments = ["--encoder", "imu_delta", "--window", "128/64", "--labels", LABELS, "--dt", "0.01", "-o", str(out)]
    return main(["model", "build", str(graph), *arguments, *more])


@pytest.fixture(scope="module")
def made(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "mine"
    assert build(graph, out) == 0
    return out


def har(folder: Path) -> Path:
    """Two parts of twelve made windows; walking shakes, the others do not."""
    rng = np.random.default_rng(1)
    names = [f"{kind}_{axis}" for kind in ("total_acc", "body_gyro") for axis in "xyz"]
    parts: dict[str, Any] = {"channels": np.array(names)}
    for split in ("train", "test"):
        labels = np.tile([1, 4, 6], 4)
        data = rng.normal(0, 0.01, (12, 6, 128)) + np.where(labels == 1, 1, 0)[:, None, None] * rng.normal(
            0, 0.5, (12, 6, 128)
        )
        data[:, 0] += np.where(labels == 6, 0, 1)[:, None]
        parts |= {f"X_{split}": data.astype(np.float32), f"y_{split}": labels.astype(np.uint8)}
    folder.mkdir()
    np.savez(folder / "har.npz", **parts)
    return folder


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error


def test_the_bundle_says_everything_and_the_same_input_gives_the_same_bytes(
    graph: Path, made: Path, tmp_path: Path
) -> None:
    loaded = bundle.load(made)
    assert loaded.id == "mine@1.0.0"
    assert loaded.manifest.input.channels == ["ax", "ay", "az", "gx", "gy", "gz"]
    assert loaded.manifest.encoder["gravity_cells"] == 17
    assert (loaded.manifest.weight_bits, loaded.manifest.granularity) == (8, "layer")
    assert build(graph, tmp_path / "mine") == 0
    assert bundle.load(tmp_path / "mine").digest == loaded.digest


def test_the_bundles_graph_states_its_time_step(made: Path) -> None:
    from models import nir_graph

    assert nir_graph.read(made / "network.nir").dt_s == 0.01


def test_calibrated_on_recordings_it_tells_the_cost_of_every_choice(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = har(tmp_path / "data")
    assert build(graph, tmp_path / "mine", "--calibrate", str(data), "--bits", "4", "--per", "neuron", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [(c["bits"], c["per"], c["chosen"]) for c in facts["choices"]] == [
        (8, "layer", False), (8, "neuron", False), (4, "layer", False), (4, "neuron", True),
    ]  # fmt: skip
    assert all(0 <= c["accuracy"] <= 1 and c["problem"] is None for c in facts["choices"])
    assert facts["choices"][0]["disagree"] <= facts["choices"][2]["disagree"]
    assert all(0 < one["u_seen"] <= one["u_bound"] for one in facts["reach"])
    assert bundle.load(tmp_path / "mine").manifest.weight_bits == 4
    assert main(["model", "eval", f"{tmp_path}/mine", "--data", str(data), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["accuracy"] == round(facts["choices"][3]["accuracy"], 4)
    assert measured["accuracy_float"] == round(facts["accuracy_float"], 4)
    assert build(graph, tmp_path / "mine", "--calibrate", str(data)) == 0
    text = capsys.readouterr().out
    assert "<- chosen" in text
    assert "12 windows to calibrate, 12 others to judge" in text


def test_a_stream_has_no_window(tmp_path: Path) -> None:
    path = tmp_path / "net.nir"
    nir.write(str(path), networks.nir_graph(np.random.default_rng(0), features=2 * 4 * 4))
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    encoder = "event_bins:width=8,height=8,pool=2"
    arguments = ["--encoder", encoder, "--labels", str(labels), "--readout-steps", "20", "-o", str(tmp_path / "camera")]
    assert main(["model", "build", str(path), *arguments]) == 0
    manifest = bundle.load(tmp_path / "camera").manifest
    assert (manifest.state, manifest.window, manifest.readout_steps) == ("carry", None, 20)
    assert (manifest.input.family, manifest.labels) == ("event_camera", ["a", "b", "c"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--labels", "a,b"], ["--labels names 2", "3 outputs"]),
        (["--labels", "a,a,b"], ["labels", "same"]),
        (["--encoder", "imu_delta:gravity_cells=5"], ["gives 93 features, the network takes 129"]),
        (["--encoder", "imu_delta:gravity=5"], ["--encoder imu_delta: gravity"]),
        (["--encoder", "imu_delta:{"], ["--encoder: not JSON"]),
        (["--encoder", "imu_dleta"], ["no encoder 'imu_dleta'"]),
        (["--window", "many"], ["--window many: expected"]),
        (["--window", "0"], ["window.samples is 0"]),
        (["--window", '{"mode": "time", "sample": 3}'], ["--window", "expected"]),
        (["--input", "imu/ax/fast"], ["'fast' is no rate"]),
        (["--input", "imu/ax,ay/50"], ["imu_delta takes an imu"]),
        (["--name", "Mine!"], ["name"]),
        (["--version", "one"], ["version"]),
        (["--dt", "1"], ["tau_mem of 0.05 s is shorter than the time step"]),
        (["--calibrate", "absent"], ["absent: no such folder"]),
        (["--card", "absent"], ["--card absent: cannot be read"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert build(graph, tmp_path / "mine", *arguments) == 1
    refused(capsys, *words)
    assert not (tmp_path / "mine").exists()


def test_a_trainings_folder_becomes_the_shipped_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped, source = ZOO / "activity", tmp_path / "source"
    source.mkdir()
    manifest = json.loads((shipped / "manifest.json").read_text())
    derived = ("format", "files", "weight_bits", "granularity")
    recipe = {key: value for key, value in manifest.items() if key not in derived}
    (source / "recipe.json").write_text(json.dumps(recipe))
    for name in ("network.nir", "CARD.md"):
        (source / name).write_bytes((shipped / name).read_bytes())
    assert main(["model", "build", str(source), "-o", str(tmp_path / "activity")]) == 0
    assert "activity@1.0.0, 2 layers" in capsys.readouterr().out
    assert main(["model", "diff", f"{tmp_path}/activity", "activity"]) == 0


def test_what_is_missing_is_asked_for(graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "build", str(graph), "-o", str(tmp_path / "mine")]) == 1
    refused(capsys, "--encoder is needed beside a .nir file")
    assert main(["model", "build", str(tmp_path), "--labels", "a,b", "-o", str(tmp_path / "mine")]) == 1
    refused(capsys, "--labels does not go with a folder")
    arguments = ["--encoder", "imu_delta", "--window", "128", "--labels", LABELS, "-o", str(tmp_path / "mine")]
    assert main(["model", "build", str(graph), *arguments]) == 1
    refused(capsys, "does not state its time step; say it with --dt")


def test_info_draws_the_graph_and_names_the_targets(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "info", str(made)]) == 0
    text = capsys.readouterr().out
    assert "input (129)" in text
    assert "lif1 (12)  dense, CUBA-LIF, recurrent" in text
    assert main(["model", "info", str(made), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["layers"][0]["dense_operations_per_step"] == 12 * (FEATURES + 12)
    assert 0 < facts["synaptic_operations_per_step"] < 12 * (FEATURES + 12) + 36
    assert facts["targets"]["onnx"] is None


def test_bench_times_what_is_here_and_never_what_may_not_be(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "bench", str(made), "--seconds", "0.05", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["us_per_step"]
    assert rows["reference"] > 0
    assert rows["akida"] == "not measured: its licence forbids it"


def test_a_file_of_labels_that_is_not_there(graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(graph, tmp_path / "out", "--labels", "words.txt") == 1
    refused(capsys, "--labels words.txt: no such file")


def test_export_writes_each_target_once(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in ("nir", "npz", "onnx", "onnx-window", "tflite"):
        out = tmp_path / target
        assert main(["model", "export", str(made), "--target", target, "-o", str(out)]) == 0
        assert out.stat().st_size > 100
    assert (tmp_path / "nir").read_bytes() == (made / "network.nir").read_bytes()
    capsys.readouterr()
    assert main(["model", "export", str(made), "--target", "nir", "-o", str(tmp_path / "nir")]) == 1
    refused(capsys, "exists; name a new file")


def test_diff_tells_fields_weights_and_spikes(
    graph: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "diff", str(made), str(made)]) == 0
    assert "the same manifest and the same integers" in capsys.readouterr().out
    assert build(graph, tmp_path / "four", "--bits", "4") == 0
    capsys.readouterr()
    assert main(["model", "diff", str(made), f"{tmp_path}/four", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["manifest"]["weight_bits"] == [8, 4]
    assert "changed" in facts["layers"]["lif1"]
    assert not facts["golden_rasters"].startswith("0 of")
    assert main(["model", "diff", str(made), "activity"]) == 1
    assert "not comparable" in capsys.readouterr().out


def test_verify_names_every_backend(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "verify", str(made), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ok"]
    assert facts["backends"]["reference"] == "identical"
