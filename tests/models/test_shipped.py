"""The shipped bundles: identical on every backend, and as good as their cards say."""

from pathlib import Path

import numpy as np
import pytest

from models.backends.onnx import OnnxBackend
from models.backends.reference import ReferenceBackend
from models.base import Trace
from models.datasets.load import find, load
from models.evaluate import evaluate
from models.registry import ZOO, open_bundle
from models.select import load_backend

SHIPPED = sorted(p.parent.name for p in ZOO.glob("*/manifest.json"))
RASTERS, STEPS = 1000, 12
DATA = {"spoken-digits": "audio_fsdd", "activity": "imu_uci_har", "event-digits": "event_nmnist"}
BARS = {"spoken-digits": 0.96, "activity": 0.90, "event-digits": 0.94}


def test_both_bundles_are_here() -> None:
    assert set(DATA) <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_golden_vectors_on_every_backend(name: str) -> None:
    for kind in ("onnx", "reference"):
        load_backend(open_bundle(name, []), kind)[1].close()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_thousand_random_rasters_differ_in_no_cell(name: str) -> None:
    bundle = open_bundle(name, [])
    onnx, reference = OnnxBackend(), ReferenceBackend()
    onnx.load(bundle)
    reference.load(bundle)
    neurons = tuple(layer.neurons for layer in bundle.network.layers)
    rng = np.random.default_rng(0)
    differing, spikes = 0, 0
    for _ in range(RASTERS):
        raster = (rng.random((STEPS, bundle.network.features)) < rng.uniform(0.01, 0.6)).astype(np.uint8)
        mine, theirs = Trace.empty(STEPS, neurons), Trace.empty(STEPS, neurons)
        a, b = onnx.infer(raster, trace=mine), reference.infer(raster, trace=theirs)
        differing += mine.differing_cells(theirs) + int((a != b).sum())
        spikes += int(theirs.spikes[0].sum())
    onnx.close()
    assert spikes > RASTERS
    assert differing == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_accuracy_on_the_test_split(name: str) -> None:
    folder = find(DATA[name])
    if folder is None:
        pytest.skip(f"no recordings: {DATA[name]} is neither in AXOND_DATA nor in ../shared/data")
    bundle = open_bundle(name, [])
    _, backend = load_backend(bundle, "onnx")
    result = evaluate(bundle, backend, load(folder, "test"))
    backend.close()
    assert result.correct / result.total >= BARS[name]
    assert abs(result.correct - result.correct_float) / result.total <= 0.005


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_states_what_a_card_must(name: str) -> None:
    text = (Path(ZOO) / name / "CARD.md").read_text().lower()
    for word in ("licence", "recipe", "accuracy", "limits", "float", "int8"):
        assert word in text
