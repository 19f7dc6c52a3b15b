"""Distances to spikes: a population of cells for each ranger, and for the shortest distance of each sector.

A cell spikes while the distance lies around its preferred one. Features in order: for each channel, then for each of
``sectors`` (whose distance is the least of its channels), one cell for each of ``centres_m``. A ranger without an echo
(0, as drivers of rangers have it), and one further than ``max_m``, counts as at ``max_m``. Every sample is held for
``hold`` time steps. Population coding with overlapping receptive fields as in Bohte, Kok and La Poutre (2002).
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.packet import SensorInfo
from models.base import BadModel, Raster, Window

MM_PER_M = 1000
MOST_CELLS = 1 << 16
"""Of all channels and sectors of a step together."""
MOST_STEPS = 1 << 14


class RangesPopulationConfig(BaseModel):
    """Part ``encoder`` of a bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    centres_m: tuple[float, ...] = Field(
        default=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 3.5),
        min_length=2,
        max_length=1024,
    )
    """Preferred distances, rising. The first and the last cell also take everything nearer and further."""
    reach: int = Field(default=1, ge=1, le=64)
    """A cell spikes from the centre ``reach`` cells before its own (inclusive) to that ``reach`` cells behind it."""
    max_m: float = Field(default=4.0, gt=0)
    sectors: tuple[tuple[int, ...], ...] = ()
    """Channels of each sector, counted from 0."""
    hold: int = Field(default=1, ge=1, le=256)

    @model_validator(mode="after")
    def _possible(self) -> "RangesPopulationConfig":
        if not (self.centres_m[0] > 0 and all(near < far for near, far in pairwise(self.centres_m))):
            raise ValueError("centres_m must rise from above 0")
        if not all(sector and min(sector) >= 0 for sector in self.sectors):
            raise ValueError("each of sectors names one channel or more, counted from 0")
        return self


class RangesPopulation:
    """Encoder of any number of rangers at any rate. Pure; a few microseconds per sample of 24 rangers."""

    Config = RangesPopulationConfig

    def __init__(self, cfg: RangesPopulationConfig, info: SensorInfo, samples: int) -> None:
        """Raises BadModel when the sensor does not fit."""
        channels = len(info.channels)
        if info.family != "ultrasonic" or set(info.units) != {"mm"}:
            raise BadModel(
                f"encoder ranges_population takes distances in mm of an ultrasonic sensor, the sensor is {info.family} "
                f"with {channels} channels in {', '.join(sorted(set(info.units))) or 'no unit'}"
            )
        furthest = max((max(sector) for sector in cfg.sectors), default=0)
        if furthest >= channels:
            raise BadModel(
                f"encoder ranges_population: a sector has channel {furthest}, the sensor's {channels} channels end at "
                f"{channels - 1}"
            )
        cells = (channels + len(cfg.sectors)) * len(cfg.centres_m)
        if cells > MOST_CELLS or samples * cfg.hold > MOST_STEPS:
            raise BadModel(
                f"encoder ranges_population: {cells} cells and {samples * cfg.hold} steps, expected {MOST_CELLS} and "
                f"{MOST_STEPS} at most"
            )
        self.cfg = cfg
        self.shape = (samples * cfg.hold, cells)
        self._data_shape = (samples, channels)
        self._scale_m = np.asarray(info.scale) / MM_PER_M
        self._centres_m = np.asarray(cfg.centres_m)
        self._patterns = _patterns(len(cfg.centres_m), cfg.reach)
        members = [channel for sector in cfg.sectors for channel in sector]
        self._members = np.asarray(members, np.intp)
        self._sector_starts = np.cumsum([0, *(len(sector) for sector in cfg.sectors[:-1])])

    def reset(self) -> None:
        """Nothing is kept between windows."""

    def encode(self, window: Window, out: Raster) -> None:
        """Write the spikes of ``window`` ((samples, channels) integers) into ``out``, uint8 of ``shape``."""
        if window.data.shape != self._data_shape:
            raise BadModel(f"encoder ranges_population got {window.data.shape} samples, expected {self._data_shape}")
        distance_m = window.data.astype(np.float64) * self._scale_m
        distance_m = np.where(distance_m <= 0, self.cfg.max_m, np.minimum(distance_m, self.cfg.max_m))
        if self.cfg.sectors:
            least_m = np.minimum.reduceat(distance_m[:, self._members], self._sector_starts, axis=1)
            distance_m = np.concatenate([distance_m, least_m], axis=1)
        passed = self._centres_m.searchsorted(distance_m, side="right")
        cells = self._patterns[passed].reshape(len(passed), 1, -1)
        out.reshape(len(passed), self.cfg.hold, -1)[:] = cells


def _patterns(cells: int, reach: int) -> npt.NDArray[np.uint8]:
    """(cells + 1, cells): which cells spike when so many centres are passed."""
    passed, cell = np.arange(cells + 1)[:, None], np.arange(cells)
    spikes = (passed > cell - reach) & (passed <= cell + reach)
    spikes[0, :reach] = True
    spikes[cells, cells - reach :] = True
    return spikes.astype(np.uint8)


ENCODER = RangesPopulation
