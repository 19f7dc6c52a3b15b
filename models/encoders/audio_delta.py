"""Sound to spikes as it comes: log-mel bands in steps of ``hop`` samples, each an adaptive send-on-delta channel.

Per band an "on" and an "off" spike: the level rose or fell by ``step_db`` or more since its last spike, which moves
its reference by one step (asynchronous delta modulation, Corradi and Indiveri 2015). Then for each of ``levels_db`` one
cell per band that spikes while the level is at or above it. Levels are in dB of full scale.
"""

import numpy as np
import numpy.typing as npt
from pydantic import Field

from drivers.packet import SensorInfo
from models.base import Raster
from models.encoders.audio_steps import AudioSteps, AudioStepsConfig, AudioWindow


class AudioDeltaConfig(AudioStepsConfig):
    """Part ``encoder`` of a bundle's manifest."""

    frame: int = Field(default=400, ge=16, le=8192)
    """Samples of one spectrum."""
    hop: int = Field(default=160, ge=1, le=8192)
    """Samples from one time step to the next."""
    bands: int = Field(default=24, ge=1, le=256)
    floor_db: float = Field(default=-80.0, lt=0)
    """Quieter is as quiet as this."""
    step_db: float = Field(default=3.0, gt=0)
    levels_db: tuple[float, ...] = ()

    @property
    def features(self) -> int:
        return self.bands * (2 + len(self.levels_db))


class AudioDeltaStream(AudioSteps):
    """One channel of sound, in packets of any size. About 20 us for each time step."""

    Config = AudioDeltaConfig
    kind = "audio_delta"

    def __init__(self, cfg: AudioDeltaConfig, info: SensorInfo) -> None:
        """Raises BadModel when the sensor does not fit."""
        self.cfg = cfg
        super().__init__(cfg, info)

    def forget(self) -> None:
        self._reference_db: npt.NDArray[np.float64] | None = None

    def code(self, level_db: npt.NDArray[np.float64]) -> Raster:
        cfg = self.cfg
        level_db = np.maximum(level_db, cfg.floor_db)
        raster = np.zeros((len(level_db), self.features), np.uint8)
        if self._reference_db is None:
            self._reference_db = level_db[0].copy()
        for step, now_db in enumerate(level_db):
            rise = now_db - self._reference_db
            on, off = rise >= cfg.step_db, rise <= -cfg.step_db
            self._reference_db += cfg.step_db * on
            self._reference_db -= cfg.step_db * off
            cells = [on, off, *(now_db >= threshold_db for threshold_db in cfg.levels_db)]
            np.concatenate(cells, out=raster[step], casting="unsafe")
        return raster


class AudioDelta(AudioWindow):
    """The same for a window."""

    Config = AudioDeltaConfig
    stream = AudioDeltaStream


ENCODER = AudioDelta
STREAM = AudioDeltaStream
