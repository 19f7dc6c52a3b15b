"""Speech to spikes: log-mel bands, level-normalised per window, as levels and on/off changes.

Mel scale and triangular bands as in Davis and Mermelstein (1980), O'Shaughnessy's formula 2595 log10(1 + f / 700).
All levels are relative to the loudest band of the window, and never below ``range_db``. Of each band's mean over the
loud steps the part ``normalise_bands`` is taken away, and that of the mean of all bands put in its place: what
microphone, room and timbre do to the whole of a word (cepstral mean normalisation, Atal 1974). The whole of it also
takes the vowel from a word that has but one. Features in order, each for every band:
``levels_db`` (the band is at or above it); ``peaks_db`` (it is so much above the mean of itself and the bands within
``NEAR_BANDS`` of it, or of a number below 0 so much below: formants, however much a microphone mutes the high ones);
on, then off (its level, smoothed over two steps, rose or fell through a multiple of ``step_db``; 0 = no such
features). Few bands and short frames blur the speaker's pitch away.

A time step is a spectrum. With ``image_steps`` the whole window is shown at each of so many steps instead, as an image
for convolutions: cells in the order (feature, spectrum, band).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.packet import SensorInfo
from models.base import BadModel, Raster, Window

FLOOR_FS = 1e-5
"""Band amplitude that counts as silence, a third of one 16-bit step: keeps digital silence finite."""
LOUD_DB = -25.0
"""A step is loud when one of its bands is above that."""
NEAR_BANDS = 3
"""On either side; at the ends, bands are mirrored."""


class AudioMelConfig(BaseModel):
    """Part ``encoder`` of a bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate_hz: float = Field(default=8000.0, gt=0)
    frame: int = Field(default=192, ge=16, le=8192)
    """Samples of one spectrum."""
    hop: int = Field(default=100, ge=1, le=8192)
    """Samples from one time step to the next."""
    bands: int = Field(default=20, ge=1, le=256)
    low_hz: float = Field(default=100.0, ge=0)
    high_hz: float = Field(default=3900.0, gt=0)
    range_db: float = Field(default=-50.0, lt=0)
    normalise_bands: float = Field(default=0.0, ge=0, le=1)
    levels_db: tuple[float, ...] = (-12.0, -22.0, -32.0, -42.0)
    peaks_db: tuple[float, ...] = ()
    step_db: float = Field(default=6.0, ge=0)
    image_steps: int = Field(default=0, ge=0, le=256)

    @property
    def kinds(self) -> int:
        """Features of each band."""
        return len(self.levels_db) + len(self.peaks_db) + (2 if self.step_db else 0)

    def spectra(self, samples: int) -> int:
        """Of a window of ``samples``."""
        return 1 + (samples - self.frame) // self.hop

    def shape(self, samples: int) -> tuple[int, int]:
        """Time steps and cells of the raster of such a window."""
        if self.image_steps:
            return self.image_steps, self.kinds * self.spectra(samples) * self.bands
        return self.spectra(samples), self.kinds * self.bands

    @model_validator(mode="after")
    def _possible(self) -> "AudioMelConfig":
        if not self.low_hz < self.high_hz <= self.rate_hz / 2:
            raise ValueError("low_hz < high_hz <= rate_hz / 2 is expected")
        if not (self.levels_db or self.peaks_db or self.step_db):
            raise ValueError("levels_db, peaks_db and step_db are all empty: nothing would ever spike")
        if 0 in self.peaks_db:
            raise ValueError("peaks_db are above or below 0: at 0 silence would spike")
        if self.peaks_db and self.bands <= NEAR_BANDS:
            raise ValueError(f"peaks_db want more than {NEAR_BANDS} bands")
        return self


class AudioMel:
    """Encoder of one channel of speech. Pure; about half a millisecond for a second of 8 kHz."""

    Config = AudioMelConfig

    def __init__(self, cfg: AudioMelConfig, info: SensorInfo, samples: int) -> None:
        """Raises BadModel when the sensor or the window does not fit."""
        if info.family != "audio" or len(info.channels) != 1:
            raise BadModel(
                f"encoder audio_mel takes one audio channel, the sensor is {info.family} "
                f"with {len(info.channels)} channels"
            )
        if abs(info.rate_hz - cfg.rate_hz) > 1e-3 * cfg.rate_hz:
            raise BadModel(
                f"encoder audio_mel was made for {cfg.rate_hz:g} Hz, the sensor gives {info.rate_hz:g} Hz; "
                "set the sensor's rate_hz or choose another model"
            )
        if samples < cfg.frame:
            raise BadModel(f"encoder audio_mel needs windows of {cfg.frame} samples or more, the bundle has {samples}")
        self.cfg = cfg
        spectra = cfg.spectra(samples)
        self.shape = cfg.shape(samples)
        self._samples = samples
        self._scale = info.scale[0]
        self._taper = np.hanning(cfg.frame + 1)[:-1]
        self._bank = mel_bank(MelBand(cfg.rate_hz, cfg.frame, cfg.bands, cfg.low_hz, cfg.high_hz))
        self._index = np.arange(cfg.frame) + cfg.hop * np.arange(spectra)[:, None]
        self._frames = np.empty((spectra, cfg.frame))

    def reset(self) -> None:
        """Nothing is kept between windows."""

    def encode(self, window: Window, out: Raster) -> None:
        """Write the spikes of ``window`` ((samples, 1) integers) into ``out``, uint8 of ``shape``."""
        if window.data.shape != (self._samples, 1):
            raise BadModel(f"encoder audio_mel got {window.data.shape} samples, expected {(self._samples, 1)}")
        code(self.cfg, self.log_mel(window.data[:, 0]), out)

    def log_mel(self, samples: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """(spectra, bands) in dB re full scale of integer ``samples``, their mean removed."""
        wave = samples.astype(np.float64) * self._scale
        wave -= wave.mean()
        np.take(wave, self._index, out=self._frames, mode="clip")
        self._frames *= self._taper
        spectra = np.fft.rfft(self._frames, axis=1)
        power = (spectra.real**2 + spectra.imag**2) @ self._bank
        return 10 * np.log10(power + FLOOR_FS**2)


def code(cfg: AudioMelConfig, level_db: npt.NDArray[np.floating], out: Raster) -> None:
    """Spikes of log-mel levels (..., spectra, bands), each window of them by itself."""
    relative_db = np.maximum(level_db - level_db.max(axis=(-2, -1), keepdims=True), cfg.range_db)
    if cfg.normalise_bands:
        relative_db = _normalised(relative_db, cfg.normalise_bands)
    parts = [relative_db >= threshold_db for threshold_db in cfg.levels_db]
    if cfg.peaks_db:
        above_db = relative_db - _near(relative_db)
        parts += [above_db >= at_db if at_db > 0 else above_db <= at_db for at_db in cfg.peaks_db]
    if cfg.step_db:
        smooth_db = relative_db + _before(relative_db)
        stair = np.floor(smooth_db * (0.5 / cfg.step_db))
        before = _before(stair)
        parts += [stair > before, stair < before]
    if cfg.image_steps:
        image = np.stack(parts, axis=-3)
        out[:] = image.reshape(*image.shape[:-3], 1, -1)
    else:
        np.concatenate(parts, axis=-1, out=out, casting="unsafe")


def _normalised(relative_db: npt.NDArray[np.floating], part: float) -> npt.NDArray[np.floating]:
    loud = relative_db.max(axis=-1, keepdims=True) > LOUD_DB
    mean_db = part * np.where(loud, relative_db, 0).sum(axis=-2, keepdims=True) / loud.sum(axis=-2, keepdims=True)
    normalised: npt.NDArray[np.floating] = relative_db - mean_db + mean_db.mean(axis=-1, keepdims=True)
    return normalised


def _near(levels: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """The mean of each band and those near it."""
    mirrored = np.concatenate([levels[..., NEAR_BANDS:0:-1], levels, levels[..., -2 : -2 - NEAR_BANDS : -1]], axis=-1)
    mean: npt.NDArray[np.floating] = np.lib.stride_tricks.sliding_window_view(
        mirrored, 2 * NEAR_BANDS + 1, axis=-1
    ).mean(-1)
    return mean


def _before(levels: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Of each step the one before it; nothing is before the first."""
    return np.concatenate([levels[..., :1, :], levels[..., :-1, :]], axis=-2)


@dataclass(frozen=True, slots=True)
class MelBand:
    """What a bank of triangular mel bands is made for."""

    rate_hz: float
    frame: int
    bands: int
    low_hz: float
    high_hz: float


def mel_bank(cfg: MelBand) -> npt.NDArray[np.float64]:
    """(frequencies, bands) weights that turn power spectra into mean power per band, re full scale."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (cfg.low_hz, cfg.high_hz))
    edges_hz = 700 * (10 ** (np.linspace(low, high, cfg.bands + 2) / 2595) - 1)
    at_hz = np.arange(cfg.frame // 2 + 1) * cfg.rate_hz / cfg.frame
    bank = np.zeros((len(at_hz), cfg.bands))
    for i, (left, (middle, right)) in enumerate(zip(edges_hz, pairwise(edges_hz[1:]), strict=False)):
        rise, fall = (at_hz - left) / (middle - left), (right - at_hz) / (right - middle)
        weights = np.clip(np.minimum(rise, fall), 0, None)
        if weights.sum() == 0:  # narrower than the grid of frequencies: take the nearest one
            weights[np.abs(at_hz - middle).argmin()] = 1.0
        bank[:, i] = weights / weights.sum()
    return bank * (2.0 / cfg.frame) ** 2


ENCODER = AudioMel
