"""What the texture code says about made sounds."""

import time

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from models.base import BadModel, Window
from models.datasets.recording import IMU_INFO, audio_info
from models.encoders.audio_texture import BANDS, LEVELS, MODULATIONS_HZ, QUANTILES, AudioTexture

RATE_HZ = 16_000
SAMPLES = 15_300
MIC = audio_info(RATE_HZ)
AT_S = np.arange(SAMPLES) / RATE_HZ


def texture() -> AudioTexture:
    return AudioTexture(AudioTexture.Config(), MIC, SAMPLES)


def statistics(wave: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    return texture().statistics(wave)


def noise(seed: int = 1) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 0.1, SAMPLES)


def raster(wave: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    encoder = texture()
    out = np.full(encoder.shape, 7, np.uint8)
    encoder.encode(Window(0, 62_500, np.rint(wave * 32768).astype(np.int16)[:, None], MIC), out)
    return out


def test_a_tone_is_loud_in_its_band_and_stands_out() -> None:
    tone, rain = statistics(0.1 * np.sin(2 * np.pi * 2000 * AT_S)), statistics(noise())
    mel = 2595 * np.log10(1 + np.array([50.0, 2000.0, 7900.0]) / 700)
    band = round((mel[1] - mel[0]) / (mel[2] - mel[0]) * (BANDS + 1) - 1)
    median_db = tone["level"][QUANTILES.index(0.5)]
    assert int(median_db.argmax()) == band
    assert median_db[band] > 10
    assert tone["tones"].max() > 2 * rain["tones"].max()


@pytest.mark.parametrize(("rate_hz", "wanted"), [(2.0, 0), (8.0, 2), (20.0, 4), (40.0, 5)])
def test_a_beat_is_in_the_range_of_its_rate(rate_hz: float, wanted: int) -> None:
    beating = statistics(noise() * (1 + 0.8 * np.sin(2 * np.pi * rate_hz * AT_S)))
    all_bands = beating["modulation"].reshape(len(MODULATIONS_HZ), -1)[:, -1]
    assert int(all_bands.argmax()) == wanted


def test_clicks_are_changes_and_skewed() -> None:
    steady, clicks = noise(), 0.01 * noise(2)
    clicks[:: RATE_HZ // 4] = 0.9
    for name in ("deviation", "change", "skewness", "flux"):
        assert statistics(clicks)[name].mean() > statistics(steady)[name].mean() + 0.5, name


def test_loudness_does_not_matter_within_sixteen_bits() -> None:
    loud, quiet = raster(noise()), raster(noise() / 20)
    assert np.mean(loud != quiet) < 0.01
    assert np.mean(loud != raster(np.cumsum(noise()) / 10)) > 0.1


def test_cells_are_filled_up_to_the_statistic_and_held() -> None:
    out = raster(noise())
    assert (out == out[0]).all()
    first = len(LEVELS["level"])
    cells = out[0, : first * BANDS * len(QUANTILES)].reshape(-1, first).astype(int)
    assert (np.diff(cells, axis=1) <= 0).all()
    levels_db = statistics(np.rint(noise() * 32768) / 32768)["level"].ravel()
    assert np.array_equal(cells.sum(axis=1), (levels_db[:, None] >= LEVELS["level"]).sum(axis=1))


def test_silence_is_finite() -> None:
    for one in (np.zeros(SAMPLES), np.full(SAMPLES, 0.5)):
        assert all(np.isfinite(statistic).all() for statistic in statistics(one).values())
        assert set(np.unique(raster(one))) <= {0, 1}


def test_what_does_not_fit_is_named() -> None:
    cfg = AudioTexture.Config()
    with pytest.raises(BadModel, match="the sensor is imu with 6 channels"):
        AudioTexture(cfg, IMU_INFO, SAMPLES)
    with pytest.raises(BadModel, match="made for 16000 Hz, the sensor gives 8000 Hz"):
        AudioTexture(cfg, audio_info(8000), SAMPLES)
    with pytest.raises(BadModel, match="windows of 3072 samples or more, the bundle has 3071"):
        AudioTexture(cfg, MIC, 3071)
    with pytest.raises(BadModel, match=r"got \(10, 1\) samples"):
        texture().encode(Window(0, 1, np.zeros((10, 1), np.int16), MIC), np.zeros(texture().shape, np.uint8))
    with pytest.raises(ValidationError, match="low_hz < high_hz <= rate_hz / 2"):
        AudioTexture.Config(rate_hz=8000)


def test_the_shortest_window_is_enough() -> None:
    encoder = AudioTexture(AudioTexture.Config(), MIC, 3072)
    out = np.full(encoder.shape, 7, np.uint8)
    encoder.encode(Window(0, 62_500, np.zeros((3072, 1), np.int16), MIC), out)
    assert out.max() <= 1


def test_it_takes_less_than_a_fiftieth_of_a_core() -> None:
    encoder = texture()
    window = Window(0, 62_500, np.rint(noise() * 32768).astype(np.int16)[:, None], MIC)
    out = np.zeros(encoder.shape, np.uint8)
    encoder.encode(window, out)
    started_s = time.process_time()
    for _ in range(20):  # ten seconds of the sensor
        encoder.encode(window, out)
    assert time.process_time() - started_s < 0.2
