"""What the trainings of activity and pump-condition do to recordings; and one of them from data to a bundle."""

from pathlib import Path

import numpy as np
import pytest

from models import build
from models.datasets.pumps import PUMPS_INFO
from models.datasets.recording import IMU_INFO

pytest.importorskip("torch", reason="torch (extra 'train') is not installed")

from models.train import activity, augment_imu, pump_condition


def motion(seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3000, (128, 6)).astype(np.int16)


def test_a_turned_sensor_measures_vectors_of_the_same_length() -> None:
    turn = augment_imu.rotation(np.random.default_rng(1), 15.0)
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-12)
    assert (np.trace(turn) - 1) / 2 == pytest.approx(np.cos(np.deg2rad(15.0)))
    before, after = motion(), augment_imu.turned(motion(), turn)
    assert (before != after).any()
    for part in (slice(0, 3), slice(3, 6)):
        lengths = [np.linalg.norm(data[:, part].astype(float), axis=1) for data in (before, after)]
        assert lengths[0] == pytest.approx(lengths[1], abs=1.0)


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("where", [0.0, 1.0])
def test_another_pace_is_the_same_motion(factor: float, where: float) -> None:
    slope = np.tile(np.arange(128.0)[:, None], (1, 6))
    steps = np.diff(activity.paced(slope, factor, where)[:, 0])
    usual = np.abs(steps) == pytest.approx(factor)
    assert usual or np.count_nonzero(~np.isclose(np.abs(steps), factor)) <= 1
    assert (np.flatnonzero(steps < 0).min(initial=127) >= 127 / factor - 1) if factor > 1 else (steps > 0).all()


def test_augmented_motion_stays_motion() -> None:
    copies = [activity.augment(motion(), np.random.default_rng(seed)) for seed in range(20)]
    assert all(copy.shape == (128, 6) and copy.dtype == np.int16 for copy in copies)
    power = [
        np.std(copy * np.asarray(IMU_INFO.scale)) / np.std(motion() * np.asarray(IMU_INFO.scale)) for copy in copies
    ]
    assert 0.5 < min(power) < max(power) < 2.0
    assert (activity.augment(motion(), np.random.default_rng(3)) == copies[3]).all()


def test_augmented_pumps_lose_pressure_as_often_as_said() -> None:
    level = np.array([0.56, 0.55, 4.0, 1.5, 3.0, 2.0])
    data = level + np.random.default_rng(0).normal(0, 0.001, (2000, 100, 6))
    made = pump_condition.augment(data, np.random.default_rng(1))
    dead = (made == 0).all(axis=1)
    assert dead[:, :2].all(axis=1).mean() == pytest.approx(pump_condition.PRESSURE_FAULTS[0] + 0.01, abs=0.04)
    assert dead[:, 2:].mean() == pytest.approx(0.1 + 0.045, abs=0.02)
    stuck = ~dead[:, 0] & (np.ptp(made[:, :, 0], axis=1) == 0)
    assert stuck.mean() == pytest.approx(pump_condition.PRESSURE_FAULTS[1] * 0.9, abs=0.03)
    off_mpa = np.abs(made[~dead[:, 0] & ~stuck, :, 0].mean(axis=1) - 0.56)
    assert off_mpa.max() <= pump_condition.MOST_DRIFT_MPA + 0.01
    assert data[:, 0].mean(axis=0) == pytest.approx(level, abs=0.001), "the given windows are not changed"


def test_the_ranges_leave_outliers_out() -> None:
    data = np.random.default_rng(0).integers(100, 900, (5000, 6)).astype(np.int32)
    data[7] = 10_000_000
    recording = pump_condition.Recording("a", "1_pump", "a", data, PUMPS_INFO, np.full(len(data), "1_pump"))
    settings = pump_condition.encoder_settings([recording])
    assert settings.low == pytest.approx([0.108] * 6, abs=0.01)
    assert settings.high == pytest.approx([0.892] * 6, abs=0.01)


def bench(folder: Path) -> None:
    """Ten seconds and more of each number of pumps, pressure and vibration apart."""
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        rows = [0.18, 0.17, 0.9, 0.4, 0.8, 0.5] * np.array(number) + rng.normal(0, 0.005, (700, 6))
        lines = [
            f"{i // 600:02}:{i % 600 / 10:04.1f}," + ",".join(f"{value:.3f}" for value in row)
            for i, row in enumerate(rows)
        ]
        text = "\n".join(["time,pre1,pre2,vib1,vib2,vib3,vib4", *lines])
        (folder / f"pumps{number}.csv").write_text(text, encoding="utf-8")


def test_from_a_bench_to_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench(tmp_path)
    out = tmp_path / "out"
    assert pump_condition.main(["--data", str(tmp_path), "--out", str(out), "--epochs", "1"]) == 0
    assert "both pressure sensors dead" in capsys.readouterr().out
    bundle = build.build(out, tmp_path / "bundle")
    assert bundle.manifest.sole.input.family == "vibration"
    assert "- all vibration sensors dead: " in (out / "CARD.md").read_text(encoding="utf-8")


def test_validation_writes_nothing(tmp_path: Path) -> None:
    bench(tmp_path)
    out = tmp_path / "out"
    assert pump_condition.main(["--data", str(tmp_path), "--out", str(out), "--epochs", "1", "--validate"]) == 0
    assert not out.exists()


@pytest.mark.parametrize("train", [activity.main, pump_condition.main])
def test_a_folder_without_data_is_one_sentence(
    train: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(train)
    assert train(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: none of ")
