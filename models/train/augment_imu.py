"""A motion sensor that sits otherwise. Pure given the random generator."""

import numpy as np
import numpy.typing as npt

from models.datasets.recording import IMU_INFO

Floats = npt.NDArray[np.float64]


def rotation(rng: np.random.Generator, angle_deg: float) -> Floats:
    """A turn about a random axis (Rodrigues), as clothes and belts turn a sensor."""
    x, y, z = (axis := rng.normal(0, 1, 3)) / np.linalg.norm(axis)
    angle = np.deg2rad(angle_deg)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: Floats = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    return turn


def turned(data: npt.NDArray[np.int16], turn: Floats) -> npt.NDArray[np.int16]:
    """What the sensor would have given, had it been mounted turned."""
    physical = data * np.asarray(IMU_INFO.scale)
    return integers(np.concatenate([physical[:, :3] @ turn.T, physical[:, 3:] @ turn.T], axis=1))


def integers(physical: Floats) -> npt.NDArray[np.int16]:
    """Samples of ``IMU_INFO`` from g and deg/s."""
    return np.clip(np.rint(physical / IMU_INFO.scale), -32768, 32767).astype(np.int16)
