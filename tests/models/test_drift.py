"""Drift is said before decisions get worse, not said of data like those of the training, and over when it is over."""

import numpy as np
import numpy.typing as npt
import pytest

from models import drift as drifting
from models import statistics
from models.base import Inference, Window
from models.bundle import Bundle
from models.drift import LOOK_EVERY_NS, Drift, watch
from tests.models import sounds

EVERY_NS = 2 * 10**9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return sounds.make(tmp_path_factory.mktemp("sounds"))


def watcher(made: Bundle) -> Drift:
    found = watch(made)
    assert found is not None
    return found


def mixed(seed: int, each: int, noise_db: float = -40.0) -> tuple[list[Window], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    windows, truth = sounds.labelled(rng, each, noise_db)
    order = rng.permutation(len(windows))
    return [windows[i] for i in order], truth[order]


def follow(
    made: Bundle, drift: Drift, windows: list[Window], truth: npt.NDArray[np.int64], every_ns: int = EVERY_NS
) -> tuple[list[bool], npt.NDArray[np.bool_]]:
    """Whether there was drift after each window, and which decisions were right."""
    coded = sounds.rasters(made, windows)
    potentials = statistics.look(made.network, coded).potentials
    score = statistics.confidence(potentials, made.manifest.temperature)
    decided = potentials.argmax(axis=1)
    drifting = []
    for i, raster in enumerate(coded):
        label = made.manifest.labels[decided[i]]
        drift.see(raster, Inference(i * every_ns, 0, 0, label, round(float(score[i]), 4), 0, 0, 0, 0))
        drifting.append(drift.state.drifting)
    return drifting, decided == truth


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_data_as_in_training_are_no_drift(made: Bundle, seed: int) -> None:
    drift = watcher(made)
    drifting, right = follow(made, drift, *mixed(seed, 60))
    assert not any(drifting)
    assert right.mean() > 0.9
    assert drift.state.reason == ""


def test_rising_noise_is_drift_before_decisions_get_worse(made: Bundle) -> None:
    drift = watcher(made)
    windows: list[Window] = []
    truth: list[npt.NDArray[np.int64]] = []
    for step, noise_db in enumerate((-40.0, -37.0, -34.0, -31.0, -28.0, -25.0, -22.0, -19.0, -16.0, -13.0, -10.0)):
        some, labels = mixed(30 + step, 8, noise_db)
        windows += some
        truth.append(labels)
    drifting, right = follow(made, drift, windows, np.concatenate(truth))
    began = drifting.index(True)
    assert right[:began].mean() > right[:48].mean() - 0.05
    assert right[-48:].mean() < 0.95 * right[:48].mean(), "later it does get worse"
    assert all(drifting[began:])
    assert "not as in training" in drift.state.reason
    assert max(drift.state.scores.values()) >= 1


def test_it_is_over_when_the_noise_is(made: Bundle) -> None:
    drift = watcher(made)
    during, _ = follow(made, drift, *mixed(41, 20, -8.0))
    after, _ = follow(made, drift, *mixed(42, 60))
    assert during[-1]
    assert not after[-1]
    assert drift.state.reason == ""


def test_one_label_for_long_is_little_evidence(made: Bundle) -> None:
    windows, truth = mixed(43, 20, -8.0)
    many, _ = follow(made, watcher(made), windows, truth)
    same, _ = follow(made, watcher(made), [windows[0]] * len(windows), np.repeat(truth[:1], len(windows)))
    assert many.index(True) < (same.index(True) if True in same else len(same))


def test_the_network_is_looked_into_once_in_a_while(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    inside = statistics.look_inside

    def counted(*arguments: object) -> statistics.Inside:
        looks.append(arguments)
        return inside(*arguments)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(statistics, "look_inside", counted)
    windows, truth = mixed(44, 10)
    follow(made, watcher(made), windows, truth, every_ns=LOOK_EVERY_NS // 5)
    assert len(looks) == len(windows) / 5


def test_a_label_that_never_changes_neither_hides_drift_nor_keeps_it(
    made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drifting, "MOST_ALIKE", 20)  # sooner
    (clear, truth), (noisy, _) = mixed(45, 20), mixed(45, 20, -8.0)
    drift, times_ns = watcher(made), iter(range(0, 10**15, EVERY_NS))

    def hear(windows: list[Window], score: float, count: int) -> bool:
        coded = sounds.rasters(made, windows)[truth == 0]
        for i in range(count):
            drift.see(coded[i % len(coded)], Inference(next(times_ns), 0, 0, "low", score, 0, 0, 0, 0))
        return drift.state.drifting

    assert not hear(clear, 1.0, 300)
    assert hear(noisy, 0.0, 300)
    assert not hear(clear, 1.0, 1600)
