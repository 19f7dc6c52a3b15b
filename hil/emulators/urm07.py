"""A DFRobot URM07 on a pseudo-terminal."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from hil.emulators.case import Case, distances
from hil.emulators.polled import PolledEmulator

BAUD = 19200
COMMAND_BYTES = 6


class Urm07Emulator(PolledEmulator):
    """Answers the distance command for its own address with the next row; commands for others are not answered."""

    def __init__(self, rows: npt.NDArray[Any], link: Path, *, address: int = 0x11) -> None:
        """``rows``: (n, 1) mm."""
        super().__init__(rows, link, BAUD)
        self._address = address

    def understand(self, heard: bytes) -> tuple[bytes, int]:
        begin = heard.find(b"\x55\xaa")
        if begin < 0:
            return b"", len(heard) - (heard[-1:] == b"\x55")
        command = heard[begin : begin + COMMAND_BYTES]
        if len(command) < COMMAND_BYTES:
            return b"", begin
        right = command[2:5] == bytes([self._address, 0, 2]) and command[5] == sum(command[:5]) & 0xFF
        if not right:
            return b"", begin + 1
        head = bytes([0x55, 0xAA, self._address, 2, 2]) + int(self.next_row()[0]).to_bytes(2, "big")
        return head + bytes([sum(head) & 0xFF]), begin + COMMAND_BYTES


CASES = (
    Case("ultrasonic.urm07", {"baud": BAUD, "rate_hz": 20}, lambda link: Urm07Emulator(distances(), link), asked=True),
)
