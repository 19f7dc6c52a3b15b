"""Frames of our microcontroller firmware (hil/firmware): COBS, a zero byte between them, CRC-16, counter and tick.

Before COBS a frame is little-endian ``u8 kind, u8 index, u16 counter, u32 tick_us``, words of 16 bits, and the CRC
(polynomial 0x1021, initial value 0) big-endian. The counter steps by one with each frame, the tick is the device's
clock when the frame's first sample was taken. Source for COBS: S. Cheshire and M. Baker, 1999.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.lib.clock import NS_PER_S, sent_ns
from drivers.lib.crc import crc16
from drivers.lib.framing import Offsets, steps_from
from drivers.lib.timeline import CLOCK_SLACK_NS, Rows, Timeline
from drivers.lib.watch import Still

ECHO_TIMES, WAVEFORM = 1, 2
"""Kinds of frames."""
HEADER = np.dtype([("kind", "u1"), ("index", "u1"), ("counter", "<u2"), ("tick_us", "<u4")])
CRC_BYTES = 2
COUNTERS = 1 << 16
TICK_HZ = 1_000_000
TICKS = 1 << 32


def decode_cobs(encoded: bytes) -> bytes | None:
    """What COBS hid the zeros of; None where it cannot be COBS."""
    decoded = bytearray()
    at = 0
    while at < len(encoded):
        code = encoded[at]
        if code == 0 or at + code > len(encoded):
            return None
        decoded += encoded[at + 1 : at + code]
        at += code
        if code < 0xFF and at < len(encoded):
            decoded.append(0)
    return bytes(decoded)


@dataclass(frozen=True, slots=True)
class Frame:
    payload: bytes
    """With the header, without the CRC."""
    start: int
    """Stream position of its first byte on the wire, counted from the first byte ever fed."""


class CobsScanner:
    """Incremental: any chunking of a stream gives the same frames and counts. Keeps at most one frame's bytes."""

    def __init__(self, longest: int) -> None:
        """``longest``: bytes of the longest payload with its CRC."""
        self.frames = 0
        """Frames with a correct CRC so far."""
        self.bad_checksums = 0
        """Pieces between two zero bytes that are no frame, apart from the one in which the stream begins."""
        self.skipped_bytes = 0
        """Bytes of them."""
        self.position = 0
        """Bytes fed so far."""
        self._limit = longest + 1 + longest // 254
        self._rest = b""
        self._dropped = 0
        self._begun = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next bytes of the stream; return the frames that they complete."""
        *pieces, rest = (self._rest + chunk).split(b"\0")
        start = self.position - len(self._rest)
        self.position += len(chunk)
        frames = []
        for piece in pieces:
            payload = decode_cobs(piece) if not self._dropped and len(piece) <= self._limit else None
            if payload is not None and len(payload) > CRC_BYTES and crc16(payload) == 0:
                frames.append(Frame(payload[:-CRC_BYTES], start))
            elif piece or self._dropped:
                self.bad_checksums += self._begun
                self.skipped_bytes += len(piece)
            self._begun, self._dropped = True, 0
            start += len(piece) + 1
        if self._dropped or len(rest) > self._limit:
            self._dropped += len(rest)
            self.skipped_bytes += len(rest)
            rest = b""
        self._rest = rest
        self.frames += len(frames)
        return frames


class TickFrameParser:
    """Frames of one kind and length to rows of words; others are valid, but not what is wanted."""

    def __init__(self, kind: int, words: npt.DTypeLike, count: int, baud: int, still: Still) -> None:
        """``words``: type of the 16-bit words, ``count``: how many a frame has. ``still`` watches the counter."""
        self._kind = kind
        self._words = np.dtype(words)
        self._integer = np.int32 if self._words.kind == "u" else np.int16
        self._payload_bytes = HEADER.itemsize + count * self._words.itemsize
        self._scanner = CobsScanner(max(255, self._payload_bytes + CRC_BYTES))
        self._count = count
        self._baud = baud
        self._still = still
        self._last_counter: int | None = None

    @property
    def row_bytes(self) -> int:
        return self._payload_bytes + CRC_BYTES + 2

    def tally(self) -> Offsets:
        scanner = self._scanner
        return np.array([scanner.frames, scanner.bad_checksums, scanner.skipped_bytes, 0])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """A frame whose counter repeats that of the one before is the same frame again and gives no row."""
        found = [
            frame
            for frame in self._scanner.feed(chunk)
            if len(frame.payload) == self._payload_bytes and frame.payload[0] == self._kind
        ]
        table = np.frombuffer(b"".join(frame.payload for frame in found), np.uint8).reshape(-1, self._payload_bytes)
        header = np.ascontiguousarray(table[:, : HEADER.itemsize]).view(HEADER).ravel()
        counter = header["counter"].astype(np.int64)
        last = self._last_counter
        if len(counter):
            self._still.update(counter[:, None])
            self._last_counter = int(counter[-1])
        steps = steps_from(counter[:1] - 1 if last is None else last, counter) % COUNTERS
        new = steps > 0
        values = np.ascontiguousarray(table[new, HEADER.itemsize :]).view(self._words).astype(self._integer)
        starts = np.array([frame.start for frame in found], np.int64)[new]
        left_ns = sent_ns(arrival_ns, self._scanner.position - starts, self._baud)
        return Rows(values, header["tick_us"].astype(np.int64)[new], left_ns, steps[new] - 1)


class TickTimeline(Timeline):
    """Times by the tick; losses by the counter, unless it was started anew."""

    def __init__(self, rate_hz: float) -> None:
        super().__init__(rate_hz, TICK_HZ, TICKS)
        self._row_ns = NS_PER_S / rate_hz

    def lost(self, by_time: Offsets, missing: Offsets, elapsed_ns: Offsets) -> Offsets:
        return np.where(missing * self._row_ns <= elapsed_ns + CLOCK_SLACK_NS, missing, by_time)
