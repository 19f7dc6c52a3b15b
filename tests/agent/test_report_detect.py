"""``report = "detect"``: many inferences of a stream, one result per detection, by the model's rule and the user's."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent import config
from agent.composition import open_bundles
from agent.errors import ConfigError
from agent.pipeline import ReportKind, ReportPolicy
from models.base import Inference
from models.detect import DetectSpec

RULE = DetectSpec(threshold=0.8, ignore=["background"], hold_s=0.5)
STEP_NS = 20_000_000
BLANK = Inference(0, 0, 0, "", 0.0, 0, 0, 0, 0)
CONFIG = """
[device]
state_dir = "{state}"
[sensors.imu0]
driver = "imu.witmotion"
port = "/dev/null"
rate_hz = 50
[pipelines.walk]
sensors = ["imu0"]
model = "activity"
"""


def stream(*parts: tuple[str, float, int]) -> list[Inference]:
    """Label, score and number of steps."""
    steps = [(label, score) for label, score, count in parts for _ in range(count)]
    return [replace(BLANK, label=label, score=score, end_ns=i * STEP_NS) for i, (label, score) in enumerate(steps)]


HEARD = stream(
    ("background", 0.99, 50), ("alexa", 0.7, 5), ("alexa", 0.9, 20), ("background", 0.9, 60), ("jarvis", 0.85, 9)
)


def reported(policy: ReportPolicy) -> list[str]:
    return [inference.label for inference in HEARD if policy.wants(inference)]


def test_a_word_is_one_result_and_the_background_is_none() -> None:
    assert reported(ReportPolicy.of("detect", None, RULE)) == ["alexa", "jarvis"]


def test_without_a_word_of_the_user_the_model_decides_how_to_report() -> None:
    assert reported(ReportPolicy.of(None, None, RULE)) == ["alexa", "jarvis"]
    assert len(reported(ReportPolicy.of(None, None, None))) == len(HEARD)


def test_the_user_may_set_the_threshold() -> None:
    assert reported(ReportPolicy.of("detect", 0.88, RULE)) == ["alexa"]
    assert RULE.threshold == 0.8


@pytest.mark.parametrize(("kind", "threshold", "count"), [("every", None, len(HEARD)), ("threshold", 0.9, 130)])
def test_the_user_may_report_in_another_way(kind: ReportKind, threshold: float | None, count: int) -> None:
    assert len(reported(ReportPolicy.of(kind, threshold, RULE))) == count


def written(tmp_path: Path, more: str) -> config.Config:
    path = tmp_path / "axond.toml"
    path.write_text(CONFIG.format(state=tmp_path) + more)
    return config.load(path)


def test_a_model_without_the_rule_is_refused_before_anything_starts(tmp_path: Path) -> None:
    settings = written(tmp_path, 'report = "detect"\n')
    with pytest.raises(ConfigError, match=r"pipelines\.walk\.report: model 'activity' has no part \"detect\""):
        open_bundles(settings)


@pytest.mark.parametrize(
    ("more", "fine"),
    [
        ("", True),
        ('report = "detect"\nthreshold = 0.5\n', True),
        ('report = "threshold"\nthreshold = 0.5\n', True),
        ("threshold = 0.5\n", False),
        ('report = "every"\nthreshold = 0.5\n', False),
        ('report = "threshold"\n', False),
    ],
)
def test_a_threshold_belongs_to_two_of_the_reports(tmp_path: Path, more: str, fine: bool) -> None:
    if fine:
        written(tmp_path, more)
        return
    with pytest.raises(ConfigError, match=r"pipelines\.walk\.threshold"):
        written(tmp_path, more)
