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


def _constant(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    values.flags.writeable = False
    return values


def _field_bytes() -> Offsets:
    """(2, groups, 256): bytes of the fields that a low or high byte of field bits stands for."""
    # A field that is not known makes the message longer than any can be.
    sizes = [(*known, *[MAX_BINARY_BYTES] * (16 - len(known))) for known in GROUPS.values()]
    bits = np.arange(256) >> np.arange(8)[:, None] & 1
    return _constant(np.array(sizes).reshape(-1, 2, 8).swapaxes(0, 1) @ bits)


_FIELD_BYTES = _field_bytes()
_PRESENT = _constant(np.arange(256)[:, None] >> np.array(list(GROUPS)) & 1)
"""(256, groups): by group byte, which groups a message has."""
_BITS_AT = _constant(2 + 2 * (np.cumsum(_PRESENT, axis=1) - _PRESENT))
"""(256, groups): where in the message their field bits are."""
PAYLOAD_AT = _constant(2 + 2 * _PRESENT.sum(axis=1))
"""(256,) by group byte of known groups: where the field bits end and the payload begins."""
_HEX = np.full(256, -1, np.int64)
_HEX[np.frombuffer(b"0123456789ABCDEF", np.uint8)] = np.arange(16)
_HEX[np.frombuffer(b"abcdef", np.uint8)] = np.arange(10, 16)
_constant(_HEX)


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
        text |= data == BINARY
        return np.flatnonzero(text)

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
        if not text.all():
            correct[~text] = _binary_correct(data, starts[~text], (starts + lengths)[~text])
        return correct


def _binary_correct(data: U8, starts: Offsets, ends: Offsets) -> list[bool]:
    stream = data.tobytes()
    # A C function for each message of tens of bytes costs less than a numpy step for each of their columns.
    return [crc16(stream[start + 1 : end]) == 0 for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _ascii_correct(data: U8, starts: Offsets, ends: Offsets) -> npt.NDArray[np.bool_]:
    star = data[ends - 5] == STAR
    high, low = _HEX[data[ends - 4]], _HEX[data[ends - 3]]
    # Every other piece is a message, from behind its $ to its *.
    pieces = np.empty(2 * len(starts), np.int64)
    pieces[::2], pieces[1::2] = starts + 1, ends - 5
    xor = np.bitwise_xor.reduceat(data, pieces)[::2]
    correct: npt.NDArray[np.bool_] = star & (high >= 0) & (low >= 0) & (xor == 16 * high + low)
    for index in np.flatnonzero(~star & (data[ends - 7] == STAR)).tolist():
        text, digits = data[starts[index] + 1 : ends[index] - 7].tobytes(), data[ends[index] - 6 : ends[index] - 2]
        correct[index] = digits.tobytes().upper() == b"%04X" % crc16(text)
    return correct


def _binary_lengths(data: U8, starts: Offsets) -> Offsets:
    padded = np.concatenate([data, np.zeros(2 + 2 * len(GROUPS), np.uint8)])
    groups = padded[starts + 1]
    # Much of the time goes into these tables, and ``take`` is faster than an index.
    payload_at, present = PAYLOAD_AT.take(groups), _PRESENT.take(groups, axis=0)
    bits_at = starts[:, None] + _BITS_AT.take(groups, axis=0)
    low, high = padded[bits_at], padded[bits_at + 1]
    each = 256 * np.arange(len(GROUPS))
    sizes = _FIELD_BYTES[0].take(low + each) + _FIELD_BYTES[1].take(high + each)
    lengths = payload_at + (present * sizes).sum(axis=1) + 2
    # Bits that are still to come read as 0 here: only what is there can be impossible.
    empty = (present > 0) & (low | high == 0) & (bits_at + 2 <= len(data))
    possible = (groups & _UNKNOWN_GROUPS == 0) & (groups > 0) & (lengths <= MAX_BINARY_BYTES) & ~empty.any(axis=1)
    more = (starts + 2 > len(data)) | (possible & (starts + payload_at > len(data)))
    return np.where(more, MORE, np.where(possible, lengths, NO_FRAME))


def _ascii_lengths(data: U8, starts: Offsets) -> Offsets:
    breaks = np.concatenate([np.flatnonzero(data - np.uint8(0x20) > 0x5E), [len(data)]])
    first = breaks[np.searchsorted(breaks, starts)]
    lengths = first + 2 - starts
    padded = np.concatenate([data, np.zeros(2, np.uint8)])
    is_line = (padded[first] == 0x0D) & (padded[first + 1] == 0x0A) & (lengths >= 11)
    open_end = (first == len(data)) | ((padded[first] == 0x0D) & (first + 1 == len(data)))
    told = np.where(open_end, MORE, np.where(is_line, lengths, NO_FRAME))
    return np.where(lengths > MAX_ASCII_BYTES, NO_FRAME, told)
