"""N-MNIST: ``labels.csv`` (columns file, label, split) and recordings of 5 bytes an event, loose or in ``*.tar.xz``.

The format is that of the original ``.bin`` and of SLAYER's ``.bs2``: x, y, polarity and 23 bits of microseconds
(Orchard, Jayawant, Cohen, Thakor, "Converting static image datasets to spiking neuromorphic datasets using saccades",
Frontiers in Neuroscience 2015).
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from drivers.packet import EVENT, SensorInfo
from models.datasets.audio import read_files
from models.datasets.recording import DataError, Recording
from models.datasets.table import rows_of

MARKER = "labels.csv"
SIDE = 34
"""Pixels of the sensor, across and down."""
EVENT_BYTES = 5
NS_PER_US = 1000
CAMERA_INFO = SensorInfo("event_camera", ("x", "y", "on"), ("px", "px", "1"), (1.0, 1.0, 1.0), 1e6)
"""As axond's event file driver says it."""


def load(folder: Path, split: str) -> list[Recording]:
    """One clip for each row of the split, in their order; the time begins with the recording. Raises DataError."""
    chosen, label = rows_of(folder / MARKER, split, ("label",))
    blobs = read_files(folder, {row["file"] for row in chosen})
    recordings = []
    for row in chosen:
        if row["file"] not in blobs:
            raise DataError(f"{folder}: {row['file']} is in {MARKER}, but neither in an archive nor a loose file")
        data = events(blobs[row["file"]], f"{folder}: {row['file']}")
        recordings.append(Recording(row["file"], row[label], "", data, CAMERA_INFO))
    return recordings


def events(blob: bytes, where: str) -> npt.NDArray[np.void]:
    """EVENT[n] of a recording, in the order of time. Raises DataError, naming ``where``."""
    if len(blob) % EVENT_BYTES or not blob:
        raise DataError(f"{where}: {len(blob)} bytes, expected a multiple of {EVENT_BYTES} above 0")
    words = np.frombuffer(blob, np.uint8).reshape(-1, EVENT_BYTES)
    x, y, high, middle, low = words.T.astype(np.int64)
    if x.max() >= SIDE or y.max() >= SIDE:
        raise DataError(f"{where}: an event at pixel ({x.max()}, {y.max()}), expected {SIDE} x {SIDE} pixels")
    t_us = (high & 127) << 16 | middle << 8 | low
    order = np.argsort(t_us, kind="stable")
    out = np.zeros(len(words), EVENT)
    out["t_ns"], out["x"], out["y"], out["on"] = t_us[order] * NS_PER_US, x[order], y[order], (high >> 7)[order]
    return out
