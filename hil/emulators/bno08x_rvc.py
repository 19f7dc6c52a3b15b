"""A BNO08x in UART-RVC mode on a pseudo-terminal."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hil.emulators.case import Case, words
from hil.emulators.serial_port import RowsEmulator

FRAME_BYTES = 19
RATE_HZ = 100.0


def encode(rows: npt.NDArray[np.int16], first: int) -> list[bytes]:
    """A frame per row of (n, 6) int16 ax ay az (mg) yaw pitch roll (0.01 deg); row ``first`` has index first % 256."""
    frames = np.zeros((len(rows), FRAME_BYTES), np.uint8)
    frames[:, :2] = 0xAA
    frames[:, 2] = np.arange(first, first + len(rows)) % 256
    frames[:, 3:9] = np.ascontiguousarray(rows[:, 3:]).astype("<i2").view(np.uint8)
    frames[:, 9:15] = np.ascontiguousarray(rows[:, :3]).astype("<i2").view(np.uint8)
    frames[:, 18] = frames[:, 2:18].sum(axis=1, dtype=np.uint8)
    return [frame.tobytes() for frame in frames]


class Bno08xRvcEmulator(RowsEmulator):
    """Plays rows of (n, 6) int16 ax ay az yaw pitch roll, 100 per second; its frame index counts all of them."""

    def __init__(self, rows: npt.NDArray[np.int16], link: Path) -> None:
        super().__init__(rows, link, RATE_HZ, 115200, FRAME_BYTES)
        self.index_stands_still = False

    def encode(self, first: int, count: int) -> list[bytes]:
        if self.index_stands_still:
            return [encode(self.played(i, 1), 0)[0] for i in range(first, first + count)]
        return encode(self.played(first, count), first)


CASES = (Case("imu.bno08x_rvc", {"baud": 115200}, lambda link: Bno08xRvcEmulator(words(6), link)),)
