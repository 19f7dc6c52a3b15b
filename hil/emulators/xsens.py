"""An Xsens MTi on a pseudo-terminal: configuration mode, output configuration, and MTData2 messages."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hil.emulators.case import Case, numbers
from hil.emulators.serial_port import RowsEmulator

MESSAGE_BYTES = 54
GO_TO_CONFIG, GO_TO_MEASUREMENT, SET_OUTPUT, ERROR = 0x30, 0x10, 0xC0, 0x42
INVALID_MESSAGE = 4


def message(mid: int, data: bytes) -> bytes:
    """``FA FF MID LEN data CS`` of up to 254 bytes of data."""
    body = bytes([0xFF, mid, len(data)]) + data
    return b"\xfa" + body + bytes([-sum(body) & 0xFF])


def encode(rows: npt.NDArray[np.float32], first: int, rate_hz: float, status: int = 3) -> list[bytes]:
    """MTData2 of (n, 6) float32 m/s2 and rad/s: packet counter, SampleTimeFine, acceleration, rate of turn, status."""
    count = np.arange(first, first + len(rows))
    table = np.zeros((len(rows), MESSAGE_BYTES), np.uint8)
    table[:, :4] = (0xFA, 0xFF, 0x36, MESSAGE_BYTES - 5)
    table[:, 4:7], table[:, 7:9] = (0x10, 0x20, 2), (count % 65536).astype(">u2")[:, None].view(np.uint8)
    ticks = ((count * 10_000) / rate_hz).astype(np.int64) % (1 << 32)
    table[:, 9:12], table[:, 12:16] = (0x10, 0x60, 4), ticks.astype(">u4")[:, None].view(np.uint8)
    numbers = np.ascontiguousarray(rows).astype(">f4").view(np.uint8)
    table[:, 16:19], table[:, 19:31] = (0x40, 0x20, 12), numbers[:, :12]
    table[:, 31:34], table[:, 34:46] = (0x80, 0x20, 12), numbers[:, 12:]
    table[:, 46:49] = (0xE0, 0x20, 4)
    table[:, 49:53] = np.frombuffer(status.to_bytes(4, "big"), np.uint8)
    table[:, -1] = -table[:, 1:-1].sum(axis=1, dtype=np.uint8)
    return [packet.tobytes() for packet in table]


class XsensEmulator(RowsEmulator):
    """Plays (n, 6) float32 rows once it is told to measure, at the rate that its own setting has.

    It measures after power-on, as real ones do. Set-up commands are answered in configuration mode only.
    """

    listens = True

    def __init__(self, rows: npt.NDArray[np.float32], rate_hz: float, link: Path, *, baud: int = 115200) -> None:
        super().__init__(rows, link, rate_hz, baud, MESSAGE_BYTES)
        self.measures = True
        self.status = 3
        self.offered_hz = round(rate_hz)
        """What it answers for every rate that it is asked for."""
        self._request = b""

    def encode(self, first: int, count: int) -> list[bytes]:
        if not self.measures:
            return []
        return encode(self.played(first, count), first, self.rate_hz, self.status)

    def answer(self, request: bytes) -> bytes:
        self._request = (self._request + request)[-4096:]
        reply = b""
        while (begin := self._request.find(b"\xfa\xff")) >= 0:
            whole = self._request[begin:]
            if len(whole) < 4 or len(whole) < whole[3] + 5:
                break
            packet, self._request = whole[: whole[3] + 5], whole[whole[3] + 5 :]
            if sum(packet[1:]) & 0xFF == 0:
                reply += self._reply(packet[2], packet[4:-1])
        return reply

    def _reply(self, mid: int, data: bytes) -> bytes:
        if mid == GO_TO_CONFIG:
            self.measures = False
            return message(mid + 1, b"")
        if self.measures:
            return b""
        if mid == GO_TO_MEASUREMENT:
            self.measures = True
            return message(mid + 1, b"")
        if mid == SET_OUTPUT:
            offered = self.offered_hz.to_bytes(2, "big")
            items = [data[at : at + 4] for at in range(0, len(data), 4)]
            return message(mid + 1, b"".join(i if i[2:] == b"\xff\xff" else i[:2] + offered for i in items))
        return message(ERROR, bytes([INVALID_MESSAGE]))


CASES = (
    Case(
        "imu.xsens",
        {"baud": 921600, "rate_hz": 400},
        lambda link: XsensEmulator(numbers(), 400, link, baud=921600),
    ),
)
