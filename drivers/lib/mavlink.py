"""MAVLink 1 and 2 frames in a stream, by a dialect's table of messages.

v1: ``FE len seq system component id payload CRC``; v2: ``FD len incompatible compatible seq system component id(3)
payload CRC [13 bytes signature]``, little-endian. The CRC-16 also covers one byte of each message's definition.
Source: MAVLink guide, packet serialization.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from drivers.lib.crc import crc16_reflected
from drivers.lib.framing import U8, Offsets
from drivers.lib.framing_variable import MORE, NO_FRAME, Spans

V1, V2 = 0xFE, 0xFD
V1_HEAD, V2_HEAD, CRC_BYTES, SIGNATURE_BYTES = 6, 10, 2, 13
SIGNED = 1


class MavlinkFormat:
    """For ``VariableScanner``. Messages that the dialect does not know cannot be checked, so they are no frames."""

    def __init__(self, messages: Mapping[int, tuple[int, int]]) -> None:
        """``messages``: id -> (checksum byte of its definition, longest payload)."""
        self._ids = np.array(sorted(messages), np.int64)
        self._extra = [bytes([messages[i][0]]) for i in self._ids.tolist()]
        self._longest = np.array([messages[i][1] for i in self._ids.tolist()], np.int64)

    def candidates(self, data: U8) -> Offsets:
        return np.flatnonzero((data == V1) | (data == V2))

    def lengths(self, data: U8, starts: Offsets) -> Offsets:
        padded = np.concatenate([data, np.zeros(V2_HEAD, np.uint8)])
        left = len(data) - starts
        is_v2 = data[starts] == V2
        flags = padded[starts + 2]
        payload = padded[starts + 1].astype(np.int64)
        head = np.where(is_v2, V2_HEAD, V1_HEAD)
        signature = np.where(is_v2 & (flags == SIGNED), SIGNATURE_BYTES, 0)
        ids = message_ids(padded, starts)
        place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        possible = (self._ids[place] == ids) & (payload <= self._longest[place])
        unreadable = is_v2 & (left > 2) & (flags > SIGNED)
        no_frame = unreadable | ((left >= head) & ~possible)
        lengths = np.where(left >= head, head + payload + CRC_BYTES + signature, MORE)
        return np.where(no_frame, NO_FRAME, lengths)

    def check(self, data: U8, starts: Offsets, lengths: Offsets) -> npt.NDArray[np.bool_]:
        stream = data.tobytes()
        place = np.searchsorted(self._ids, message_ids(data, starts)).tolist()
        head = np.where(data[starts] == V2, V2_HEAD, V1_HEAD)
        ends = (starts + head + data[starts + 1]).tolist()
        # A C function for each message of tens of bytes costs less than a numpy step for each of their columns.
        return np.array(
            [
                crc16_reflected(stream[start + 1 : end] + self._extra[which]) == stream[end] | stream[end + 1] << 8
                for start, end, which in zip(starts.tolist(), ends, place, strict=True)
            ],
            np.bool_,
        )


def message_ids(data: U8, starts: Offsets) -> Offsets:
    """The message id of each frame (its whole header is in ``data``)."""
    is_v2 = data[starts] == V2
    low = data[starts + np.where(is_v2, 7, 5)].astype(np.int64)
    last = len(data) - 1
    middle, high = (data[np.minimum(starts + i, last)].astype(np.int64) for i in (8, 9))
    ids: Offsets = np.where(is_v2, low | middle << 8 | high << 16, low)
    return ids


def senders(spans: Spans) -> tuple[Offsets, Offsets]:
    """(k,) system and component as 256 * system + component, and (k,) sequence numbers."""
    at = spans.starts + np.where(spans.data[spans.starts] == V2, 4, 2)
    system, component = (spans.data[at + i].astype(np.int64) for i in (1, 2))
    return 256 * system + component, spans.data[at].astype(np.int64)


def payloads(spans: Spans, which: npt.NDArray[np.intp], size: int) -> U8:
    """(n, size) payloads of the frames ``which``: zeros that v2 has cut are put back, what is longer is cut."""
    head = np.where(spans.data[spans.starts] == V2, V2_HEAD, V1_HEAD)
    ends = head + spans.data[spans.starts + 1]
    at = spans.starts[which, None] + head[which, None] + np.arange(size)
    within = head[which, None] + np.arange(size) < ends[which, None]
    table: U8 = np.where(within, spans.data[np.minimum(at, max(0, len(spans.data) - 1))], np.uint8(0))
    return table
