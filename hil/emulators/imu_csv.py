"""An Arduino-class board on a pseudo-terminal that prints lines of numbers."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hil.emulators.case import Case, numbers
from hil.emulators.serial_port import RowsEmulator

HEADER = b"aX,aY,aZ,gX,gY,gZ"
DIGITS = 3


class CsvEmulator(RowsEmulator):
    """Prints (n, k) rows with three decimals; a header before the first line, a blank line after every ``block``."""

    def __init__(
        self,
        rows: npt.NDArray[np.float64],
        rate_hz: float,
        link: Path,
        *,
        baud: int = 115200,
        newline: bytes = b"\r\n",
        block: int = 119,
    ) -> None:
        super().__init__(rows, link, rate_hz, baud, max(len(_line(row)) for row in rows) + 2 * len(newline))
        self._newline = newline
        self._block = block

    def encode(self, first: int, count: int) -> list[bytes]:
        return [
            (HEADER + self._newline if index == 0 else b"")
            + _line(row)
            + self._newline * (2 if (index + 1) % self._block == 0 else 1)
            for index, row in enumerate(self.played(first, count), first)
        ]


def _line(row: npt.NDArray[np.float64]) -> bytes:
    return ",".join(f"{value:.{DIGITS}f}" for value in row.tolist()).encode()


CASES = (
    Case(
        "imu.csv",
        {"baud": 115200, "rate_hz": 119},
        lambda link: CsvEmulator(numbers().astype(np.float64), 119, link),
    ),
)
