"""Motion to spikes, hardly troubled by how the sensor is mounted: a spectrogram of channels of which four only know
where down is.

The mean acceleration of a window is gravity. What is left of acceleration, and rotation, are taken along the sensor's
axes, along gravity, and across it (the length of what is left; it has no sign). A time step is a frame of ``frame``
samples, ``hop`` after the one before, weighted by a Hann window. Features of a step: for each channel (ax ay az gx gy
gz, acceleration along and across, rotation along and across) and each band of FFT bins ``bins[i] <= bin <
bins[i + 1]`` one cell for each of ``levels_db`` that the band's RMS exceeds, a thermometer in dB re 1 g or re 100
deg/s; then for each axis ``gravity_cells`` cells, evenly from -``gravity_limit_g`` to ``gravity_limit_g``, of which
those spike whose value lies within one cell distance of gravity.
"""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.packet import SensorInfo
from models.base import BadModel, Raster, Window

CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")
UNITS = ("g", "g", "g", "deg/s", "deg/s", "deg/s")
DERIVED = 10
"""Channels of the spectrogram."""
DPS_PER_UNIT = 100.0
"""So much rotation is as strong as 1 g."""
SMALLEST_G = 1e-6

Floats = npt.NDArray[np.float64]


class ImuBandsConfig(BaseModel):
    """Part ``encoder`` of a bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rate_hz: float = Field(default=50.0, gt=0)
    frame: int = Field(default=64, ge=4, le=65536)
    hop: int = Field(default=8, ge=1)
    bins: tuple[int, ...] = Field(default=(1, 2, 3, 4, 5, 6, 7, 9, 11, 15, 20, 33), min_length=2)
    levels_db: tuple[float, ...] = Field(default=tuple(range(-58, -7, 5)), min_length=1)
    gravity_cells: int = Field(default=17, ge=2, le=255)
    gravity_limit_g: float = Field(default=1.05, gt=0)

    @model_validator(mode="after")
    def _bins_rise(self) -> "ImuBandsConfig":
        if self.bins[0] < 0 or self.bins[-1] > self.frame // 2 + 1:
            raise ValueError(f"bins are {self.bins[0]} to {self.bins[-1]}, a frame has 0 to {self.frame // 2 + 1}")
        if any(low >= high for low, high in zip(self.bins, self.bins[1:], strict=False)):
            raise ValueError("bins must rise")
        return self


class ImuBands:
    """Encoder of a six-axis inertial sensor. Pure; about a millisecond per window."""

    Config = ImuBandsConfig

    def __init__(self, cfg: ImuBandsConfig, info: SensorInfo, samples: int) -> None:
        """Raises BadModel when the sensor does not fit."""
        if info.family != "imu" or info.channels[:6] != CHANNELS or info.units[:6] != UNITS:
            raise BadModel(
                f"encoder imu_bands takes an imu whose first channels are {', '.join(CHANNELS)} in g and deg/s, "
                f"the sensor is {info.family} with {', '.join(info.channels) or 'no channels'}"
            )
        if abs(info.rate_hz - cfg.rate_hz) > 0.02 * cfg.rate_hz:
            raise BadModel(
                f"encoder imu_bands was made for {cfg.rate_hz:g} Hz, the sensor gives {info.rate_hz:g} Hz; "
                "set the sensor's rate_hz or choose another model"
            )
        if samples < cfg.frame:
            raise BadModel(f"encoder imu_bands wants windows of {cfg.frame} samples or more, got {samples}")
        self.cfg = cfg
        bands = DERIVED * (len(cfg.bins) - 1) * len(cfg.levels_db)
        self.shape = ((samples - cfg.frame) // cfg.hop + 1, bands + 3 * cfg.gravity_cells)
        self._data_shape = (samples, len(info.channels))
        self._scale = np.asarray(info.scale[:6])
        hann = np.hanning(cfg.frame + 2)[1:-1]
        self._weights = hann / np.sqrt((hann**2).mean())
        self._power_at = 10 ** (np.asarray(cfg.levels_db) / 10)
        self._preferred_g = np.linspace(-cfg.gravity_limit_g, cfg.gravity_limit_g, cfg.gravity_cells)

    def reset(self) -> None:
        """Nothing is kept between windows."""

    def encode(self, window: Window, out: Raster) -> None:
        """Write the spikes of ``window`` ((samples, channels) integers) into ``out``, uint8 of ``shape``."""
        if window.data.shape != self._data_shape:
            raise BadModel(f"encoder imu_bands got {window.data.shape} samples, expected {self._data_shape}")
        cfg = self.cfg
        channels, gravity_g = _derive(window.data[:, :6] * self._scale)
        frames = np.lib.stride_tricks.sliding_window_view(channels, cfg.frame, axis=0)[:: cfg.hop]
        spectrum = np.fft.rfft(frames * self._weights, axis=2)
        power = (spectrum.real**2 + spectrum.imag**2) * (2 / cfg.frame**2)
        bands = np.add.reduceat(power[:, :, : cfg.bins[-1]], cfg.bins[:-1], axis=2)
        above = bands[:, :, :, None] > self._power_at
        near = np.abs(gravity_g.clip(-cfg.gravity_limit_g, cfg.gravity_limit_g)[:, None] - self._preferred_g)
        gravity = near < self._preferred_g[1] - self._preferred_g[0]
        split = self.shape[1] - gravity.size
        out[:, :split] = above.reshape(self.shape[0], split)
        out[:, split:] = gravity.ravel()


def _derive(physical: Floats) -> tuple[Floats, Floats]:
    """(samples, 10) channels in units of 1 g and 100 deg/s, and gravity (3,) in g."""
    acceleration_g, rotation = physical[:, :3], physical[:, 3:] / DPS_PER_UNIT
    gravity_g: Floats = acceleration_g.mean(axis=0)
    down = gravity_g / max(float(np.linalg.norm(gravity_g)), SMALLEST_G)
    parts = []
    for vector in (acceleration_g - gravity_g, rotation):
        along = vector @ down
        parts.append((vector, along[:, None], np.linalg.norm(vector - along[:, None] * down, axis=1)[:, None]))
    (moved, *moved_parts), (turned, *turned_parts) = parts
    return np.concatenate([moved, turned, *moved_parts, *turned_parts], axis=1), gravity_g


ENCODER = ImuBands
