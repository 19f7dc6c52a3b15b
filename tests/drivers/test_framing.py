from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.lib.framing import FrameFormat, FrameScanner, sum8

SHORT = FrameFormat(header=((0x55, 0x55), (0x50, 0x5F)), length=5, checksum=sum8(0, 4))
LATE_SUM = FrameFormat(header=((0xAA, 0xAA), (0xAA, 0xAA)), length=7, checksum=sum8(2, 6))


def byte_by_byte(fmt: FrameFormat, first_summed: int, stream: bytes) -> tuple[list[tuple[bytes, int]], int, int]:
    """The rule in its plainest form: at each position take a whole valid frame, or go on by one byte."""
    frames, bad, skipped, at = [], 0, 0, 0
    while at < len(stream):
        head = stream[at : at + len(fmt.header)]
        is_head = all(low <= value <= high for value, (low, high) in zip(head, fmt.header, strict=False))
        if is_head and at + fmt.length > len(stream):
            break
        frame = stream[at : at + fmt.length]
        if is_head and sum(frame[first_summed:-1]) & 0xFF == frame[-1]:
            frames.append((frame, at + fmt.length))
            at += fmt.length
            continue
        bad += is_head
        skipped += 1
        at += 1
    return frames, bad, skipped


def scan(fmt: FrameFormat, stream: bytes, cuts: list[int]) -> tuple[list[tuple[bytes, int]], int, int]:
    scanner = FrameScanner(fmt)
    frames = []
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for begin, end in pairwise(edges):
        found = scanner.feed(stream[begin:end])
        frames += [(row.tobytes(), int(at)) for row, at in zip(found.data, found.ends, strict=True)]
    return frames, scanner.bad_checksums, scanner.skipped_bytes


def frame(body: bytes) -> bytes:
    return body + bytes([sum(body) & 0xFF])


PAYLOAD = st.one_of(st.binary(min_size=2, max_size=2), st.sampled_from([b"\x55\x50", b"\x00\x55"]))
"""Payloads contain header bytes more often than chance would have it."""
pieces = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.tuples(st.integers(0x50, 0x5F), PAYLOAD).map(lambda t: frame(bytes([0x55, t[0]]) + t[1])),
        st.sampled_from([b"\x55", b"\x55\x50", b"\x55\x55\x55\x50", b"\x55\x50\x55\x51", b"\xaa\xaa\xaa"]),
        st.binary(min_size=4, max_size=4).map(lambda b: b"\xaa\xaa" + frame(b)),
    ),
    max_size=30,
).map(b"".join)


@pytest.mark.parametrize(("fmt", "first_summed"), [(SHORT, 0), (LATE_SUM, 2)])
@given(stream=pieces, cuts=st.lists(st.integers(0, 400), max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_chunking_finds_what_a_byte_by_byte_reader_finds(
    fmt: FrameFormat, first_summed: int, stream: bytes, cuts: list[int]
) -> None:
    assert scan(fmt, stream, cuts) == byte_by_byte(fmt, first_summed, stream)


def test_a_frame_inside_a_damaged_frame_is_found() -> None:
    inner = frame(b"\x55\x51\x01\x02")
    frames, bad, skipped = scan(SHORT, b"\x55\x50" + inner, [])
    assert frames == [(inner, 7)]
    assert (bad, skipped) == (1, 2)


def test_a_header_inside_the_last_frame_begins_nothing() -> None:
    whole = frame(b"\x55\x50\x55\x50")
    frames, bad, skipped = scan(SHORT, whole + whole, [5])
    assert [at for _, at in frames] == [5, 10]
    assert (bad, skipped) == (0, 0)


def test_memory_stays_below_one_frame_whatever_comes() -> None:
    scanner = FrameScanner(SHORT)
    rng = np.random.default_rng(0)
    for _ in range(200):
        scanner.feed(rng.choice([0x55, 0x50, 0xA5], 1000).astype(np.uint8).tobytes())
        assert len(scanner._rest) < SHORT.length
    assert scanner.position == 200_000
