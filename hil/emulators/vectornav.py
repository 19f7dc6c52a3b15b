"""A VectorNav VN-100 on a pseudo-terminal: ASCII, binary, or both mixed."""

import binascii
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hil.emulators.case import Case, numbers
from hil.emulators.serial_port import RowsEmulator

Output = Literal["ascii", "binary", "both"]
BINARY_HEAD = bytes([0xFA, 0x01, 0x21, 0x01])
"""Common group with TimeStartup, AngularRate and Accel."""
BINARY_BYTES = 4 + 8 + 12 + 12 + 2
ASCII_BYTES = 122


def encode_ascii(row: npt.NDArray[np.float32]) -> bytes:
    """VNYMR of one row of m/s2 and rad/s; orientation and magnetic field stand still."""
    acceleration = ",".join(f"{value:+07.3f}" for value in row[:3].tolist())
    rate = ",".join(f"{value:+010.6f}" for value in row[3:].tolist())
    text = f"VNYMR,+100.949,-007.330,+000.715,-00.0049,-00.2449,+00.5397,{acceleration},{rate}".encode()
    checksum = 0
    for byte in text:
        checksum ^= byte
    return b"$%s*%02X\r\n" % (text, checksum)


def encode_binary(row: npt.NDArray[np.float32], since_start_ns: int) -> bytes:
    """The same as a binary message with the sensor's time."""
    payload = since_start_ns.to_bytes(8, "little") + row[3:].astype("<f4").tobytes() + row[:3].astype("<f4").tobytes()
    body = BINARY_HEAD + payload
    return body + binascii.crc_hqx(body[1:], 0).to_bytes(2, "big")


class VectornavEmulator(RowsEmulator):
    """Plays (n, 6) float32 rows of ax ay az (m/s2) gx gy gz (rad/s)."""

    def __init__(
        self,
        rows: npt.NDArray[np.float32],
        rate_hz: float,
        link: Path,
        *,
        baud: int = 115200,
        output: Output = "ascii",
    ) -> None:
        sizes = {"ascii": ASCII_BYTES, "binary": BINARY_BYTES, "both": ASCII_BYTES + BINARY_BYTES}
        super().__init__(rows, link, rate_hz, baud, sizes[output])
        self._output = output

    def encode(self, first: int, count: int) -> list[bytes]:
        pieces = []
        for index, row in enumerate(self.played(first, count), first):
            text = encode_ascii(row) if self._output != "binary" else b""
            binary = encode_binary(row, round(index * 1e9 / self.rate_hz)) if self._output != "ascii" else b""
            pieces.append(binary + text)
        return pieces


CASES = (
    Case(
        "imu.vectornav",
        {"baud": 921600, "rate_hz": 200},
        lambda link: VectornavEmulator(numbers(), 200, link, baud=921600),
        variant="ascii",
    ),
    Case(
        "imu.vectornav",
        {"baud": 921600, "rate_hz": 800, "output": "binary"},
        lambda link: VectornavEmulator(numbers(), 800, link, baud=921600, output="binary"),
        variant="binary",
    ),
)
