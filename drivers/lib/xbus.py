"""Xbus, the protocol of Xsens MTi sensors: messages, their scanner, and the items of an MTData2 message.

``FA FF MID LEN data CS``, or LEN = FF and a big-endian u16 length; the sum of all bytes behind FA is 0 modulo 256.
MTData2 data are items ``u16 id, u8 size, data``, big-endian, in any order. Source: MT Low-Level Communication Protocol.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.lib.framing import U8, Offsets
from drivers.lib.framing_variable import MORE, NO_FRAME

PREAMBLE, BUS_ID = 0xFA, 0xFF
EXTENDED = 0xFF
MAX_DATA_BYTES = 512
"""The protocol allows 2048. All items of an MTi need less than this, and a damaged length makes us wait as long."""
WAKE_UP, GO_TO_CONFIG, GO_TO_MEASUREMENT, SET_OUTPUT, ERROR, MTDATA2 = 0x3E, 0x30, 0x10, 0xC0, 0x42, 0x36
RESET, DEVICE_ID, INIT, FIRMWARE = 0x40, 0x00, 0x02, 0x12
_FROM_SENSOR = (WAKE_UP, ERROR, MTDATA2, *(mid + 1 for mid in (GO_TO_CONFIG, GO_TO_MEASUREMENT, SET_OUTPUT)))
KNOWN = np.isin(np.arange(256), (*_FROM_SENSOR, *(mid + 1 for mid in (RESET, DEVICE_ID, INIT, FIRMWARE))))
"""What a sensor may send; fewer headers in payloads are mistaken for one."""


def message(mid: int, data: bytes = b"") -> bytes:
    """A whole message with up to 512 bytes of data."""
    short = len(data) < EXTENDED
    length = bytes([len(data)]) if short else bytes([EXTENDED]) + len(data).to_bytes(2, "big")
    body = bytes([BUS_ID, mid]) + length + data
    return bytes([PREAMBLE]) + body + bytes([-sum(body) & 0xFF])


class XbusFormat:
    """For ``VariableScanner``."""

    def candidates(self, data: U8) -> Offsets:
        found = data == PREAMBLE
        found[:-1] &= data[1:] == BUS_ID
        found[:-2] &= KNOWN[data[2:]]
        return np.flatnonzero(found)

    def lengths(self, data: U8, starts: Offsets) -> Offsets:
        padded = np.concatenate([data, np.zeros(6, np.uint8)]).astype(np.int64)
        short, extended = padded[starts + 3], 256 * padded[starts + 4] + padded[starts + 5]
        left = len(data) - starts
        lengths = np.where(left > 3, short + 5, MORE)
        long = np.where(extended <= MAX_DATA_BYTES, extended + 7, NO_FRAME)
        return np.where((left > 3) & (short == EXTENDED), np.where(left > 5, long, MORE), lengths)

    def check(self, data: U8, starts: Offsets, lengths: Offsets) -> npt.NDArray[np.bool_]:
        total = np.concatenate([np.zeros(1, np.uint8), np.cumsum(data, dtype=np.uint8)])
        correct: npt.NDArray[np.bool_] = total[starts + lengths] == total[starts + 1]
        return correct


def data_offset(head: bytes) -> int:
    """Where the data of a message with these first bytes begin."""
    return 6 if head[3] == EXTENDED else 4


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the items of an MTData2 message lie."""

    items: dict[int, tuple[int, int]]
    """id -> (offset in the message, size)."""
    heads: npt.NDArray[np.intp]
    """Offsets of every byte that tells ids and sizes: messages that agree in them have this layout."""
    complete: bool
    """False where the last item reaches behind the end of the data."""


def layout_of(packet: bytes) -> Layout:
    """The items of one whole MTData2 message; takes any bytes."""
    at, end = data_offset(packet), len(packet) - 1
    items: dict[int, tuple[int, int]] = {}
    heads = list(range(2, at))
    while at + 3 <= end and at + 3 + packet[at + 2] <= end:
        items[256 * packet[at] + packet[at + 1]] = at + 3, packet[at + 2]
        heads += [at, at + 1, at + 2]
        at += 3 + packet[at + 2]
    if at < end:
        heads += range(at, min(at + 3, end))
    return Layout(items, np.array(heads, np.intp), at == end)
