"""``audio_relative``: a window and a stream give the same spikes, gain does not matter, steady noise goes away."""

import time

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from drivers.packet import Packet, SensorInfo
from models.base import BadModel, Window
from models.datasets.recording import audio_info
from models.encoders.audio_relative import AudioRelative, AudioRelativeConfig, AudioRelativeStream
from models.encoders.audio_steps import MAX_FILL_S

RATE_HZ = 16000
MIC = audio_info(RATE_HZ)
CFG = AudioRelativeConfig(levels_db=(-6, -20), contrasts_db=(12,), quiet_db=-120)
BANDS = CFG.bands


def speechlike(seconds: float, seed: int = 0) -> npt.NDArray[np.float64]:
    """Noise of unit power in bursts of a tenth of a second, over 20 dB."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE_HZ)
    burst = 10 ** (rng.uniform(-20, 0, -(-count // 1600)) / 20)
    return rng.normal(0, 1, count) * np.repeat(burst, 1600)[:count]


def integers(wave: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int64)


def steps(wave: npt.NDArray[np.float64], cfg: AudioRelativeConfig = CFG) -> npt.NDArray[np.uint8]:
    return AudioRelativeStream(cfg, MIC).steps(integers(wave))


def test_a_window_and_a_stream_give_the_same_spikes() -> None:
    samples = integers(3000 * speechlike(2.0)).astype(np.int16)[:, None]
    window = AudioRelative(CFG, MIC, len(samples))
    out = np.full(window.shape, 7, np.uint8)
    window.encode(Window(0, 62_500, samples, MIC), out)
    stream = AudioRelativeStream(CFG, MIC)
    parts, seq = [], 0
    sizes = iter([1, 511, 2, 320, 1000, 7, 5000, *[320] * 100])
    at = 0
    while at < len(samples):
        size = next(sizes)
        made = stream.push(Packet("mic", seq, at * 62_500, 62_500, samples[at : at + size]))
        assert made.fresh == (seq == 0)
        parts.append(made.raster)
        at, seq = at + size, seq + 1
    assert np.array_equal(np.concatenate(parts), out)
    assert 0.02 < out.mean() < 0.6


def test_gain_does_not_matter_within_sixteen_bits() -> None:
    wave = speechlike(3.0)
    cfg = CFG.model_copy(update={"step_db": 0.0})
    loud, quiet = steps(6000 * wave, cfg), steps(1500 * wave, cfg)
    assert (loud != quiet).mean() < 0.01
    # Where multiples of a level's step are depends on the gain, how often they are passed does not.
    changes = [steps(gain * wave)[:, 3 * BANDS :].mean() for gain in (6000, 1500)]
    assert changes[0] == pytest.approx(changes[1], rel=0.05)


def test_a_silent_room_stays_silent_and_a_loud_one_does_not() -> None:
    room = np.random.default_rng(2).normal(0, 1, 2 * RATE_HZ)
    cfg = CFG.model_copy(update={"quiet_db": -70.0})
    hiss, noise = steps(2 * room, cfg), steps(2000 * room, cfg)
    assert hiss[:, : 2 * BANDS].mean() < 0.01
    assert noise[:, : 2 * BANDS].mean() > 0.05


def test_steady_noise_is_taken_away_and_what_stands_out_of_it_is_not() -> None:
    cfg = AudioRelativeConfig(levels_db=(), contrasts_db=(14,), step_db=0)
    noise = 500 * np.random.default_rng(3).normal(0, 1, 3 * RATE_HZ)
    tone = 3000 * np.sin(2 * np.pi * 1000 * np.arange(len(noise)) / RATE_HZ)
    tone[: 2 * RATE_HZ] = 0
    raster = steps(noise + tone, cfg)
    before, after = raster[40:98], raster[102:]
    band = int(after.mean(axis=0).argmax())
    assert before[:, band].mean() < 0.2
    assert after[:10, band].all()
    assert 9 <= band <= 15


def test_changes_are_heard_once() -> None:
    cfg = AudioRelativeConfig(levels_db=(), step_db=6.0)
    wave = 100 * np.sin(2 * np.pi * 1000 * np.arange(2 * RATE_HZ) / RATE_HZ)
    wave[RATE_HZ:] *= 30
    raster = steps(wave, cfg)
    on, off = raster[:, :BANDS], raster[:, BANDS:]
    assert not on[:48].any()
    assert on[48:53].any()
    assert not on[55:].any()
    assert not off[:48].any()


def test_a_gap_is_filled_when_short_and_begins_anew_when_long() -> None:
    samples = integers(3000 * speechlike(1.0)).astype(np.int16)[:, None]
    stream = AudioRelativeStream(CFG, MIC)
    stream.push(Packet("mic", 0, 0, 62_500, samples))
    short = round(MAX_FILL_S * RATE_HZ) // 2
    made = stream.push(Packet("mic", 1, (len(samples) + short) * 62_500, 62_500, samples, lost=short))
    assert (made.fresh, made.lost) == (False, short)
    assert len(made.raster) == (len(samples) + short) // CFG.hop
    later = stream.push(Packet("mic", 9, 10**11, 62_500, samples))
    assert later.fresh
    assert np.array_equal(later.raster, AudioRelativeStream(CFG, MIC).steps(samples[:, 0].astype(np.int64)))
    assert later.t0_ns == 10**11 + (CFG.frame + 1 - CFG.hop) * 62_500


@pytest.mark.parametrize(
    ("info", "word"),
    [
        (audio_info(8000), "8000 Hz"),
        (SensorInfo("audio", ("left", "right"), ("FS", "FS"), (1.0, 1.0), 16000.0), "2 channels"),
    ],
)
def test_other_sensors_are_refused(info: SensorInfo, word: str) -> None:
    with pytest.raises(BadModel, match=word):
        AudioRelativeStream(CFG, info)


def test_impossible_settings_are_refused() -> None:
    for settings in ({"high_hz": 9000.0}, {"hop": 600}, {"levels_db": (), "step_db": 0.0}):
        with pytest.raises(ValidationError):
            AudioRelativeConfig(**settings)
    with pytest.raises(BadModel, match="more than 512"):
        AudioRelative(CFG, MIC, 512)


def test_less_than_two_percent_of_a_core() -> None:
    wave = integers(3000 * speechlike(10.0))
    stream = AudioRelativeStream(CFG, MIC)
    shares = []
    for _ in range(3):
        start_s = time.process_time()
        for first in range(0, len(wave), 320):
            stream.steps(wave[first : first + 320])
        shares.append((time.process_time() - start_s) / 10)
    assert min(shares) < 0.02
