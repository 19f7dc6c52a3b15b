"""Wall-following robot: ``sensor_readings_24.csv``, a row per sample: distances in metres, then what the robot did.

Columns S1, S2, ... and OUTPUT, rows in the order of time. The first 80 % are split ``train``, the rest ``test``; a
shuffled split would be easier than life, since neighbours in time are nearly equal.
"""

import csv
from pathlib import Path

import numpy as np

from drivers.packet import SensorInfo
from models.datasets.recording import DataError, Recording

MARKER = "sensor_readings_*.csv"
RATE_HZ = 9.0
NO_ECHO_M = 5.0
"""So far, or further, means that nothing was in range."""
TRAIN_PART = 0.8
LABEL_COLUMN = "OUTPUT"


def ring_info(channels: int) -> SensorInfo:
    """What ``ultrasonic.array`` says of so many transducers that give their distances in mm."""
    names = tuple(f"d{index}" for index in range(channels))
    return SensorInfo("ultrasonic", names, ("mm",) * channels, (1.0,) * channels, RATE_HZ)


def load(folder: Path, split: str) -> list[Recording]:
    """One run: (n, channels) int32 in mm, 0 where there is no echo, and the label of each sample. Raises DataError."""
    path = min(folder.glob(MARKER))
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            head, *rows = list(csv.reader(lines)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error})") from error
    channels = len(head) - 1
    if channels < 1 or head != [*(f"S{i + 1}" for i in range(channels)), LABEL_COLUMN]:
        raise DataError(
            f"{path}: expected the columns S1, S2, ... and {LABEL_COLUMN}, found {', '.join(head)[:200] or 'none'}"
        )
    uneven = next((i for i, row in enumerate(rows) if len(row) != len(head)), None)
    if uneven is not None:
        raise DataError(f"{path}: line {uneven + 2} has {len(rows[uneven])} columns, expected {len(head)}")
    boundary = int(len(rows) * TRAIN_PART)
    parts = {"train": rows[:boundary], "test": rows[boundary:]}
    if split not in parts:
        raise DataError(f"{path}: no split {split!r}; there are {' and '.join(parts)}")
    if not parts[split]:
        raise DataError(f"{path}: split {split!r} has no rows")
    try:
        distance_m = np.array([row[:-1] for row in parts[split]], np.float64)
    except ValueError as error:
        raise DataError(f"{path}: a distance is not a number ({error})") from error
    if not (np.isfinite(distance_m).all() and distance_m.min() >= 0):
        raise DataError(f"{path}: a distance is negative or not finite, expected metres")
    data = np.where(distance_m >= NO_ECHO_M, 0, np.rint(distance_m * 1000)).astype(np.int32)
    truth = np.array([row[-1] for row in parts[split]])
    return [Recording(f"{path.name} {split}", "", "", data, ring_info(channels), truth)]
