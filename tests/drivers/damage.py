"""What a bad wire does to a stream of frames, and what a parser may make of it."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from drivers.base import Driver
from drivers.lib.framing import FrameFormat
from drivers.lib.serial_sensor import Parser
from drivers.lib.timeline import Rows
from drivers.packet import Packet

START_NS = 9_000_000_000
BEFORE = 3


def vectors(data_dir: Path, *protocols: str) -> list[dict]:
    every = json.loads((data_dir / "protocol_vectors" / "vectors.json").read_text())
    found = [vector for vector in every if vector["protocol"] in protocols]
    assert found
    return found


def raw_bytes(vector: dict) -> bytes:
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    return vector["text"].replace("\\r", "\r").replace("\\n", "\n").encode()


def feed(parser: Parser, stream: bytes, chunk: int = 10_000) -> np.ndarray:
    """Every row that the stream gives, as one array."""
    parts = [parser.feed(stream[i : i + chunk], START_NS + i) for i in range(0, len(stream), chunk)]
    return np.concatenate([part.values for part in parts])


def check_rows(rows: Rows) -> None:
    assert len(rows.values) == len(rows.ticks) == len(rows.left_ns) == len(rows.missing)
    assert rows.values.dtype.kind == "i"
    assert (np.diff(rows.left_ns) >= 0).all()
    assert (rows.missing >= -1).all()


def damaged(frame: bytes) -> Iterator[bytes]:
    """Each bit flipped; 1 to 3 bytes dropped, or doubled, at each place."""
    for at in range(len(frame)):
        for bit in range(8):
            yield frame[:at] + bytes([frame[at] ^ 1 << bit]) + frame[at + 1 :]
    for count in (1, 2, 3):
        for at in range(len(frame) - count + 1):
            yield frame[:at] + frame[at + count :]
            yield frame[: at + count] + frame[at:]


def check_damage(
    make: Callable[[], Parser], frame: bytes, hold_bytes: int, blind: Callable[[bytes], bool] = lambda _: False
) -> None:
    """One of many equal frames is damaged in every way: only the true row comes out, and at most two rows are lost.

    ``hold_bytes``: the most that a damaged length can make a parser wait for. ``blind``: whether a damaged frame is one
    that the protocol's own checksum accepts.
    """
    after = hold_bytes // len(frame) + 4
    whole = feed(make(), frame * (BEFORE + 1 + after))
    seen = 0
    for bad in damaged(frame):
        rows = feed(make(), frame * BEFORE + bad + frame * after)
        assert blind(bad) or (rows == whole[-1]).all(), bad.hex(" ")
        assert len(rows) >= len(whole) - 3, bad.hex(" ")
        seen += 1
    assert seen > 8 * len(frame)


def blind_sum(frame_format: FrameFormat, frame: bytes) -> Callable[[bytes], bool]:
    """Whether between two true ``frame`` (one or several of the format) damaged ones hold a false one that adds up."""
    size = frame_format.length
    true = {frame[at : at + size] for at in range(0, len(frame), size)}

    def blind(bad: bytes) -> bool:
        stream = np.frombuffer(frame + bad + frame, np.uint8)
        starts = np.arange(len(stream) - size + 1)
        headed = np.ones(len(starts), np.bool_)
        for at, (low, high) in enumerate(frame_format.header):
            headed &= (stream[starts + at] >= low) & (stream[starts + at] <= high)
        found = starts[headed & frame_format.checksum(stream, starts)]
        return any(stream[at : at + size].tobytes() not in true for at in found)

    return blind


def passes_xor(line: bytes) -> bool:
    """Whether some part of the damaged bytes is a VectorNav message whose XOR holds."""
    for match in re.finditer(rb"\$(VN[ -)+-~]*)\*([0-9A-Fa-f]{2})\r\n", line):
        total = 0
        for byte in match[1]:
            total ^= byte
        if total == int(match[2], 16):
            return True
    return False


def check_splits(make: Callable[[], Parser], frame: bytes) -> None:
    """A stream that is cut anywhere, or into single bytes, gives the same rows and counts as one piece."""
    stream = frame[len(frame) // 2 :] + frame * 3
    whole = make()
    expected = feed(whole, stream)
    assert len(expected) >= 2
    for at in range(len(stream)):
        parser = make()
        parts = [parser.feed(stream[:at], START_NS).values, parser.feed(stream[at:], START_NS + 1).values]
        assert np.array_equal(np.concatenate(parts), expected)
        assert parser.tally().tolist() == whole.tally().tolist()
    single = make()
    assert np.array_equal(feed(single, stream, 1), expected)
    assert single.tally().tolist() == whole.tally().tolist()


def read_until(driver: Driver, done: Callable[[list[Packet]], bool], deadline_s: float = 10.0) -> list[Packet]:
    """Packets of an open driver until ``done``; fails the test after the deadline."""
    packets: list[Packet] = []
    end = time.monotonic() + deadline_s
    while not done(packets):
        if time.monotonic() > end:
            pytest.fail(f"not done after {deadline_s} s; {len(packets)} packets, {driver.counters}")
        packet = driver.read(0.2)
        if packet is not None:
            packets.append(packet)
    return packets


def samples(packets: list[Packet]) -> int:
    return sum(len(packet.data) for packet in packets)


def check_losses(packets: list[Packet], indices: list[int]) -> None:
    """``indices``: which row of the emulator each packet begins with; they agree with lengths and losses."""
    expected = indices[0] + np.cumsum([len(p.data) for p in packets[:-1]]) + np.cumsum([p.lost for p in packets[1:]])
    assert indices[1:] == expected.tolist()


def row_index(packet: Packet, rows: np.ndarray) -> int:
    """Which of the emulator's rows (in the driver's integers) a packet begins with."""
    (found,) = np.flatnonzero((rows == packet.data[0]).all(axis=1))
    return int(found)
