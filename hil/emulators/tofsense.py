"""A Nooploop TOFSense on a pseudo-terminal."""

import struct
from pathlib import Path
from typing import Any

import numpy.typing as npt

from hil.emulators.case import Case, distances
from hil.emulators.serial_port import RowsEmulator

FRAME_BYTES = 16


def frame(system_ms: int, distance_mm: int, status: int, strength: int) -> bytes:
    distance = distance_mm.to_bytes(3, "little")
    head = struct.pack("<BBBBI3sBHB", 0x57, 0, 0xFF, 0, system_ms % (1 << 32), distance, status, strength, 6)
    return head + bytes([sum(head) & 0xFF])


class TofsenseEmulator(RowsEmulator):
    """A frame per row, unasked; its clock is at 0 when row 0 is measured."""

    def __init__(self, rows: npt.NDArray[Any], rate_hz: float, link: Path, *, baud: int = 921600) -> None:
        """``rows``: (n, 3) mm, status, strength."""
        super().__init__(rows, link, rate_hz, baud, FRAME_BYTES)

    def encode(self, first: int, count: int) -> list[bytes]:
        played = self.played(first, count).tolist()
        return [frame(round(1000 * row / self.rate_hz), *values) for row, values in enumerate(played, first)]


CASES = (
    Case(
        "ultrasonic.tofsense",
        {"baud": 921600, "rate_hz": 350},
        lambda link: TofsenseEmulator(distances(3) % [2000, 256, 65536], 350, link),
    ),
)
