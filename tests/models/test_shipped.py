"""The shipped bundles: identical on every backend, and as good as the issue of their makers asks."""

from pathlib import Path

import numpy as np
import pytest

from models import statistics
from models.backends.onnx import OnnxBackend
from models.backends.reference import ReferenceBackend
from models.base import Trace
from models.datasets.load import find, load
from models.evaluate import Evaluation, evaluate
from models.evaluate_fused import FusedEvaluation, evaluate_fused, load_pairs
from models.evaluate_stream import StreamEvaluation, evaluate_stream
from models.registry import ZOO, open_bundle
from models.select import load_backend

SHIPPED = sorted(p.parent.name for p in ZOO.glob("*/manifest.json"))
CELLS, STEPS = 4_000_000, 12
"""Random rasters are as many as make so many cells of the network, and at most ..."""
MOST_RASTERS = 1000
DATA = {
    "spoken-digits": ("audio_fsdd",),
    "wake-words": ("audio_wakewords",),
    "sound-events": ("audio_esc10",),
    "activity": ("imu_uci_har",),
    "wall-following": ("ultrasonic_wall_following",),
    "event-digits": ("event_nmnist",),
    "pump-condition": ("vib_pipeline_pumps",),
    "fused-digits": ("audio_fsdd", "event_nmnist"),
}
BARS = {
    "spoken-digits": 0.98,
    "wake-words": 0.83,
    "sound-events": 0.60,
    "activity": 0.93,
    "wall-following": 0.96,
    "event-digits": 0.94,
    "pump-condition": 0.90,
    "fused-digits": 0.995,
}
CARD = ("licence", "recipe", "accuracy", "limits", "float", "int8", "synaptic operations", "trained in")


def result(name: str, without: tuple[str, ...] = ()) -> Evaluation | StreamEvaluation | FusedEvaluation:
    """As ``axond model eval`` finds it on the test part; skips where there are no recordings."""
    folders = [folder for data in DATA[name] if (folder := find(data)) is not None]
    if len(folders) < len(DATA[name]):
        pytest.skip(f"no recordings: {', '.join(DATA[name])} not in AXOND_DATA nor in ../shared/data")
    bundle = open_bundle(name, [])
    _, backend = load_backend(bundle, "onnx")
    try:
        if bundle.manifest.inputs is not None:
            return evaluate_fused(bundle, backend, load_pairs(bundle.manifest, folders, "test", without))
        judge = evaluate if bundle.manifest.state == "reset" else evaluate_stream
        return judge(bundle, backend, load(folders[0], "test"))
    finally:
        backend.close()


def test_all_bundles_are_here() -> None:
    assert set(DATA) == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_golden_vectors_on_every_backend(name: str) -> None:
    for kind in ("onnx", "reference"):
        load_backend(open_bundle(name, []), kind)[1].close()


@pytest.mark.parametrize("name", SHIPPED)
def test_random_rasters_differ_in_no_cell(name: str) -> None:
    bundle = open_bundle(name, [])
    onnx, reference = OnnxBackend(), ReferenceBackend()
    onnx.load(bundle)
    reference.load(bundle)
    neurons = bundle.network.neurons
    rng = np.random.default_rng(0)
    differing, spikes = 0, 0
    rasters = min(MOST_RASTERS, CELLS // (STEPS * sum(neurons)))
    for _ in range(rasters):
        raster = (rng.random((STEPS, bundle.network.features)) < rng.uniform(0.01, 0.6)).astype(np.uint8)
        mine, theirs = Trace.empty(STEPS, neurons), Trace.empty(STEPS, neurons)
        a, b = onnx.infer(raster, trace=mine), reference.infer(raster, trace=theirs)
        differing += mine.differing_cells(theirs) + int((a != b).sum())
        spikes += int(theirs.spikes[0].sum())
    onnx.close()
    assert spikes > rasters
    assert differing == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_accuracy_on_the_test_split(name: str) -> None:
    found = result(name)
    assert found.correct / found.total >= BARS[name]
    assert abs(found.correct - found.correct_float) / found.total <= 0.005


@pytest.mark.parametrize(("dead", "alone"), [("audio", "event-digits"), ("events", "spoken-digits")])
def test_the_fused_model_with_a_dead_sensor(dead: str, alone: str) -> None:
    """Within two points of the model of the other one."""
    fused, single = result("fused-digits", (dead,)), result(alone)
    assert fused.correct / fused.total >= single.correct / single.total - 0.02


@pytest.mark.parametrize("name", SHIPPED)
def test_the_statistics_are_of_this_network(name: str) -> None:
    bundle = open_bundle(name, [])
    if statistics.FILE in bundle.manifest.files:
        assert statistics.read(bundle) is not None
    else:
        assert bundle.manifest.state == "carry"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_states_what_a_card_must(name: str) -> None:
    text = (Path(ZOO) / name / "CARD.md").read_text().lower()
    for word in CARD:
        assert word in text, word
