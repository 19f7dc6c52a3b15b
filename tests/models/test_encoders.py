"""What the two shipped encoders say about made signals."""

import time

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from drivers.packet import SensorInfo
from models.base import BadModel, Window
from models.datasets.recording import IMU_INFO, audio_info
from models.encoders.audio_mel import AudioMel
from models.encoders.imu_delta import ImuDelta

RATE_HZ = 8000
SAMPLES = 8000
MIC = audio_info(RATE_HZ)


def tone(frequency_hz: float, amplitude: float) -> npt.NDArray[np.float64]:
    return amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(SAMPLES) / RATE_HZ)


def mel_raster(wave: npt.NDArray[np.float64], cfg: AudioMel.Config) -> npt.NDArray[np.uint8]:
    encoder = AudioMel(cfg, MIC, SAMPLES)
    out = np.full(encoder.shape, 7, np.uint8)
    data = np.clip(np.rint(wave), -32768, 32767).astype(np.int16)[:, None]
    encoder.encode(Window(0, 125_000, data, MIC), out)
    return out


def imu_raster(physical: npt.NDArray[np.float64], cfg: ImuDelta.Config) -> npt.NDArray[np.uint8]:
    encoder = ImuDelta(cfg, IMU_INFO, len(physical))
    out = np.full(encoder.shape, 7, np.uint8)
    data = np.rint(physical / IMU_INFO.scale).astype(np.int16)
    encoder.encode(Window(0, 20_000_000, data, IMU_INFO), out)
    return out


def standing(samples: int = 128) -> npt.NDArray[np.float64]:
    return np.tile(np.array([1.0, 0, 0, 0, 0, 0]), (samples, 1))


def test_a_tone_fills_the_bands_around_it_at_every_level() -> None:
    cfg = AudioMel.Config(levels_db=(-10.0, -30.0), step_db=0.0, bands=20)
    raster = mel_raster(tone(1000, 8000), cfg)
    mel_of = 2595 * np.log10(1 + np.array([cfg.low_hz, 1000.0, cfg.high_hz]) / 700)
    band = round(float((mel_of[1] - mel_of[0]) / (mel_of[2] - mel_of[0]) * (cfg.bands + 1) - 1))
    high, low = raster[:, :20], raster[:, 20:]
    assert high[:, band].all()
    assert not high[:, [0, 19]].any()
    assert (low >= high).all()


def test_loudness_does_not_matter_within_sixteen_bits() -> None:
    rng = np.random.default_rng(1)
    wave = tone(700, 1.0) * np.hanning(SAMPLES) + rng.normal(0, 0.02, SAMPLES)
    cfg = AudioMel.Config()
    loud, quiet = mel_raster(20000 * wave, cfg), mel_raster(600 * wave, cfg)
    assert (loud != quiet).mean() < 0.02
    assert 0.02 < loud.mean() < 0.6


def test_a_constant_offset_does_not_matter() -> None:
    wave = tone(700, 3000) * np.hanning(SAMPLES)
    assert (mel_raster(wave, AudioMel.Config()) == mel_raster(wave + 250, AudioMel.Config())).all()


def test_on_and_off_say_when_a_sound_begins_and_ends() -> None:
    cfg = AudioMel.Config(levels_db=(), step_db=6.0, bands=16)
    wave = np.random.default_rng(2).normal(0, 2000, SAMPLES)
    wave[:3000] = wave[5000:] = 0
    raster = mel_raster(wave, cfg)
    on, off = raster[:, :16].sum(axis=1), raster[:, 16:].sum(axis=1)
    assert (np.flatnonzero(on > 8)[0] - 3000 / cfg.hop) == pytest.approx(0, abs=3)
    assert (np.flatnonzero(off > 8)[-1] - 5000 / cfg.hop) == pytest.approx(0, abs=3)
    assert not on[:25].any()
    assert not off[:25].any()


def test_normalised_bands_do_not_show_the_microphones_colour() -> None:
    noise = np.random.default_rng(4).normal(0, 4000, SAMPLES)
    coloured = noise - 0.95 * np.roll(noise, 1)

    def uneven_db(normalise_bands: float) -> float:
        levels_db = tuple(range(-45, 0))  # a spike for each dB
        cfg = AudioMel.Config(step_db=0, levels_db=levels_db, normalise_bands=normalise_bands)
        raster = mel_raster(coloured, cfg).reshape(-1, len(levels_db), cfg.bands)
        return float(np.ptp(raster.sum(axis=1, dtype=np.int64).mean(axis=0)))

    assert uneven_db(0) > 20
    assert uneven_db(0.5) == pytest.approx(uneven_db(0) / 2, rel=0.05)
    assert uneven_db(1) < 0.5


def test_a_peak_is_seen_however_quiet_it_is() -> None:
    cfg = AudioMel.Config(levels_db=(), peaks_db=(6.0, -3.0), step_db=0)
    raster = mel_raster(tone(500, 12000) + tone(2500, 400), cfg).reshape(-1, 2, cfg.bands)
    assert (raster == raster[0]).all()
    above, below = raster[0]
    for hz in (500.0, 2500.0):
        mel = 2595 * np.log10(1 + np.array([cfg.low_hz, hz, cfg.high_hz]) / 700)
        band = round(float((mel[1] - mel[0]) / (mel[2] - mel[0]) * (cfg.bands + 1) - 1))
        assert above[band], hz
        assert below[[band - 3, band + 3]].all(), hz
    assert above.sum() <= 6
    assert not (above & below).any()


def test_an_image_is_all_spectra_at_once_at_every_step() -> None:
    wave = np.random.default_rng(5).normal(0, 4000, SAMPLES)
    how = {"levels_db": (-10.0, -30.0), "peaks_db": (3.0,)}
    one_by_one = mel_raster(wave, AudioMel.Config.model_validate(how))
    cfg = AudioMel.Config.model_validate({**how, "image_steps": 3})
    image = mel_raster(wave, cfg)
    assert image.shape == cfg.shape(SAMPLES) == (3, one_by_one.size)
    assert (image == image[0]).all()
    kinds = one_by_one.reshape(len(one_by_one), cfg.kinds, cfg.bands)
    assert (image[0].reshape(cfg.kinds, -1, cfg.bands) == kinds.transpose(1, 0, 2)).all()


def test_silence_has_no_peaks() -> None:
    cfg = AudioMel.Config(levels_db=(), peaks_db=(2.0, -3.0), step_db=0)
    assert not mel_raster(np.zeros(SAMPLES), cfg).any()


def test_bundles_that_say_normalise_bands_without_a_number_mean_all_of_it() -> None:
    said = [AudioMel.Config.model_validate({"normalise_bands": word}) for word in (True, False)]
    assert said == [AudioMel.Config(normalise_bands=1), AudioMel.Config(normalise_bands=0)]


@pytest.mark.parametrize("normalise_bands", [0.0, 0.5, 1.0])
def test_digital_silence_encodes_without_a_warning(normalise_bands: float) -> None:
    raster = mel_raster(np.zeros(SAMPLES), AudioMel.Config(normalise_bands=normalise_bands))
    assert set(np.unique(raster)) <= {0, 1}


def test_a_second_of_sound_takes_less_than_a_few_milliseconds() -> None:
    encoder = AudioMel(AudioMel.Config(), MIC, SAMPLES)
    out = np.empty(encoder.shape, np.uint8)
    data = np.random.default_rng(3).integers(-3000, 3000, (SAMPLES, 1)).astype(np.int16)
    window = Window(0, 125_000, data, MIC)
    best_ns = min(_timed_ns(lambda: encoder.encode(window, out)) for _ in range(20))
    assert best_ns < 5e6


def _timed_ns(call: object) -> int:
    assert callable(call)
    started_ns = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - started_ns


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (audio_info(16000.0), "16000 Hz"),
        (SensorInfo("audio", ("left", "right"), ("FS", "FS"), (1.0, 1.0), 8000.0), "2 channels"),
        (IMU_INFO, "imu"),
    ],
)
def test_audio_mel_refuses_another_sensor(info: SensorInfo, words: str) -> None:
    with pytest.raises(BadModel, match=words):
        AudioMel(AudioMel.Config(), info, SAMPLES)


def test_audio_mel_refuses_a_window_shorter_than_a_frame() -> None:
    with pytest.raises(BadModel, match="192"):
        AudioMel(AudioMel.Config(), MIC, 100)


@pytest.mark.parametrize(
    "wrong",
    [
        {"high_hz": 5000.0},
        {"levels_db": (), "step_db": 0.0},
        {"hop": 0},
        {"hops": 80},
        {"normalise_bands": 1.5},
        {"peaks_db": (0.0,)},
        {"peaks_db": (3.0,), "bands": 3},
    ],
)
def test_audio_mel_refuses_a_config_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AudioMel.Config.model_validate(wrong)


def test_a_sensor_at_rest_says_only_where_down_is() -> None:
    cfg = ImuDelta.Config()
    raster = imu_raster(standing(), cfg)
    crossings = 6 * (len(cfg.steps_g) + len(cfg.steps_dps))
    gravity = raster[:, crossings : crossings + 3 * cfg.gravity_cells].reshape(128, 3, cfg.gravity_cells)
    assert not raster[:, :crossings].any()
    assert not raster[:, crossings + 3 * cfg.gravity_cells :].any()
    assert (gravity == gravity[0]).all()
    preferred_g = np.linspace(-1, 1, cfg.gravity_cells)
    for axis, value_g in enumerate((1.0, 0.0, 0.0)):
        assert (gravity[0, axis] == (np.abs(preferred_g - value_g) < cfg.gravity_width_g)).all()


def test_lying_down_moves_the_gravity_cells() -> None:
    lying = np.tile(np.array([0.0, 1.0, 0, 0, 0, 0]), (128, 1))
    assert (imu_raster(lying, ImuDelta.Config()) != imu_raster(standing(), ImuDelta.Config())).any()


def test_crossings_rise_and_fall_with_the_signal() -> None:
    cfg = ImuDelta.Config(steps_g=(0.1,), steps_dps=(10.0,))
    moving = standing()
    moving[:, 3] = 40 * np.sin(2 * np.pi * np.arange(128) / 64)
    raster = imu_raster(moving, cfg)
    rotation_on, rotation_off = raster[:, 6:9], raster[:, 9:12]
    slope = np.diff(moving[:, 3], prepend=moving[0, 3])
    assert rotation_on[:, 0].sum() >= 12
    assert (slope[rotation_on[:, 0] == 1] > 0).all()
    assert (slope[rotation_off[:, 0] == 1] < 0).all()
    assert not rotation_on[:, 1:].any()


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (MIC, "audio"),
        (SensorInfo("imu", IMU_INFO.channels, ("m/s2",) * 3 + ("deg/s",) * 3, IMU_INFO.scale, 50.0), "in g and deg/s"),
        (SensorInfo("imu", IMU_INFO.channels[:3], IMU_INFO.units[:3], IMU_INFO.scale[:3], 50.0), "ax, ay, az"),
        (SensorInfo("imu", IMU_INFO.channels, IMU_INFO.units, IMU_INFO.scale, 200.0), "200 Hz"),
    ],
)
def test_imu_delta_refuses_another_sensor(info: SensorInfo, words: str) -> None:
    with pytest.raises(BadModel, match=words):
        ImuDelta(ImuDelta.Config(), info, 128)


def test_imu_delta_takes_the_first_six_of_more_channels() -> None:
    wide = SensorInfo(
        "imu", (*IMU_INFO.channels, "temperature"), (*IMU_INFO.units, "degC"), (*IMU_INFO.scale, 0.01), 50.0
    )
    physical = standing()
    physical[:, 4] = 100 * np.sin(np.arange(128) / 5)
    data = np.rint(physical / IMU_INFO.scale).astype(np.int16)
    encoder = ImuDelta(ImuDelta.Config(), wide, 128)
    out = np.empty(encoder.shape, np.uint8)
    encoder.encode(Window(0, 20_000_000, np.pad(data, ((0, 0), (0, 1)), constant_values=2500), wide), out)
    assert (out == imu_raster(physical, ImuDelta.Config())).all()


def test_an_encoder_refuses_a_window_of_another_length() -> None:
    with pytest.raises(BadModel, match="expected"):
        ImuDelta(ImuDelta.Config(), IMU_INFO, 128).encode(
            Window(0, 20_000_000, np.zeros((100, 6), np.int16), IMU_INFO), np.empty((128, 111), np.uint8)
        )
    encoder = AudioMel(AudioMel.Config(), MIC, SAMPLES)
    with pytest.raises(BadModel, match="expected"):
        encoder.encode(Window(0, 125_000, np.zeros((100, 1), np.int16), MIC), np.empty(encoder.shape, np.uint8))
