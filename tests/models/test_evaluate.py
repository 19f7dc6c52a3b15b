"""What is counted where a recording gives no window."""

from pathlib import Path

import numpy as np

from models.backends.reference import ReferenceBackend
from models.datasets.recording import Recording
from models.evaluate import evaluate
from tests.models import sounds


def test_a_run_without_a_window_is_wrong_by_its_last_label(tmp_path: Path) -> None:
    bundle = sounds.make(tmp_path)
    whole = sounds.sound(sounds.CENTRE_HZ["high"], np.random.default_rng(1))[: 2 * sounds.SPEC.samples, None]
    runs = [
        Recording("long", "", "", whole, sounds.INFO, np.repeat(["high"], len(whole))),
        Recording("short", "", "", whole[:10], sounds.INFO, np.repeat(["low", "middle"], 5)),
    ]
    backend = ReferenceBackend()
    backend.load(bundle)
    found = evaluate(bundle, backend, runs)
    assert (found.total, found.correct, found.no_window) == (3, 2, 1)
    assert found.confusion.sum() == found.confusion[2, 2] == 2
