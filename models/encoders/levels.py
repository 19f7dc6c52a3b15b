"""Slow channels to spikes: a population code of each channel's level, and crossings that say how it moves.

A channel's range ``low`` .. ``high`` is robust: it comes from the training data's outer percentiles. Features of a
step, channel by channel: ``cells`` of which those spike whose preferred value, evenly over the range, lies within
``width`` cell distances of the level; then for each of ``steps`` (parts of the range) one cell that spikes while the
channel rises through a multiple of it, and one while it falls (level crossings, Miskowicz 2006). A level further
outside the range than ``margin`` of it is no level: a dead or saturated sensor is silent, and does not look like one
that has something to say.
"""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.packet import SensorInfo
from models.base import BadModel, Raster, Window

EDGE = 1e-9
"""Of the range: a level that rounding puts just inside a cell's reach is not in it."""


class LevelsConfig(BaseModel):
    """Part ``encoder`` of a bundle's manifest. ``low`` and ``high`` are in the channels' units."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rate_hz: float = Field(default=10.0, gt=0)
    channels: tuple[str, ...] = Field(min_length=1, max_length=64)
    """Those that are encoded, by name; the sensor may have others, in any order."""
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    margin: float = Field(default=0.25, ge=0, le=10)
    cells: int = Field(default=16, ge=2, le=255)
    width: float = Field(default=1.0, gt=0, le=255)
    steps: tuple[float, ...] = (0.01, 0.03, 0.1)
    pool: int = Field(default=1, ge=1, le=1000)
    """Samples of a time step: its level is that of the last, its crossings are those of all."""

    @model_validator(mode="after")
    def _agree(self) -> "LevelsConfig":
        for key in ("units", "low", "high"):
            if len(getattr(self, key)) != len(self.channels):
                raise ValueError(f"{key} has {len(getattr(self, key))} entries, expected {len(self.channels)}")
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("every low must be below its high")
        if any(step <= 0 for step in self.steps):
            raise ValueError("steps must be above 0")
        return self


class Levels:
    """Encoder of slow channels of one sensor, of any kind. Pure; far under a millisecond per window."""

    Config = LevelsConfig

    def __init__(self, cfg: LevelsConfig, info: SensorInfo, samples: int) -> None:
        """Raises BadModel when the sensor lacks a channel, or has it in another unit or at another rate."""
        of_name = dict(zip(info.channels, info.units, strict=True))
        for name, unit in zip(cfg.channels, cfg.units, strict=True):
            if of_name.get(name) != unit:
                raise BadModel(
                    f"encoder levels wants channel {name} in {unit}, the sensor ({info.family}) has "
                    f"{', '.join(f'{n} in {u}' for n, u in of_name.items()) or 'no channels'}"
                )
        if abs(info.rate_hz - cfg.rate_hz) > 0.02 * cfg.rate_hz:
            raise BadModel(
                f"encoder levels was made for {cfg.rate_hz:g} Hz, the sensor gives {info.rate_hz:g} Hz; "
                "set the sensor's rate_hz or choose another model"
            )
        if samples < cfg.pool or samples % cfg.pool:
            raise BadModel(
                f"encoder levels takes {cfg.pool} samples a step, a window of {samples} is no multiple of it"
            )
        self.cfg = cfg
        self.shape = (samples // cfg.pool, len(cfg.channels) * (cfg.cells + 2 * len(cfg.steps)))
        self._columns = [info.channels.index(name) for name in cfg.channels]
        self._data_shape = (samples, len(info.channels))
        span = np.asarray(cfg.high) - np.asarray(cfg.low)
        self._per_step = np.asarray(info.scale)[self._columns] / span
        self._offset = np.asarray(cfg.low) / span
        self._preferred = np.linspace(0, 1, cfg.cells)
        self._reach = cfg.width / (cfg.cells - 1) - EDGE

    def reset(self) -> None:
        """Nothing is kept between windows."""

    def encode(self, window: Window, out: Raster) -> None:
        """Write the spikes of ``window`` ((samples, channels) integers) into ``out``, uint8 of ``shape``."""
        if window.data.shape != self._data_shape:
            raise BadModel(f"encoder levels got {window.data.shape} samples, expected {self._data_shape}")
        cfg = self.cfg
        level = window.data[:, self._columns] * self._per_step - self._offset
        valid = np.abs(level - 0.5) <= 0.5 + cfg.margin
        last = slice(cfg.pool - 1, None, cfg.pool)
        near = np.abs(level[last].clip(0, 1)[:, :, None] - self._preferred) < self._reach
        parts = [near & valid[last, :, None]]
        for step in cfg.steps:
            parts.extend(part[:, :, None] for part in _crossings(level, valid, step, cfg.pool))
        cells = np.concatenate(parts, axis=2)
        out[:] = cells.reshape(self.shape)


def _crossings(
    level: npt.NDArray[np.float64], valid: npt.NDArray[np.bool_], step: float, pool: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(time steps, channels): it rose, it fell, between two samples that are both valid."""
    stair = np.floor(level.clip(-100, 100) / step + 0.5)
    change = np.diff(stair, axis=0, prepend=stair[:1])
    change[1:][~(valid[1:] & valid[:-1])] = 0
    shape = (len(level) // pool, pool, level.shape[1])
    rose: npt.NDArray[np.bool_] = np.any(change.reshape(shape) > 0, axis=1)
    fell: npt.NDArray[np.bool_] = np.any(change.reshape(shape) < 0, axis=1)
    return rose, fell


ENCODER = Levels
