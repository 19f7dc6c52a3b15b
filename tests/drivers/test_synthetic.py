from typing import Any

import numpy as np
import pytest

from drivers.synthetic import ACTIVITIES, Synthetic, SyntheticConfig, motion

G = 16 / 32768
GAITS = ("walking", "walking_upstairs", "walking_downstairs")


def played(samples: int, **options: Any) -> tuple[Synthetic, np.ndarray]:
    driver = Synthetic("made0", SyntheticConfig.model_validate({"pace": "fast", **options}))
    driver.open()
    packets = []
    while sum(len(p.data) for p in packets) < samples:
        packet = driver.read(1)
        assert packet is not None
        packets.append(packet)
    assert {p.t0_ns - packets[0].t0_ns - i * packets[0].dt_ns * len(p.data) for i, p in enumerate(packets)} == {0}
    return driver, np.concatenate([p.data for p in packets])[:samples]


@pytest.mark.parametrize("options", [{}, {"signal": "tone", "rate_hz": 8000}])
def test_a_seed_gives_the_same_samples_however_they_are_cut(options: dict[str, Any]) -> None:
    _, once = played(5000, seed=4, packet_ms=100, **options)
    _, again = played(5000, seed=4, packet_ms=340, **options)
    _, other = played(5000, seed=5, packet_ms=100, **options)
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.parametrize("activity", ACTIVITIES)
@pytest.mark.parametrize("seed", range(5))
def test_a_person_weighs_one_g_and_moves_as_the_activity_demands(activity: Any, seed: int) -> None:
    rows = motion(activity, 1000, np.random.default_rng(seed))
    assert rows.shape == (1000, 6)
    assert rows.dtype == np.int16
    acceleration_g = rows[:, :3] * G
    assert np.linalg.norm(acceleration_g.mean(axis=0)) == pytest.approx(1, abs=0.05)
    moving = acceleration_g.std(axis=0).max()
    assert 0.1 < moving < 1 if activity in GAITS else moving < 0.03
    upright = acceleration_g[:, 0].mean()
    assert abs(upright) < 0.75 if activity == "laying" else upright > 0.6
    # A live gyroscope dithers: no axis may stand still.
    assert (rows[:, 3:].std(axis=0) > 0.5).all()


@pytest.mark.parametrize(("activity", "low_hz", "high_hz"), [("walking", 1.5, 2.3), ("walking_upstairs", 1.3, 2.0)])
def test_steps_have_a_walker_s_frequency(activity: Any, low_hz: float, high_hz: float) -> None:
    rows = motion(activity, 2000, np.random.default_rng(1))
    spectrum = np.abs(np.fft.rfft(rows[:, 0] - rows[:, 0].mean()))
    assert low_hz < np.fft.rfftfreq(2000, 0.02)[spectrum.argmax()] < high_hz


def test_activities_change_over_time() -> None:
    _, rows = played(50 * 300)
    spread = rows[:, 0].reshape(-1, 250).std(axis=1) * G
    assert (spread > 0.1).any()
    assert (spread < 0.03).any()


def test_a_tone_swells_out_of_the_noise() -> None:
    driver, sound = played(8000, signal="tone", rate_hz=8000)
    assert driver.info().family == "audio"
    level = np.abs(sound.reshape(-1, 500)).max(axis=1) / 32768
    assert level.min() < 0.03
    assert level.max() > 0.09
