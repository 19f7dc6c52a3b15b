"""A WitMotion sensor on a pseudo-terminal: real frames at real pace, and the faults that real ones have."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hil.emulators.case import Case, words
from hil.emulators.serial_port import RowsEmulator

FRAME_BYTES = 11
TEMPERATURE = 2500
"""25.00 degC, carried by the acceleration, rate and angle frames."""


def encode(rows: npt.NDArray[np.int16], first: int, rate_hz: float, *, timed: bool, angles: bool) -> list[bytes]:
    """Frames of (n, 6) int16 rows ``first ..`` as one byte string per row: [0x50] 0x51 0x52 [0x53].

    The sensor's clock is at 00:00:00.000 when row 0 is taken, and its date was never set.
    """
    count = len(rows)
    words = np.zeros((count, 4), "<i2")
    words[:, 3] = TEMPERATURE
    parts = []
    if timed:
        ms = ((np.arange(first, first + count) * 1000) / rate_hz).astype(np.int64) % 86_400_000
        clock = np.zeros((count, 8), np.uint8)
        for column, unit in ((3, ms // 3_600_000), (4, ms // 60_000 % 60), (5, ms // 1000 % 60)):
            clock[:, column] = unit
        clock[:, 6:] = (ms % 1000).astype("<u2").reshape(-1, 1).view(np.uint8)
        parts.append(_frames(0x50, clock))
    for kind, columns in ((0x51, rows[:, :3]), (0x52, rows[:, 3:])):
        words[:, :3] = columns
        parts.append(_frames(kind, words.view(np.uint8)))
    if angles:
        words[:, :3] = 0
        parts.append(_frames(0x53, words.view(np.uint8)))
    cycles = np.concatenate(parts, axis=1)
    return [cycle.tobytes() for cycle in cycles]


def _frames(kind: int, payload: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    frames = np.empty((len(payload), FRAME_BYTES), np.uint8)
    frames[:, 0], frames[:, 1], frames[:, 2:10] = 0x55, kind, payload
    frames[:, 10] = frames[:, :10].sum(axis=1, dtype=np.uint8)
    return frames


class WitmotionEmulator(RowsEmulator):
    """Plays rows again and again while the context is open."""

    def __init__(
        self,
        rows: npt.NDArray[np.int16],
        rate_hz: float,
        link: Path,
        *,
        baud: int = 115200,
        timed: bool = True,
        angles: bool = True,
    ) -> None:
        """``rows``: (n, 6) int16. ``link``: symlink that stands for /dev/serial/by-id/... while plugged in.

        Raises ValueError when the frames do not fit through ``baud`` (8N1).
        """
        self._frames = 2 + timed + angles
        super().__init__(rows, link, rate_hz, baud, self._frames * FRAME_BYTES)
        if rows.ndim != 2 or rows.shape[1] != 6 or rows.dtype != np.int16 or not len(rows):
            raise ValueError(f"rows are {rows.dtype} {rows.shape}, expected int16 (n, 6) with n >= 1")
        self._timed, self._angles = timed, angles

    def encode(self, first: int, count: int) -> list[bytes]:
        return encode(self.played(first, count), first, self.rate_hz, timed=self._timed, angles=self._angles)

    def corrupt(self) -> None:
        """One bit of the next row's acceleration flips on the wire."""
        self.flip_bit((FRAME_BYTES if self._timed else 0) + 4)

    def _load(self, row_bytes: int) -> str:
        return f"{self._frames} frames"


CASES = (
    Case(
        "imu.witmotion",
        {"baud": 115200, "rate_hz": 200},
        lambda link: WitmotionEmulator(words(6), 200, link, timed=False),
    ),
)
