"""``axond bench`` runs and says what it promises; how good the numbers are is for people to judge."""

import json
import shutil

import pytest

from models.datasets import find
from tests.end_to_end.rig import axond


def test_onnx_beside_its_baseline() -> None:
    done = axond("bench", "onnx", "--seconds", "1", "--json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    for model in ("spoken-digits", "activity"):
        assert numbers[f"{model}.onnx_us_per_step"] > 0
        assert numbers[f"{model}.bare_us_per_step"] > 0
        assert 0.5 < numbers[f"{model}.ratio"] < 5


@pytest.mark.skipif(
    find("audio_fsdd") is None and shutil.which("espeak-ng") is None, reason="neither recordings nor espeak-ng"
)
def test_path_of_a_sample() -> None:
    done = axond("bench", "path", "--seconds", "6", "--json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert numbers["results"] >= 2
    assert 0 < numbers["capture_to_durable_p50_ms"] <= numbers["capture_to_durable_p99_ms"]
    assert 0 < numbers["model_share_of_p50"] < 1
    assert numbers["start_to_first_result_s"] > 0
    assert numbers["idle_pss_mib_without_model"] > 0
