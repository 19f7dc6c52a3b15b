"""A US-100 in UART mode on a pseudo-terminal."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from hil.emulators.case import Case, distances
from hil.emulators.polled import PolledEmulator

BAUD = 9600


class Us100Emulator(PolledEmulator):
    """Answers 0x55 with the distance of the next row and 0x50 with the temperature."""

    def __init__(self, rows: npt.NDArray[Any], link: Path, *, temperature_degc: int = 25) -> None:
        """``rows``: (n, 1) mm."""
        super().__init__(rows, link, BAUD)
        self.temperature_degc = temperature_degc

    def understand(self, heard: bytes) -> tuple[bytes, int]:
        if heard[0] == 0x55:
            return int(self.next_row()[0]).to_bytes(2, "big"), 1
        return bytes([self.temperature_degc + 45]) if heard[0] == 0x50 else b"", 1


CASES = (
    Case("ultrasonic.us100", {"baud": BAUD, "rate_hz": 15}, lambda link: Us100Emulator(distances(), link), asked=True),
)
