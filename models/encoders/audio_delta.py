"""Sound to spikes as it comes: log-mel bands in steps of ``hop`` samples, each an adaptive send-on-delta channel.

Per band an "on" and an "off" spike: the level rose or fell by ``step_db`` or more since its last spike, which moves
its reference by one step (asynchronous delta modulation, Corradi and Indiveri 2015). Then for each of ``levels_db`` one
cell per band that spikes while the level is at or above it. Levels are in dB of full scale and nothing looks ahead, so
a window and a stream from the same first sample give the same spikes. The first difference of the samples takes the
offset away.
"""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.packet import Packet, SensorInfo
from models.base import BadModel, Raster, Steps, Window
from models.encoders.audio_mel import FLOOR_FS, MelBand, mel_bank
from models.gap import Gap

MAX_FILL_S = 0.25
"""A longer gap starts the stream anew; a shorter one is filled by holding the last value."""


class AudioDeltaConfig(BaseModel):
    """Part ``encoder`` of a bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate_hz: float = Field(default=16000.0, gt=0)
    frame: int = Field(default=400, ge=16, le=8192)
    """Samples of one spectrum."""
    hop: int = Field(default=160, ge=1, le=8192)
    """Samples from one time step to the next."""
    bands: int = Field(default=24, ge=1, le=256)
    low_hz: float = Field(default=100.0, ge=0)
    high_hz: float = Field(default=7500.0, gt=0)
    floor_db: float = Field(default=-80.0, lt=0)
    """Quieter is as quiet as this."""
    step_db: float = Field(default=3.0, gt=0)
    levels_db: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _possible(self) -> "AudioDeltaConfig":
        if not self.low_hz < self.high_hz <= self.rate_hz / 2:
            raise ValueError("low_hz < high_hz <= rate_hz / 2 is expected")
        if self.hop > self.frame:
            raise ValueError("hop <= frame is expected: samples between frames would never be heard")
        return self


class AudioDeltaStream:
    """One channel of sound, in packets of any size. About 30 us for each time step."""

    Config = AudioDeltaConfig

    def __init__(self, cfg: AudioDeltaConfig, info: SensorInfo) -> None:
        """Raises BadModel when the sensor does not fit."""
        if info.family != "audio" or len(info.channels) != 1:
            raise BadModel(
                f"encoder audio_delta takes one audio channel, the sensor is {info.family} "
                f"with {len(info.channels)} channels"
            )
        if abs(info.rate_hz - cfg.rate_hz) > 1e-3 * cfg.rate_hz:
            raise BadModel(
                f"encoder audio_delta was made for {cfg.rate_hz:g} Hz, the sensor gives {info.rate_hz:g} Hz; "
                "set the sensor's rate_hz or choose another model"
            )
        self.cfg = cfg
        self.features = cfg.bands * (2 + len(cfg.levels_db))
        self.step_ns = round(cfg.hop / cfg.rate_hz * 1e9)
        self._scale = info.scale[0]
        self._taper = np.hanning(cfg.frame + 1)[:-1]
        self._bank = mel_bank(MelBand(cfg.rate_hz, cfg.frame, cfg.bands, cfg.low_hz, cfg.high_hz))
        self._gap = Gap(max_missing=int(MAX_FILL_S * cfg.rate_hz))
        self._start_over()

    def _start_over(self) -> None:
        self._held: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        """Samples that later steps need, the oldest first; the very first has no difference before it."""
        self._reference_db: npt.NDArray[np.float64] | None = None

    def push(self, packet: Packet) -> Steps:
        """The time steps that ``packet`` completes."""
        samples = packet.data[:, 0].astype(np.int64)
        missing = self._gap.before(packet)
        fresh, given_up = missing is None, 0
        if missing is None:
            given_up = self._unseen()
            self._start_over()
            missing = 0
        if missing:
            samples = np.concatenate([np.repeat(self._held[-1:], missing), samples])
        raster = self.steps(samples)
        # Before the first step is whole its beginning lies ahead, so that it is the same for packets of any size.
        behind = len(self._held) - (self.cfg.frame + 1 - self.cfg.hop)
        end_ns = packet.t0_ns + packet.dt_ns * (len(packet.data) - behind)
        return Steps(raster, end_ns - self.step_ns * len(raster), fresh, missing, given_up)

    def _unseen(self) -> int:
        """Samples that are in no step yet."""
        seen = 0 if self._reference_db is None else self.cfg.frame + 1 - self.cfg.hop
        return len(self._held) - seen

    def steps(self, samples: npt.NDArray[np.int64]) -> Raster:
        """The steps that ``samples`` complete, when they follow those of the last call without a gap."""
        cfg = self.cfg
        held = np.concatenate([self._held, samples])
        count = max(0, (len(held) - 1 - cfg.frame) // cfg.hop + 1)
        raster = np.zeros((count, self.features), np.uint8)
        if count:
            self._code(np.diff(held), raster)
        self._held = held[count * cfg.hop :]
        return raster

    def _code(self, change: npt.NDArray[np.int64], raster: Raster) -> None:
        cfg = self.cfg
        for step in range(len(raster)):
            frame = change[step * cfg.hop : step * cfg.hop + cfg.frame] * (self._scale * self._taper)
            spectrum = np.fft.rfft(frame)
            # A product of one row at a time, since BLAS sums several rows in another order.
            level_db = 10 * np.log10((spectrum.real**2 + spectrum.imag**2) @ self._bank + FLOOR_FS**2)
            level_db = np.maximum(level_db, cfg.floor_db)
            if self._reference_db is None:
                self._reference_db = level_db.copy()
            rise = level_db - self._reference_db
            on, off = rise >= cfg.step_db, rise <= -cfg.step_db
            self._reference_db += cfg.step_db * on
            self._reference_db -= cfg.step_db * off
            cells = [on, off, *(level_db >= threshold_db for threshold_db in cfg.levels_db)]
            np.concatenate(cells, out=raster[step], casting="unsafe")


class AudioDelta:
    """The same for a window: a stream that begins and ends with it."""

    Config = AudioDeltaConfig

    def __init__(self, cfg: AudioDeltaConfig, info: SensorInfo, samples: int) -> None:
        """Raises BadModel when the sensor or the window does not fit."""
        self._info = info
        self._cfg = cfg
        steps = (samples - 1 - cfg.frame) // cfg.hop + 1
        if steps < 1:
            raise BadModel(f"encoder audio_delta needs windows of more than {cfg.frame} samples, not {samples}")
        self.shape = (steps, AudioDeltaStream(cfg, info).features)

    def encode(self, window: Window, out: Raster) -> None:
        """Write the spikes of ``window`` ((samples, 1) integers) into ``out``, uint8 of ``shape``."""
        if window.data.ndim != 2 or window.data.shape[1] != 1:
            raise BadModel(f"encoder audio_delta got {window.data.shape} samples, expected one channel")
        raster = AudioDeltaStream(self._cfg, self._info).steps(window.data[:, 0].astype(np.int64))
        if raster.shape != out.shape:
            raise BadModel(f"encoder audio_delta got {window.data.shape} samples, which make {len(raster)} steps")
        out[:] = raster

    def reset(self) -> None:
        """Nothing is kept between windows."""


ENCODER = AudioDelta
STREAM = AudioDeltaStream
