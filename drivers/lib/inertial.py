"""Inertial sensors that send floating-point numbers: fixed steps far below the noise of any such sensor."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.packet import SensorInfo

STANDARD_GRAVITY = 9.80665
MPS2_PER_STEP = 1e-5
"""0.01 mm/s2, about 1 ug. The best sensors here (MTi-300, VN-100) have about 1 mm/s2 of noise at 100 Hz."""
RADPS_PER_STEP = 1e-6
"""About 0.00006 deg/s; the noise is about 0.05 deg/s. It is also the last digit of VectorNav's ASCII."""
MAX_MPS2 = 2000.0
MAX_RADPS = 100.0
"""Above every range that is sold (100 g, 5000 deg/s): such a number is damaged, not measured."""

CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")
UNITS = ("g",) * 3 + ("deg/s",) * 3
SI_SCALE = (MPS2_PER_STEP / STANDARD_GRAVITY,) * 3 + (math.degrees(RADPS_PER_STEP),) * 3
"""Steps to the units that every inertial sensor here is told in."""

_PER_UNIT = np.array([1 / MPS2_PER_STEP] * 3 + [1 / RADPS_PER_STEP] * 3)
_LIMITS = np.array([MAX_MPS2] * 3 + [MAX_RADPS] * 3)


def si_info(rate_hz: float) -> SensorInfo:
    """int32 steps of m/s2 and rad/s."""
    return SensorInfo("imu", CHANNELS, UNITS, SI_SCALE, rate_hz)


def si_steps(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """(n, 6) floating-point m/s2 and rad/s as int32 steps, and which rows are numbers within the limits.

    The other rows are 0 and must not be used.
    """
    with np.errstate(invalid="ignore"):
        wide = values.astype(np.float64)
        within: npt.NDArray[np.bool_] = np.abs(wide) <= _LIMITS
    good = np.logical_and.reduce(within, axis=1)
    steps = np.rint(np.where(good[:, None], wide, 0) * _PER_UNIT).astype(np.int32)
    return steps, good
