"""The encoder of motion that hardly minds how the sensor is mounted, and what its training does to recordings."""

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from drivers.packet import SensorInfo
from models.base import BadModel, Window
from models.datasets.recording import IMU_INFO, audio_info
from models.encoders.imu_bands import DERIVED, ImuBands, ImuBandsConfig

CONFIG = ImuBandsConfig()
SAMPLES = 128
TIME_S = np.arange(SAMPLES) / 50
ALONG, ACROSS, TURN_ALONG, TURN_ACROSS = 6, 7, 8, 9
"""Channels of the spectrogram, behind the six of the sensor."""

Spikes = npt.NDArray[np.uint8]


def bands(physical: npt.NDArray[np.float64], cfg: ImuBandsConfig = CONFIG) -> tuple[Spikes, Spikes]:
    """(steps, channels, bands, levels) and (steps, axes, gravity cells)."""
    encoder = ImuBands(cfg, IMU_INFO, len(physical))
    out = np.full(encoder.shape, 7, np.uint8)
    data = np.rint(physical / IMU_INFO.scale).astype(np.int16)
    encoder.encode(Window(0, 20_000_000, data, IMU_INFO), out)
    shape = len(out), DERIVED, len(cfg.bins) - 1, len(cfg.levels_db)
    split = int(np.prod(shape[1:]))
    return out[:, :split].reshape(shape), out[:, split:].reshape(len(out), 3, -1)


def standing() -> npt.NDArray[np.float64]:
    return np.tile(np.array([1.0, 0, 0, 0, 0, 0]), (SAMPLES, 1))


def walking() -> npt.NDArray[np.float64]:
    """Bouncing along the body twice a second, swaying and turning."""
    moving = standing()
    moving[:, 0] += 0.4 * np.sin(2 * np.pi * 2 * TIME_S)
    moving[:, 1] += 0.1 * np.sin(2 * np.pi * 1 * TIME_S + 1)
    moving[:, 3] += 60 * np.sin(2 * np.pi * 1 * TIME_S)
    moving[:, 5] += 20 * np.sin(2 * np.pi * 4 * TIME_S)
    return moving


def mounted(physical: npt.NDArray[np.float64], axis: tuple[float, float, float], degrees: float) -> np.ndarray:  # type: ignore[type-arg]
    unit = np.array(axis) / np.linalg.norm(axis)
    angle = np.deg2rad(degrees)

    def turn(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        across = vectors - np.outer(vectors @ unit, unit)
        return vectors - across + np.cos(angle) * across + np.sin(angle) * np.cross(unit, vectors)

    return np.concatenate([turn(physical[:, :3]), turn(physical[:, 3:])], axis=1)


def test_a_sensor_at_rest_says_only_where_down_is() -> None:
    moved, gravity = bands(standing())
    assert not moved.any()
    assert (gravity == gravity[0]).all()
    cell_g = np.linspace(-CONFIG.gravity_limit_g, CONFIG.gravity_limit_g, CONFIG.gravity_cells)
    for axis, value_g in enumerate((1.0, 0.0, 0.0)):
        assert np.abs(cell_g[gravity[0, axis] == 1] - value_g).max() < cell_g[1] - cell_g[0]


def test_a_tone_is_in_its_band_as_high_as_it_is_strong() -> None:
    moving = standing()
    moving[:, 1] = 0.2 * np.sin(2 * np.pi * 6.25 * TIME_S)
    moved, _ = bands(moving)
    heights = moved.sum(axis=3)
    band = next(i for i, (low, high) in enumerate(zip(CONFIG.bins, CONFIG.bins[1:], strict=False)) if low <= 8 < high)
    # A Hann window leaves a quarter of the power in the bins beside that of the tone.
    power = (0.2**2 / 2) * np.array([2 / 3, 1 / 6 + 2 / 3])
    least, most = (sum(10 * np.log10(one) > level for level in CONFIG.levels_db) for one in power)
    assert (heights[:, 1].argmax(axis=1) == band).all()
    assert (least <= heights[:, 1, band]).all()
    assert (heights[:, 1, band] <= most).all()
    assert not moved[:, [0, 2, 3, 4, 5, ALONG, TURN_ALONG, TURN_ACROSS]].any()


@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, -2.0, 3.0)])
@pytest.mark.parametrize("degrees", [10.0, 90.0, 200.0])
def test_what_is_along_and_across_gravity_does_not_mind_the_mounting(
    axis: tuple[float, float, float], degrees: float
) -> None:
    upright, _ = bands(walking())
    tilted, _ = bands(mounted(walking(), axis, degrees))
    assert upright[:, ALONG].any()
    assert upright[:, TURN_ACROSS].any()
    assert (upright[:, ALONG:] != tilted[:, ALONG:]).mean() < 0.01


def test_a_sensor_without_gravity_is_encoded() -> None:
    moved, gravity = bands(np.zeros((SAMPLES, 6)))
    assert not moved.any()
    assert (gravity[:, :, CONFIG.gravity_cells // 2] == 1).all()


@pytest.mark.parametrize(
    ("info", "samples", "words"),
    [
        (audio_info(50.0), 128, "audio"),
        (SensorInfo("imu", IMU_INFO.channels, ("m/s2",) * 3 + ("deg/s",) * 3, IMU_INFO.scale, 50.0), 128, "in g and"),
        (SensorInfo("imu", IMU_INFO.channels, IMU_INFO.units, IMU_INFO.scale, 100.0), 128, "100 Hz"),
        (IMU_INFO, 63, "windows of 64 samples or more, got 63"),
    ],
)
def test_another_sensor_is_refused(info: SensorInfo, samples: int, words: str) -> None:
    with pytest.raises(BadModel, match=words):
        ImuBands(CONFIG, info, samples)


def test_a_window_of_another_length_is_refused() -> None:
    encoder = ImuBands(CONFIG, IMU_INFO, SAMPLES)
    with pytest.raises(BadModel, match="expected"):
        encoder.encode(Window(0, 20_000_000, np.zeros((99, 6), np.int16), IMU_INFO), np.zeros(encoder.shape, np.uint8))


@pytest.mark.parametrize("wrong", [{"bins": (1, 1)}, {"bins": (1, 34)}, {"bins": (3,)}, {"hops": 8}, {"levels_db": ()}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ImuBandsConfig.model_validate(wrong)
