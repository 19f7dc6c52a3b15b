"""Sounds to spikes by their texture: statistics of the spectrum over a window, each as a population of cells.

What a sound of the surroundings is (rain, a motor, a bark) is told by how its bands are filled and how they change, not
by when: statistics after McDermott and Simoncelli (2011). In decibels relative to the mean power of the window, so that
loudness does not matter. For each mel band of short frames: ``QUANTILES`` of its level, its standard deviation, mean
change from frame to frame and skewness. For each of ``MODULATIONS_HZ``: the power with which the levels of groups of
bands, and of all of them, go up and down. For groups of narrow bands of long frames: mean difference between neighbours
(tones stand out) and mean change from frame to frame. Features in this order, for each statistic a cell for each of its
``LEVELS``, which spikes while the statistic is at or above it. All are held for ``hold`` time steps.
"""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.packet import SensorInfo
from models.base import BadModel, Raster, Window
from models.encoders.audio_mel import MelBand, mel_bank

Floats = npt.NDArray[np.float64]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MODULATIONS_HZ = ((1.5, 3.0), (3.0, 6.0), (6.0, 10.0), (10.0, 16.0), (16.0, 25.0), (25.0, 50.0))
BANDS = 40
GROUPS = 8
NARROW_BANDS = 128
NARROW_GROUPS = 16
BLOCK = 8
LONG = 4
"""A long frame is so many short ones long, and overlaps the next by half."""
FLOOR_FS = 1e-5
"""Band amplitude that counts as silence, a third of one 16-bit step."""
RANGE_DB = 80.0
"""What is further below the loudest frame and band of the window counts as that far."""
LEVELS = {
    "level": (-45.0, -37.0, -30.0, -24.0, -19.0, -14.0, -10.0, -5.0, 0.0, 6.0),
    "deviation": (1.6, 2.3, 3.0, 3.7, 4.8, 7.0, 10.0, 14.0),
    "change": (0.8, 1.4, 1.8, 2.1, 2.4, 2.8, 3.2, 3.8),
    "skewness": (-0.5, -0.25, -0.1, 0.0, 0.15, 0.45, 0.9, 1.5),
    "modulation": (-8.0, -3.0, 0.0, 2.5, 5.0, 8.0, 12.0, 18.0),
    "tones": (0.6, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 6.0),
    "flux": (1.3, 2.0, 2.6, 3.2, 4.0, 5.2, 7.0, 9.5),
}


class AudioTextureConfig(BaseModel):
    """Part ``encoder`` of a bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate_hz: float = Field(default=16_000.0, gt=0)
    frame: int = Field(default=512, ge=64, le=8192)
    """Samples of one short frame."""
    hop: int = Field(default=160, ge=1, le=8192)
    """Samples from one short frame to the next; more than 100 frames a second see the fastest modulations."""
    low_hz: float = Field(default=50.0, ge=0)
    high_hz: float = Field(default=7900.0, gt=0)
    hold: int = Field(default=4, ge=1, le=256)

    @model_validator(mode="after")
    def _possible(self) -> "AudioTextureConfig":
        if not self.low_hz < self.high_hz <= self.rate_hz / 2:
            raise ValueError("low_hz < high_hz <= rate_hz / 2 is expected")
        return self


class AudioTexture:
    """Encoder of one channel of sound. Pure; a few milliseconds for a second of 16 kHz."""

    Config = AudioTextureConfig

    def __init__(self, cfg: AudioTextureConfig, info: SensorInfo, samples: int) -> None:
        """Raises BadModel when the sensor or the window does not fit."""
        if info.family != "audio" or len(info.channels) != 1:
            raise BadModel(
                f"encoder audio_texture takes one audio channel, the sensor is {info.family} "
                f"with {len(info.channels)} channels"
            )
        if abs(info.rate_hz - cfg.rate_hz) > 1e-3 * cfg.rate_hz:
            raise BadModel(
                f"encoder audio_texture was made for {cfg.rate_hz:g} Hz, the sensor gives {info.rate_hz:g} Hz; "
                "set the sensor's rate_hz or choose another model"
            )
        long = cfg.frame * LONG
        least = max(long + long // 2, cfg.frame + cfg.hop)
        if samples < least:
            raise BadModel(f"encoder audio_texture needs windows of {least} samples or more, the bundle has {samples}")
        self.cfg = cfg
        self._samples = samples
        self._scale = info.scale[0]
        self._short = _Spectra(samples, cfg.hop, MelBand(cfg.rate_hz, cfg.frame, BANDS, cfg.low_hz, cfg.high_hz))
        self._long = _Spectra(samples, long // 2, MelBand(cfg.rate_hz, long, NARROW_BANDS, cfg.low_hz, cfg.high_hz))
        self._taper = np.hanning(self._short.frames + 2)[1:-1]
        at_hz = np.fft.rfftfreq(self._short.frames, cfg.hop / cfg.rate_hz)
        self._ranges = np.array([(at_hz >= low) & (at_hz < high) for low, high in MODULATIONS_HZ], np.float64)
        self.shape = (cfg.hold, sum(part.size for part in self._cells(np.zeros(samples))))

    def reset(self) -> None:
        """Nothing is kept between windows."""

    def encode(self, window: Window, out: Raster) -> None:
        """Write the spikes of ``window`` ((samples, 1) integers) into ``out``, uint8 of ``shape``."""
        if window.data.shape != (self._samples, 1):
            raise BadModel(f"encoder audio_texture got {window.data.shape} samples, expected {(self._samples, 1)}")
        wave = window.data[:, 0].astype(np.float64) * self._scale
        out[:] = np.concatenate(self._cells(wave - wave.mean()))

    def _cells(self, wave: Floats) -> list[npt.NDArray[np.bool_]]:
        return [(statistic.reshape(-1, 1) >= LEVELS[name]).ravel() for name, statistic in self.statistics(wave).items()]

    def statistics(self, wave: Floats) -> dict[str, Floats]:
        """By the names of ``LEVELS``, of a window in parts of full scale."""
        power = self._short.power(wave)
        power = np.maximum(power, power.max() * 10 ** (-RANGE_DB / 10))
        power /= power.mean()
        level_db = _decibels(power)
        mean_db, deviation_db = level_db.mean(axis=0), level_db.std(axis=0)
        grouped = power.reshape(len(power), GROUPS, -1).mean(axis=2)
        narrow_db = _decibels(self._long.power(wave))
        return {
            "level": np.quantile(level_db, QUANTILES, axis=0),
            "deviation": deviation_db,
            "change": np.abs(np.diff(level_db, axis=0)).mean(axis=0),
            "skewness": ((level_db - mean_db) ** 3).mean(axis=0) / (deviation_db + 1) ** 3,
            "modulation": self._modulation(_decibels(np.column_stack([grouped, grouped.mean(axis=1)]))),
            "tones": _by_group(np.abs(np.diff(narrow_db, axis=1, append=narrow_db[:, -1:]))),
            "flux": _by_group(np.abs(np.diff(narrow_db, axis=0))),
        }

    def _modulation(self, level_db: Floats) -> Floats:
        """(ranges, groups) power in dB: a swing of 1 dB amplitude has 0."""
        spectra = np.fft.rfft((level_db - level_db.mean(axis=0)) * self._taper[:, None], axis=0)
        amplitude_db = np.abs(spectra) * (2 / self._taper.sum())
        found: Floats = 10 * np.log10(self._ranges @ amplitude_db**2 + 1e-3)
        return found


class _Spectra:
    """Mel power spectra of overlapping frames.

    Most weights of a bank are zero. Products of its blocks are less work than that of all of it, and too small for the
    linear algebra library to wake its threads, which costs more than the product on a busy machine.
    """

    def __init__(self, samples: int, hop: int, band: MelBand) -> None:
        self.frames = 1 + (samples - band.frame) // hop
        self._index = np.arange(band.frame) + hop * np.arange(self.frames)[:, None]
        self._taper = np.hanning(band.frame + 1)[:-1]
        bank = mel_bank(band)
        self._blocks = []
        for first in range(0, band.bands, BLOCK):
            block = bank[:, first : first + BLOCK]
            used = np.flatnonzero(block.any(axis=1))
            span = slice(int(used[0]), int(used[-1]) + 1)
            self._blocks.append((span, np.ascontiguousarray(block[span])))

    def power(self, wave: Floats) -> Floats:
        """(frames, bands), never below silence."""
        spectra = np.fft.rfft(wave[self._index] * self._taper, axis=1)
        power = spectra.real**2 + spectra.imag**2
        return np.concatenate([power[:, span] @ weights for span, weights in self._blocks], axis=1) + FLOOR_FS**2


def _decibels(power: Floats) -> Floats:
    found: Floats = 10 * np.log10(power)
    return found


def _by_group(difference_db: Floats) -> Floats:
    found: Floats = difference_db.mean(axis=0).reshape(NARROW_GROUPS, -1).mean(axis=1)
    return found


ENCODER = AudioTexture
