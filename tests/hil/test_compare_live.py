"""Results of a live demo are recognised as decisions on its stimulus; a wrong one is not."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from drivers.packet import Packet
from drivers.synthetic import motion
from hil.compare import live
from hil.demo.stimuli import Stimulus
from models.datasets.recording import IMU_INFO
from models.registry import make_backend, open_bundle
from models.session import Session

RATE_HZ = 50.0
FIRST = 137
"""The sample at which the listener came."""


@pytest.fixture(scope="module")
def stimulus() -> Stimulus:
    rng = np.random.default_rng(5)
    parts = [motion("walking", 500, rng), motion("sitting", 500, rng), motion("walking_upstairs", 500, rng)]
    return Stimulus("made", np.concatenate(parts), RATE_HZ, ())


@pytest.fixture(scope="module")
def rows(stimulus: Stimulus) -> list[dict[str, Any]]:
    """As the hub stores them, from a device whose clock began somewhere."""
    return list(heard(stimulus))


def heard(stimulus: Stimulus) -> Iterator[dict[str, Any]]:
    bundle = open_bundle("activity", [])
    with closing(make_backend("reference")) as backend:
        backend.load(bundle)
        session = Session(bundle, backend, IMU_INFO)
        packet = Packet("imu0", 0, 1_700_000_000_003_000_000, 20_000_000, stimulus.data[FIRST:])
        for inference in session.push(packet):
            yield {
                "t_us": inference.t0_ns // 1000,
                "label": inference.label,
                "score": inference.score,
                "spikes": inference.input_spikes,
                "lost": inference.lost,
            }


def test_all_are_recognised(stimulus: Stimulus, rows: list[dict[str, Any]]) -> None:
    assert len(rows) > 10
    assert live.check("activity", stimulus, rows) == live.Verdict(len(rows), [], 0)


@pytest.mark.parametrize("change", [{"score": 0.1234}, {"spikes": 1}, {"label": "nothing"}])
def test_a_wrong_one_is_named(stimulus: Stimulus, rows: list[dict[str, Any]], change: dict[str, Any]) -> None:
    wrong = {**rows[4], **change}
    changed = [*rows[:4], wrong, *rows[5:]]
    assert live.check("activity", stimulus, changed) == live.Verdict(len(rows) - 1, [wrong], 0)


def test_one_of_another_time_is_named(stimulus: Stimulus, rows: list[dict[str, Any]]) -> None:
    late = {**rows[6], "t_us": rows[6]["t_us"] + 200_000}
    assert live.check("activity", stimulus, [*rows[:6], late, *rows[7:]]).different == [late]


def test_what_was_made_up_is_not_compared(stimulus: Stimulus, rows: list[dict[str, Any]]) -> None:
    filled = {**rows[2], "score": 0.5, "lost": 3}
    assert live.check("activity", stimulus, [*rows[:2], filled, *rows[3:]]) == live.Verdict(len(rows) - 1, [], 1)


def test_nothing_is_recognised_in_another_stimulus(rows: list[dict[str, Any]]) -> None:
    other = Stimulus("made", motion("walking", 900, np.random.default_rng(9)), RATE_HZ, ())
    assert live.check("activity", other, rows).same == 0
