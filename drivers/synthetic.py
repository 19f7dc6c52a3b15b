"""Made sensors for demonstrations and tests: a person's motion on the waist, or tones in noise.

Seeded and unbounded: the same seed gives the same samples for ever, however they are cut into packets.
"""

from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from drivers.base import Driver, DriverConfig
from drivers.lib.clock import NS_PER_S
from drivers.lib.pace import Pace, Pacer
from drivers.lib.sound import sound_info
from drivers.packet import Packet, SensorInfo

Activity = Literal["walking", "walking_upstairs", "walking_downstairs", "sitting", "standing", "laying"]
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)

G_PER_STEP = 16 / 32768
DPS_PER_STEP = 2000 / 32768
SEGMENT_S = (8.0, 20.0)
"""An activity lasts between these."""
TONE_BLOCK_S = 0.5
TONES_HZ = (440.0, 880.0, 1320.0)

# Step frequency in Hz; amplitude in g of the vertical, lateral and forward acceleration at the step frequency;
# amplitude in deg/s of the rotation at the stride frequency (half of it). Rounded from what phones on waists show.
_GAIT: dict[str, tuple[float, tuple[float, float, float], tuple[float, float, float]]] = {
    "walking": (1.9, (0.26, 0.14, 0.13), (28.0, 26.0, 20.0)),
    "walking_upstairs": (1.65, (0.30, 0.16, 0.15), (28.0, 26.0, 22.0)),
    "walking_downstairs": (2.0, (0.48, 0.20, 0.16), (36.0, 28.0, 22.0)),
}
# Mean direction of gravity in sensor axes (x up, y left, z forward) and its spread between people, in g.
_POSTURE: dict[str, tuple[tuple[float, float, float], float]] = {
    "walking": ((0.98, -0.19, -0.08), 0.12),
    "walking_upstairs": ((0.95, -0.27, -0.16), 0.12),
    "walking_downstairs": ((0.98, -0.17, -0.08), 0.12),
    "sitting": ((0.95, 0.13, 0.15), 0.15),
    "standing": ((0.98, -0.17, -0.04), 0.10),
    "laying": ((0.05, 0.70, 0.60), 0.25),
}
_HARMONICS = (1.0, 0.35, 0.2, 0.1)
"""Amplitudes of the multiples of the step frequency: a heel strike is not a sine."""
_TREMOR_G = 0.004
_TREMOR_DPS = 0.6
_NOISE_G = 0.003
_NOISE_DPS = 0.15


def motion(activity: Activity, n: int, rng: np.random.Generator, rate_hz: float = 50.0) -> npt.NDArray[np.int16]:
    """(n, 6) int16 ax ay az gx gy gz in WitMotion steps (16 g and 2000 deg/s at 32768) of one person doing this.

    A kinematic model: gravity in a posture, steps as harmonics with drifting pace, postural sway, sensor noise.
    """
    t = np.arange(n) / rate_hz
    direction, spread = _POSTURE[activity]
    gravity = np.array(direction) + rng.normal(0, spread, 3)
    gravity /= np.linalg.norm(gravity)
    sway = _smooth(rng, n, rate_hz, 0.6)
    values = np.zeros((n, 6))
    values[:, :3] = gravity + _TREMOR_G * sway[:, :3]
    values[:, 3:] = _TREMOR_DPS * sway[:, 3:]
    if activity in _GAIT:
        values += _steps(activity, t, rng, rate_hz)
    values[:, :3] = (values[:, :3] + rng.normal(0, _NOISE_G, (n, 3))) / G_PER_STEP
    values[:, 3:] = (values[:, 3:] + rng.normal(0, _NOISE_DPS, (n, 3))) / DPS_PER_STEP
    return np.clip(np.rint(values), -32768, 32767).astype(np.int16)


def _steps(
    activity: str, t: npt.NDArray[np.float64], rng: np.random.Generator, rate_hz: float
) -> npt.NDArray[np.float64]:
    step_hz, acceleration_g, rotation_dps = _GAIT[activity]
    pace_hz = step_hz * rng.normal(1, 0.06) + 0.05 * _smooth(rng, len(t), rate_hz, 0.3)[:, 0]
    phase = 2 * np.pi * np.cumsum(pace_hz) / rate_hz
    strength = rng.normal(1, 0.12)
    moved = np.zeros((len(t), 6))
    for k, harmonic in enumerate(_HARMONICS, start=1):
        offsets = rng.uniform(0, 2 * np.pi, 3) * (0.2 if k == 1 else 1)
        moved[:, :3] += strength * harmonic * np.array(acceleration_g) * np.sin(k * phase[:, None] + offsets)
        # Left and right steps differ: the body turns and rolls once a stride, every two steps.
        offsets = rng.uniform(0, 2 * np.pi, 3)
        moved[:, 3:] += strength * harmonic * np.array(rotation_dps) * np.sin(k * phase[:, None] / 2 + offsets)
    return moved


def _smooth(rng: np.random.Generator, n: int, rate_hz: float, cutoff_hz: float) -> npt.NDArray[np.float64]:
    """(n, 6) noise of variance about 1 whose spectrum falls above ``cutoff_hz``."""
    spectrum = np.fft.rfft(rng.normal(0, 1, (n, 6)), axis=0)
    gain = 1 / (1 + (np.fft.rfftfreq(n, 1 / rate_hz) / cutoff_hz) ** 2)
    spectrum *= (gain / np.sqrt(np.mean(gain**2)))[:, None]
    return np.fft.irfft(spectrum, n, axis=0)


class SyntheticConfig(DriverConfig):
    signal: Literal["motion", "tone"] = "motion"
    seed: int = Field(default=0, ge=0)
    rate_hz: int = Field(default=50, ge=1, le=192_000)
    pace: Pace = "real"
    packet_ms: int = Field(default=100, ge=1, le=10_000)


class Synthetic(Driver[SyntheticConfig]):
    """Never ends, loses nothing."""

    Config: ClassVar[type[DriverConfig]] = SyntheticConfig

    def __init__(self, name: str, cfg: SyntheticConfig) -> None:
        super().__init__(name, cfg)
        self._pacer = Pacer(cfg.pace, cfg.rate_hz)
        self._packet_samples = max(1, cfg.rate_hz * cfg.packet_ms // 1000)
        self._sample = self._seq = self._blocks = 0
        self._ready = self._nothing()

    @property
    def live(self) -> bool:
        return self.cfg.pace == "real"

    def info(self) -> SensorInfo:
        if self.cfg.signal == "tone":
            return sound_info(self.cfg.rate_hz, 1)
        return SensorInfo(
            family="imu",
            channels=("ax", "ay", "az", "gx", "gy", "gz"),
            units=("g",) * 3 + ("deg/s",) * 3,
            scale=(G_PER_STEP,) * 3 + (DPS_PER_STEP,) * 3,
            rate_hz=self.cfg.rate_hz,
        )

    def open(self) -> None:
        self._sample = self._seq = self._blocks = 0
        self._ready = self._nothing()
        self._pacer.start()

    def read(self, timeout: float) -> Packet | None:
        if not self._pacer.wait(self._sample + self._packet_samples, timeout):
            return None
        while len(self._ready) < self._packet_samples:
            self._ready = np.concatenate([self._ready, self._block(self._blocks)])
            self._blocks += 1
        data, self._ready = self._ready[: self._packet_samples].copy(), self._ready[self._packet_samples :]
        packet = Packet(self.name, self._seq, self._pacer.t_ns(self._sample), round(NS_PER_S / self.cfg.rate_hz), data)
        self._sample += len(data)
        self._seq += 1
        return packet

    def close(self) -> None:
        """Nothing is held."""

    def _nothing(self) -> npt.NDArray[np.int16]:
        return np.zeros((0, len(self.info().channels)), np.int16)

    def _block(self, index: int) -> npt.NDArray[np.int16]:
        rng = np.random.default_rng([self.cfg.seed, index])
        if self.cfg.signal == "tone":
            return _tone(max(1, round(TONE_BLOCK_S * self.cfg.rate_hz)), rng, self.cfg.rate_hz)
        activity = ACTIVITIES[int(rng.integers(len(ACTIVITIES)))]
        return motion(activity, max(1, round(rng.uniform(*SEGMENT_S) * self.cfg.rate_hz)), rng, self.cfg.rate_hz)


def _tone(n: int, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[np.int16]:
    """(n, 1): quiet noise, and in the middle half of the block a tone that swells and fades."""
    t = np.arange(n) / rate_hz
    envelope = np.clip(np.sin(2 * np.pi * (np.arange(n) / n - 0.25)), 0, None)
    tone = rng.uniform(0.1, 0.5) * envelope * np.sin(2 * np.pi * TONES_HZ[int(rng.integers(len(TONES_HZ)))] * t)
    return np.rint((tone + rng.normal(0, 0.003, n)) * 32767).astype(np.int16)[:, None]


DRIVER = Synthetic
