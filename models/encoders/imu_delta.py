"""Motion to spikes: level crossings of the six channels, and a population code of the direction of gravity.

Features in order: for each ``steps_g`` (acceleration) and each ``steps_dps`` (rotation) three channels "on" then three
"off" (the smoothed channel rose or fell through a multiple of the step since the last sample); then for each
acceleration axis ``gravity_cells`` cells, of which those spike whose preferred value lies within ``gravity_width_g`` of
the low-passed axis; then for each acceleration axis and each of ``energy_g`` one cell that spikes while the axis is
further than that from its low-passed value; the same for rotation with ``energy_dps`` from zero.
Level-crossing coding as in event-based sampling (Miskowicz 2006).
"""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from drivers.packet import SensorInfo
from models.base import BadModel, Raster, Window

CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")
UNITS = ("g", "g", "g", "deg/s", "deg/s", "deg/s")


class ImuDeltaConfig(BaseModel):
    """Part ``encoder`` of a bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate_hz: float = Field(default=50.0, gt=0)
    steps_g: tuple[float, ...] = (0.02, 0.06, 0.2, 0.5)
    steps_dps: tuple[float, ...] = (3.0, 10.0, 30.0, 80.0)
    gravity_cells: int = Field(default=17, ge=2, le=255)
    """Preferred values, evenly from -1 g to 1 g."""
    gravity_width_g: float = Field(default=0.12, gt=0)
    gravity_smooth: int = Field(default=32, ge=1)
    """Samples of the moving average that separates gravity from movement."""
    energy_g: tuple[float, ...] = (0.008, 0.02, 0.06, 0.15, 0.35)
    energy_dps: tuple[float, ...] = (1.5, 4.0, 12.0, 35.0, 90.0)


class ImuDelta:
    """Encoder of a six-axis inertial sensor: one time step per sample. Pure; well under a millisecond per window."""

    Config = ImuDeltaConfig

    def __init__(self, cfg: ImuDeltaConfig, info: SensorInfo, samples: int) -> None:
        """Raises BadModel when the sensor does not fit."""
        if info.family != "imu" or info.channels[:6] != CHANNELS or info.units[:6] != UNITS:
            raise BadModel(
                f"encoder imu_delta takes an imu whose first channels are {', '.join(CHANNELS)} in g and deg/s, "
                f"the sensor is {info.family} with {', '.join(info.channels) or 'no channels'}"
            )
        if abs(info.rate_hz - cfg.rate_hz) > 0.02 * cfg.rate_hz:
            raise BadModel(
                f"encoder imu_delta was made for {cfg.rate_hz:g} Hz, the sensor gives {info.rate_hz:g} Hz; "
                "set the sensor's rate_hz or choose another model"
            )
        self.cfg = cfg
        per_axis = 2 * (len(cfg.steps_g) + len(cfg.steps_dps)) + cfg.gravity_cells
        self.shape = (samples, 3 * (per_axis + len(cfg.energy_g) + len(cfg.energy_dps)))
        self._data_shape = (samples, len(info.channels))
        self._scale = np.asarray(info.scale[:6])
        self._preferred_g = np.linspace(-1, 1, cfg.gravity_cells)

    def reset(self) -> None:
        """Nothing is kept between windows."""

    def encode(self, window: Window, out: Raster) -> None:
        """Write the spikes of ``window`` ((samples, channels) integers) into ``out``, uint8 of ``shape``."""
        if window.data.shape != self._data_shape:
            raise BadModel(f"encoder imu_delta got {window.data.shape} samples, expected {self._data_shape}")
        cfg = self.cfg
        physical = window.data[:, :6] * self._scale
        acceleration_g, rotation_dps = physical[:, :3], physical[:, 3:]
        gravity_g = _moving_average(acceleration_g, cfg.gravity_smooth)
        parts: list[npt.NDArray[np.bool_]] = []
        for signal, steps in ((acceleration_g, cfg.steps_g), (rotation_dps, cfg.steps_dps)):
            for step in steps:
                parts.extend(_crossings(signal, step))
        near = np.abs(gravity_g[:, :, None] - self._preferred_g) < cfg.gravity_width_g
        parts.append(near.reshape(len(near), -1))
        for signal, thresholds in ((acceleration_g - gravity_g, cfg.energy_g), (rotation_dps, cfg.energy_dps)):
            parts.extend(np.abs(signal) > threshold for threshold in thresholds)
        np.concatenate(parts, axis=1, out=out, casting="unsafe")


def _crossings(signal: npt.NDArray[np.float64], step: float) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    stair = np.floor(signal / step + 0.5)
    stair = np.concatenate([stair[:1], stair])
    return stair[1:] > stair[:-1], stair[1:] < stair[:-1]


def _moving_average(signal: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Mean of the last ``length`` samples; before that many are known, the first such mean."""
    length = min(length, len(signal))
    total = np.concatenate([np.zeros((1, signal.shape[1])), np.cumsum(signal, axis=0)])
    average = (total[length:] - total[:-length]) / length
    return np.concatenate([np.repeat(average[:1], length - 1, axis=0), average])


ENCODER = ImuDelta
