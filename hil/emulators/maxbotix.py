"""A MaxBotix sensor on a pseudo-terminal."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from hil.emulators.case import Case, distances
from hil.emulators.serial_port import RowsEmulator

BAUD = 9600


class MaxbotixEmulator(RowsEmulator):
    """Free-running text, a reading per row."""

    def __init__(self, rows: npt.NDArray[Any], rate_hz: float, link: Path, *, digits: int = 4) -> None:
        """``rows``: (n, 1), what the sensor prints."""
        super().__init__(rows, link, rate_hz, BAUD, digits + 2)
        self._digits = digits

    def encode(self, first: int, count: int) -> list[bytes]:
        return [b"R%0*d\r" % (self._digits, int(row[0])) for row in self.played(first, count)]


CASES = (
    Case(
        "ultrasonic.maxbotix",
        {"baud": BAUD, "rate_hz": 20},
        lambda link: MaxbotixEmulator(distances(), 20, link),
    ),
)
