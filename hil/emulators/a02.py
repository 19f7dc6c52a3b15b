"""A sensor of the FF-H-L-SUM family on a pseudo-terminal, free-running or triggered."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from hil.emulators.case import Case, distances
from hil.emulators.polled import PolledEmulator
from hil.emulators.serial_port import RowsEmulator

BAUD = 9600
FRAME_BYTES = 4


def frame(distance_mm: int) -> bytes:
    head = bytes([0xFF, distance_mm >> 8, distance_mm & 0xFF])
    return head + bytes([sum(head) & 0xFF])


class A02Emulator(RowsEmulator):
    """A frame per row, unasked."""

    def __init__(self, rows: npt.NDArray[Any], rate_hz: float, link: Path) -> None:
        """``rows``: (n, 1) mm."""
        super().__init__(rows, link, rate_hz, BAUD, FRAME_BYTES)

    def encode(self, first: int, count: int) -> list[bytes]:
        return [frame(int(row[0])) for row in self.played(first, count)]


class A02TriggeredEmulator(PolledEmulator):
    """A frame for each trigger byte; other bytes are ignored."""

    def __init__(self, rows: npt.NDArray[Any], link: Path, *, trigger: int = 0x55) -> None:
        super().__init__(rows, link, BAUD)
        self._trigger = trigger

    def understand(self, heard: bytes) -> tuple[bytes, int]:
        return (frame(int(self.next_row()[0])) if heard[0] == self._trigger else b""), 1


CASES = (Case("ultrasonic.a02", {"baud": BAUD, "rate_hz": 20}, lambda link: A02Emulator(distances(), 20, link)),)
