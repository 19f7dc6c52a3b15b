"""The scanner for frames with their own length, against the rule in its plainest form."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.lib import xbus
from drivers.lib.crc import crc16, crc16_reflected
from drivers.lib.framing import U8, Offsets
from drivers.lib.framing_variable import MORE, NO_FRAME, Spacing, VariableScanner

Found = tuple[list[tuple[bytes, int]], int, int]
LONGEST = 20


class Toy:
    """``7E LEN payload SUM`` with at most 20 bytes in all."""

    def candidates(self, data: U8) -> Offsets:
        return np.flatnonzero(data == 0x7E)

    def lengths(self, data: U8, starts: Offsets) -> Offsets:
        told = np.concatenate([data, np.zeros(1, np.uint8)])[starts + 1].astype(np.int64) + 3
        return np.where(starts + 1 < len(data), np.where(told <= LONGEST, told, NO_FRAME), MORE)

    def check(self, data: U8, starts: Offsets, lengths: Offsets) -> np.ndarray:
        spans = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
        return np.array([sum(data[a : b - 1].tolist()) & 0xFF == data[b - 1] for a, b in spans], np.bool_)


def frame(payload: bytes) -> bytes:
    body = bytes([0x7E, len(payload)]) + payload
    return body + bytes([sum(body) & 0xFF])


def byte_by_byte(stream: bytes) -> Found:
    frames, bad, skipped, at = [], 0, 0, 0
    while at < len(stream):
        if stream[at] == 0x7E:
            if at + 1 == len(stream):
                break
            length = stream[at + 1] + 3
            whole = stream[at : at + length]
            if length <= LONGEST and len(whole) < length:
                break
            if length <= LONGEST and sum(whole[:-1]) & 0xFF == whole[-1]:
                frames.append((whole, at + length))
                at += length
                continue
            bad += length <= LONGEST
        skipped += 1
        at += 1
    return frames, bad, skipped


def scan(stream: bytes, cuts: list[int]) -> Found:
    scanner = VariableScanner(Toy())
    frames = []
    for begin, end in pairwise([0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]):
        spans = scanner.feed(stream[begin:end])
        for index in range(len(spans)):
            length = int(spans.lengths[index])
            frames.append((spans.table(np.array([index]), 0, length).tobytes(), int(spans.ends[index])))
            assert spans.skipped[index] == spans.ends[index] - sum(len(whole) for whole, _ in frames)
        assert len(scanner._rest) < LONGEST
    assert scanner.frames == len(frames)
    return frames, scanner.bad_checksums, scanner.skipped_bytes


pieces = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.binary(max_size=17).map(frame),
        st.lists(st.sampled_from([0x7E, 0, 1, 2, 17, 18]), max_size=17).map(bytes).map(frame),
        st.lists(st.sampled_from([0x7E, 0, 1, 2, 17, 18]), max_size=12).map(bytes),
    ),
    max_size=30,
).map(b"".join)


@given(stream=pieces, cuts=st.lists(st.integers(0, 400), max_size=12))
@settings(max_examples=400, deadline=None)
def test_any_chunking_finds_what_a_byte_by_byte_reader_finds(stream: bytes, cuts: list[int]) -> None:
    assert scan(stream, cuts) == byte_by_byte(stream)


def test_what_lies_behind_a_candidate_that_is_still_open_waits() -> None:
    inner = frame(b"ab")
    scanner = VariableScanner(Toy())
    assert len(scanner.feed(b"\x7e\x11" + inner)) == 0
    assert len(scanner.feed(bytes(20))) == 1
    assert scanner.bad_checksums == 1


def test_a_table_is_filled_with_zeros_behind_short_frames() -> None:
    spans = VariableScanner(Toy()).feed(frame(b"a") + frame(b"bcd"))
    table = spans.table(np.array([0, 1]), 2, 5)
    assert table[0].tolist() == [ord("a"), frame(b"a")[-1], 0, 0, 0]
    assert table[1].tolist() == [*b"bcd", frame(b"bcd")[-1], 0]


def test_published_check_values_of_the_checksums() -> None:
    assert crc16(b"123456789") == 0x31C3
    assert crc16_reflected(b"123456789") == 0x6F91


def test_damage_takes_the_rows_that_would_fit_into_its_place() -> None:
    spacing = Spacing(10)
    every = np.ones(3, np.bool_)
    assert spacing.missing(np.array([17, 27, 37]), np.array([7, 7, 7]), every).tolist() == [0, 0, 0]
    assert spacing.missing(np.array([57, 67, 90]), np.array([17, 17, 30]), every).tolist() == [1, 0, 1]
    assert spacing.row_bytes == 10


def test_rows_that_cannot_be_used_are_missing_before_the_next_that_can() -> None:
    spacing = Spacing(10)
    usable = np.array([True, False, False])
    assert spacing.missing(np.array([10, 20, 30]), np.zeros(3, np.int64), usable).tolist() == [0]
    assert spacing.missing(np.array([40]), np.zeros(1, np.int64), np.array([False])).tolist() == []
    assert spacing.missing(np.array([50]), np.zeros(1, np.int64), np.array([True])).tolist() == [3]


@pytest.mark.parametrize("size", [0, 1, 254, 255, 512])
def test_xbus_messages_of_every_length_are_found(size: int) -> None:
    scanner = VariableScanner(xbus.XbusFormat())
    packet = xbus.message(xbus.MTDATA2, bytes(size))
    assert scanner.feed(packet * 2).lengths.tolist() == [len(packet)] * 2
    assert (scanner.bad_checksums, scanner.skipped_bytes) == (0, 0)
