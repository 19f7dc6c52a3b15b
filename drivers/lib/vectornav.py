"""The two kinds of messages that VectorNav sensors mix on one port, and where the fields of the binary ones lie.

ASCII ``$VNxxx,fields*CS`` CR LF: CS is the XOR (2 hex digits) or the CRC-16 (4) of what lies between $ and *. Binary
``FA groups fields.. payload CRC16``, a u16 of field bits per set group bit, little-endian but for the CRC. The length
of a binary message follows from its bits alone. Source: VN-100 user manual, sections 5.2 and 5.3.
"""

import numpy as np
import numpy.typing as npt

from drivers.lib.crc import crc16
from drivers.lib.framing import U8, Offsets
from drivers.lib.framing_variable import MORE, NO_FRAME

BINARY, ASCII, STAR = 0xFA, ord("$"), ord("*")
MAX_ASCII_BYTES, MAX_BINARY_BYTES = 256, 600
COMMON, IMU = 0, 2
GROUPS = {
    COMMON: (8, 8, 8, 12, 16, 12, 24, 12, 12, 24, 20, 28, 2, 4, 8),
    1: (8, 8, 8, 2, 8, 8, 8, 4, 4, 1),
    IMU: (2, 12, 12, 12, 4, 4, 16, 12, 12, 12, 12, 2, 40),
    4: (2, 12, 16, 36, 12, 12, 12, 12, 12, 12, 28, 24),
    5: (2, 24, 24, 12, 12, 12, 12, 12, 12, 4, 4, 68, 64),
}
"""Bytes of each field, by group bit. Groups 3 and 6 (GPS) differ between versions: they cannot be measured."""
_UNKNOWN_GROUPS = 0xFF & ~sum(1 << group for group in GROUPS)
_SIZES = {group: np.array(sizes + (0,) * (16 - len(sizes))) for group, sizes in GROUPS.items()}
_HEX = np.full(256, -1, np.int64)
_HEX[np.frombuffer(b"0123456789ABCDEF", np.uint8)] = np.arange(16)
_HEX[np.frombuffer(b"abcdef", np.uint8)] = np.arange(10, 16)
_HEX.flags.writeable = False


def field_offsets(head: bytes) -> dict[tuple[int, int], int]:
    """(group, bit) -> offset in the message, from the first bytes of a whole binary message of known fields."""
    groups = [group for group in range(8) if head[1] >> group & 1]
    at = 2 + 2 * len(groups)
    offsets = {}
    for position, group in enumerate(groups):
        fields = head[2 + 2 * position] | head[3 + 2 * position] << 8
        for bit, size in enumerate(GROUPS[group]):
            if fields >> bit & 1:
                offsets[group, bit] = at
                at += size
    return offsets


class VectorNavFormat:
    """For ``VariableScanner``."""

    def candidates(self, data: U8) -> Offsets:
        text = data == ASCII
        text[:-1] &= data[1:] == ord("V")
        text[:-2] &= data[2:] == ord("N")
        return np.flatnonzero(text | (data == BINARY))

    def lengths(self, data: U8, starts: Offsets) -> Offsets:
        lengths = np.zeros(len(starts), np.int64)
        binary = data[starts] == BINARY
        if binary.any():
            lengths[binary] = _binary_lengths(data, starts[binary])
        if not binary.all():
            lengths[~binary] = _ascii_lengths(data, starts[~binary])
        return lengths

    def check(self, data: U8, starts: Offsets, lengths: Offsets) -> npt.NDArray[np.bool_]:
        correct = np.zeros(len(starts), np.bool_)
        text = data[starts] == ASCII
        if text.any():
            correct[text] = _ascii_correct(data, starts[text], (starts + lengths)[text])
        stream = data.tobytes()
        # A C function for each message of tens of bytes costs less than a numpy step for each of their columns.
        for index in np.flatnonzero(~text).tolist():
            correct[index] = crc16(stream[starts[index] + 1 : starts[index] + lengths[index]]) == 0
        return correct


def _ascii_correct(data: U8, starts: Offsets, ends: Offsets) -> npt.NDArray[np.bool_]:
    xor = np.concatenate([np.zeros(1, np.uint8), np.bitwise_xor.accumulate(data, dtype=np.uint8)])
    high, low = _HEX[data[ends - 4]], _HEX[data[ends - 3]]
    holds = (xor[ends - 5] ^ xor[starts + 1]) == 16 * high + low
    correct: npt.NDArray[np.bool_] = (data[ends - 5] == STAR) & (high >= 0) & (low >= 0) & holds
    for index in np.flatnonzero((data[ends - 5] != STAR) & (data[ends - 7] == STAR)).tolist():
        text, digits = data[starts[index] + 1 : ends[index] - 7].tobytes(), data[ends[index] - 6 : ends[index] - 2]
        correct[index] = digits.tobytes().upper() == b"%04X" % crc16(text)
    return correct


def _binary_lengths(data: U8, starts: Offsets) -> Offsets:
    padded = np.concatenate([data, np.zeros(2 + 2 * len(GROUPS), np.uint8)]).astype(np.int64)
    groups = padded[starts + 1]
    told = len(data) - starts
    at = starts + 2
    payload = np.zeros(len(starts), np.int64)
    possible = (groups & _UNKNOWN_GROUPS == 0) & (groups > 0)
    for group, sizes in _SIZES.items():
        present = groups >> group & 1 == 1
        if not present.any():
            continue
        fields = padded[np.minimum(at, len(padded) - 2)] | padded[np.minimum(at + 1, len(padded) - 1)] << 8
        bits = fields[:, None] >> np.arange(16) & 1
        known = (fields > 0) & (fields < 1 << len(GROUPS[group]))
        # Bits that are still to come read as 0 here: only what is there can be impossible.
        possible &= ~present | known | (at + 2 > len(data))
        payload += np.where(present, bits @ sizes, 0)
        at = at + 2 * present
    lengths = at - starts + payload + 2
    possible &= lengths <= MAX_BINARY_BYTES
    return np.where((told < 2) | (possible & (at > len(data))), MORE, np.where(possible, lengths, NO_FRAME))


def _ascii_lengths(data: U8, starts: Offsets) -> Offsets:
    breaks = np.concatenate([np.flatnonzero((data < 0x20) | (data > 0x7E)), [len(data)]])
    first = breaks[np.searchsorted(breaks, starts)]
    lengths = first + 2 - starts
    padded = np.concatenate([data, np.zeros(2, np.uint8)])
    is_line = (padded[first] == 0x0D) & (padded[first + 1] == 0x0A) & (lengths >= 11)
    open_end = (first == len(data)) | ((padded[first] == 0x0D) & (first + 1 == len(data)))
    told = np.where(open_end, MORE, np.where(is_line, lengths, NO_FRAME))
    return np.where(lengths > MAX_ASCII_BYTES, NO_FRAME, told)
