"""A microcontroller with our framing on a pseudo-terminal: transducer arrays and echo recorders, or lines of text."""

import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from drivers.lib.crc import crc16
from hil.emulators.case import Case, distances
from hil.emulators.serial_port import RowsEmulator

ECHO_TIMES, WAVEFORM = 1, 2
US_PER_S = 1_000_000


def encode_cobs(payload: bytes) -> bytes:
    """No zeros in it: each byte that counts says where the next zero was."""
    encoded = bytearray()
    for piece in payload.split(b"\0"):
        full = len(piece) - len(piece) % 254
        for begin in range(0, full, 254):
            encoded += b"\xff" + piece[begin : begin + 254]
        encoded += bytes([len(piece) - full + 1]) + piece[full:]
    return bytes(encoded)


def frame(kind: int, counter: int, tick_us: int, words: npt.NDArray[Any]) -> bytes:
    """On the wire, with the zero that ends it."""
    header = struct.pack("<BBHI", kind, 0, counter % (1 << 16), tick_us % (1 << 32))
    payload = header + words.astype("<u2" if kind == ECHO_TIMES else "<i2").tobytes()
    return encode_cobs(payload + crc16(payload).to_bytes(2, "big")) + b"\0"


class TickFrameEmulator(RowsEmulator):
    """A frame per row; the device's clock is at 0 when row 0 is measured, and its counter counts the rows."""

    def __init__(
        self, rows: npt.NDArray[Any], rate_hz: float, link: Path, *, kind: int = ECHO_TIMES, baud: int = 115200
    ) -> None:
        """``rows``: (n, transducers) us, or (n, samples)."""
        super().__init__(rows, link, rate_hz, baud, len(frame(kind, 1, 1, rows[0])))
        self._kind = kind

    def encode(self, first: int, count: int) -> list[bytes]:
        return [
            frame(self._kind, index, round(index * US_PER_S / self.rate_hz), row)
            for index, row in enumerate(self.played(first, count), first)
        ]


class TextArrayEmulator(RowsEmulator):
    """A line per row: ``csv``, ``labelled`` or ``json`` with milliseconds."""

    def __init__(
        self, rows: npt.NDArray[Any], rate_hz: float, link: Path, *, style: Literal["csv", "labelled", "json"] = "csv"
    ) -> None:
        super().__init__(rows, link, rate_hz, 115200, 8 * rows.shape[1])
        self._style = style

    def encode(self, first: int, count: int) -> list[bytes]:
        lines = []
        for index, row in enumerate(self.played(first, count), first):
            fields = [str(value) for value in row.tolist()]
            if self._style == "csv":
                line = ",".join(fields)
            elif self._style == "labelled":
                line = " ".join(f"S{number}:{field}" for number, field in enumerate(fields, 1))
            else:
                line = f'{{"t":{round(index * 1000 / self.rate_hz)},"d":[{",".join(fields)}]}}'
            lines.append(line.encode() + b"\r\n")
        return lines


def _echoes() -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).integers(-32768, 32768, (50, 1500)).astype(np.int16)


CASES = (
    Case(
        "ultrasonic.array",
        {"baud": 115200, "rate_hz": 100, "transducers": 24},
        lambda link: TickFrameEmulator(distances(24), 100, link),
        variant="binary",
    ),
    Case(
        "ultrasonic.array",
        {"baud": 115200, "rate_hz": 20, "transducers": 24, "format": "text", "unit": "mm"},
        lambda link: TextArrayEmulator(distances(24), 20, link),
        variant="text",
    ),
    Case(
        "ultrasonic.echo",
        {"baud": 921600, "rate_hz": 20},
        lambda link: TickFrameEmulator(_echoes(), 20, link, kind=WAVEFORM, baud=921600),
    ),
)
