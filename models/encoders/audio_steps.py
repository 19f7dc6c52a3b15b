"""What encoders of sound as it comes share: packets of any size to overlapping frames of log-mel bands, gaps, windows.

A step every ``hop`` samples, of a spectrum of the last ``frame`` first differences of the samples (no offset, little
rumble). Nothing looks ahead, so a window and a stream from the same first sample give the same spikes.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.packet import Packet, SensorInfo
from models.base import BadModel, Raster, Steps, Window
from models.encoders.audio_mel import FLOOR_FS, MelBand, mel_bank
from models.gap import Gap

MAX_FILL_S = 0.25
"""A longer gap starts the stream anew; a shorter one is filled by holding the last value."""

Samples = npt.NDArray[np.int64]


class AudioStepsConfig(BaseModel):
    """What their parts ``encoder`` of a manifest have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate_hz: float = Field(default=16000.0, gt=0)
    frame: int = Field(default=512, ge=16, le=8192)
    """Samples of one spectrum."""
    hop: int = Field(default=320, ge=1, le=8192)
    """Samples from one time step to the next."""
    bands: int = Field(default=32, ge=1, le=256)
    low_hz: float = Field(default=100.0, ge=0)
    high_hz: float = Field(default=7500.0, gt=0)

    @model_validator(mode="after")
    def _possible_bands(self) -> "AudioStepsConfig":
        if not self.low_hz < self.high_hz <= self.rate_hz / 2:
            raise ValueError("low_hz < high_hz <= rate_hz / 2 is expected")
        if self.hop > self.frame:
            raise ValueError("hop <= frame is expected: samples between frames would never be heard")
        return self

    @property
    def features(self) -> int:
        """Cells of one step."""
        return self.bands


class AudioSteps(ABC):
    """A ``StreamEncoder`` of one channel of sound; all steps of a packet at once."""

    kind: ClassVar[str]

    def __init__(self, cfg: AudioStepsConfig, info: SensorInfo) -> None:
        """Raises BadModel when the sensor does not fit."""
        if info.family != "audio" or len(info.channels) != 1:
            raise BadModel(
                f"encoder {self.kind} takes one audio channel, the sensor is {info.family} "
                f"with {len(info.channels)} channels"
            )
        if abs(info.rate_hz - cfg.rate_hz) > 1e-3 * cfg.rate_hz:
            raise BadModel(
                f"encoder {self.kind} was made for {cfg.rate_hz:g} Hz, the sensor gives {info.rate_hz:g} Hz; "
                "set the sensor's rate_hz or choose another model"
            )
        self.features = cfg.features
        self.step_ns = round(cfg.hop / cfg.rate_hz * 1e9)
        self._frame, self._hop = cfg.frame, cfg.hop
        self._taper = np.hanning(cfg.frame + 1)[:-1] * info.scale[0]
        self._bank = mel_bank(MelBand(cfg.rate_hz, cfg.frame, cfg.bands, cfg.low_hz, cfg.high_hz))
        self._gap = Gap(max_missing=int(MAX_FILL_S * cfg.rate_hz))
        self._start_over()

    def _start_over(self) -> None:
        self._held: Samples = np.zeros(0, np.int64)
        """Samples that later steps need, the oldest first; the very first has no difference before it."""
        self._begun = False
        """A step was made of some of them."""
        self.forget()

    @abstractmethod
    def forget(self) -> None:
        """The next step is the first one."""

    @abstractmethod
    def code(self, level_db: npt.NDArray[np.float64]) -> Raster:
        """Spikes (steps, features) of levels (steps, bands) in dB of full scale that follow those of the last call."""

    def push(self, packet: Packet) -> Steps:
        """The time steps that ``packet`` completes."""
        samples = packet.data[:, 0].astype(np.int64)
        missing = self._gap.before(packet)
        fresh, given_up = missing is None, 0
        if missing is None:
            given_up = len(self._held) - (self._frame + 1 - self._hop if self._begun else 0)
            self._start_over()
            missing = 0
        if missing:
            samples = np.concatenate([np.repeat(self._held[-1:], missing), samples])
        raster = self.steps(samples)
        # Before the first step is whole its beginning lies ahead, so that it is the same for packets of any size.
        behind = len(self._held) - (self._frame + 1 - self._hop)
        end_ns = packet.t0_ns + packet.dt_ns * (len(packet.data) - behind)
        return Steps(raster, end_ns - self.step_ns * len(raster), fresh, missing, given_up)

    def steps(self, samples: Samples) -> Raster:
        """The steps that ``samples`` complete, when they follow those of the last call without a gap."""
        held = np.concatenate([self._held, samples])
        count = max(0, (len(held) - 1 - self._frame) // self._hop + 1)
        self._held = held[count * self._hop :]
        if not count:
            return np.zeros((0, self.features), np.uint8)
        self._begun = True
        frames = np.lib.stride_tricks.sliding_window_view(np.diff(held), self._frame)[:: self._hop][:count]
        spectra = np.fft.rfft(frames * self._taper, axis=1)
        power = spectra.real**2 + spectra.imag**2
        # A product for each step by itself: one for all of them sums in another order for other numbers of steps.
        band = np.matmul(power[:, None, :], self._bank)[:, 0]
        return self.code(10 * np.log10(band + FLOOR_FS**2))


class AudioWindow:
    """An ``Encoder`` that does the same with a window: a stream that begins and ends with it."""

    stream: ClassVar[type[AudioSteps]]

    def __init__(self, cfg: AudioStepsConfig, info: SensorInfo, samples: int) -> None:
        """Raises BadModel when the sensor or the window does not fit."""
        self._info = info
        self._cfg = cfg
        stream = self.stream(cfg, info)
        self._kind = stream.kind
        steps = (samples - 1 - cfg.frame) // cfg.hop + 1
        if steps < 1:
            raise BadModel(f"encoder {self._kind} needs windows of more than {cfg.frame} samples, not {samples}")
        self.shape = (steps, stream.features)

    def encode(self, window: Window, out: Raster) -> None:
        """Write the spikes of ``window`` ((samples, 1) integers) into ``out``, uint8 of ``shape``."""
        if window.data.ndim != 2 or window.data.shape[1] != 1:
            raise BadModel(f"encoder {self._kind} got {window.data.shape} samples, expected one channel")
        raster = self.stream(self._cfg, self._info).steps(window.data[:, 0].astype(np.int64))
        if raster.shape != out.shape:
            raise BadModel(f"encoder {self._kind} got {window.data.shape} samples, which make {len(raster)} steps")
        out[:] = raster

    def reset(self) -> None:
        """Nothing is kept between windows."""
