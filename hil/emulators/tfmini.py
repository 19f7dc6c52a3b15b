"""A Benewake TFmini-S, TFmini or TF02 on a pseudo-terminal."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hil.emulators.case import Case, distances
from hil.emulators.serial_port import RowsEmulator

BAUD = 115200
FRAME_BYTES = 9


def encode(rows: npt.NDArray[Any]) -> list[bytes]:
    """Frames of (n, 3) rows: distance in cm, strength, and the word of bytes 6 and 7."""
    frames = np.empty((len(rows), FRAME_BYTES), np.uint8)
    frames[:, :2] = 0x59
    frames[:, 2:8] = np.ascontiguousarray(rows.astype("<u2")).view(np.uint8)
    frames[:, 8] = frames[:, :8].sum(axis=1, dtype=np.uint8)
    return [frame.tobytes() for frame in frames]


class TfminiEmulator(RowsEmulator):
    """A frame per row, unasked."""

    def __init__(self, rows: npt.NDArray[Any], rate_hz: float, link: Path) -> None:
        super().__init__(rows, link, rate_hz, BAUD, FRAME_BYTES)

    def encode(self, first: int, count: int) -> list[bytes]:
        return encode(self.played(first, count))


CASES = (
    Case(
        "ultrasonic.tfmini",
        {"baud": BAUD, "rate_hz": 1000},
        lambda link: TfminiEmulator(distances(3), 1000, link),
    ),
)
