"""Sound to spikes as it comes, whatever the microphone's gain: log-mel bands against what was just loud and just quiet.

Levels are whole hundredths of a decibel, so that packets of any size give the same spikes. Two running references,
both without looking ahead:

- loudness: the loudest band; followed up at once, down by ``fall_db_s``; never nearer than ``span_db`` to the quietest
  level of late, and never below ``quiet_db``, so that a silent room stays silent;
- the floor of each band: followed down at once, up by ``rise_db_s`` (minimum statistics, Martin 2001, in its simplest
  form), so that steady noise is taken away band by band.

Features in order, each for every band: ``levels_db`` (within so much of the loudness), ``contrasts_db`` (so much above
its floor), on, then off (the level, smoothed over two steps, rose or fell through a multiple of ``step_db``; 0 = no
such features).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from drivers.packet import SensorInfo
from models.base import Raster
from models.encoders.audio_steps import AudioSteps, AudioStepsConfig, AudioWindow

_PER_DB = 100

Levels = npt.NDArray[np.int64]


class AudioRelativeConfig(AudioStepsConfig):
    """Part ``encoder`` of a bundle's manifest."""

    fall_db_s: float = Field(default=8.0, ge=0, le=1e6)
    rise_db_s: float = Field(default=6.0, ge=0, le=1e6)
    span_db: float = Field(default=18.0, ge=0, le=200)
    quiet_db: float = Field(default=-70.0, ge=-200, lt=0)
    range_db: float = Field(default=-45.0, ge=-200, lt=0)
    """Changes below this distance from the loudness are none."""
    levels_db: tuple[float, ...] = (-8.0, -18.0, -28.0, -38.0)
    contrasts_db: tuple[float, ...] = ()
    step_db: float = Field(default=6.0, ge=0, le=200)

    @model_validator(mode="after")
    def _possible_cells(self) -> "AudioRelativeConfig":
        if not (self.levels_db or self.contrasts_db or self.step_db):
            raise ValueError("levels_db, contrasts_db and step_db are all empty: nothing would ever spike")
        return self

    @property
    def features(self) -> int:
        return self.bands * (len(self.levels_db) + len(self.contrasts_db) + (2 if self.step_db else 0))


@dataclass(slots=True)
class _Past:
    """What one step needs of those before it, in hundredths of a decibel."""

    shown: Levels
    """(bands,) the last step's level as the changes saw it, not below the range."""
    stair: Levels
    """(bands,) the last step's multiple of ``step_db``."""
    loud: int
    quiet: int
    floor: Levels
    """(bands,)."""


class AudioRelativeStream(AudioSteps):
    """One channel of sound, in packets of any size; all steps of a packet at once."""

    Config = AudioRelativeConfig
    kind = "audio_relative"

    def __init__(self, cfg: AudioRelativeConfig, info: SensorInfo) -> None:
        """Raises BadModel when the sensor does not fit."""
        self.cfg = cfg
        super().__init__(cfg, info)

    def forget(self) -> None:
        self._past: _Past | None = None

    def code(self, level_db: npt.NDArray[np.float64]) -> Raster:
        cfg = self.cfg
        level: Levels = np.rint(level_db * _PER_DB).astype(np.int64)
        per_step = _PER_DB * cfg.hop / cfg.rate_hz
        fall, rise = round(cfg.fall_db_s * per_step), round(cfg.rise_db_s * per_step)
        loudest = level.max(axis=1)
        past = self._past
        loud = -_lowest(-loudest, None if past is None else -past.loud, fall)
        quiet = _lowest(loudest, None if past is None else past.quiet, rise)
        floor = _lowest(level, None if past is None else past.floor, rise)
        reference = np.maximum(np.maximum(loud, quiet + _whole(cfg.span_db)), _whole(cfg.quiet_db))[:, None]
        parts = [level >= reference + _whole(at_db) for at_db in cfg.levels_db]
        parts += [level >= floor + _whole(at_db) for at_db in cfg.contrasts_db]
        shown = np.maximum(level, reference + _whole(cfg.range_db))
        stair = shown
        if cfg.step_db:
            before = np.concatenate([(shown[0] if past is None else past.shown)[None], shown[:-1]])
            stair = (shown + before) // (2 * _whole(cfg.step_db))
            last = np.concatenate([(stair[0] if past is None else past.stair)[None], stair[:-1]])
            parts += [stair > last, stair < last]
        self._past = _Past(shown[-1], stair[-1], int(loud[-1]), int(quiet[-1]), floor[-1])
        return np.concatenate(parts, axis=1).astype(np.uint8)


def _whole(level_db: float) -> int:
    return round(level_db * _PER_DB)


def _lowest(level: Levels, before: "Levels | int | None", rise: int) -> Levels:
    """Follow ``level`` (steps, ...) down at once and up by ``rise`` a step, from ``before`` on."""
    ramp = rise * np.arange(1, len(level) + 1).reshape(-1, *[1] * (level.ndim - 1))
    lowest: Levels = np.minimum.accumulate(level - ramp)
    followed: Levels = (lowest if before is None else np.minimum(lowest, before)) + ramp
    return followed


class AudioRelative(AudioWindow):
    """The same for a window."""

    Config = AudioRelativeConfig
    stream = AudioRelativeStream


ENCODER = AudioRelative
STREAM = AudioRelativeStream
