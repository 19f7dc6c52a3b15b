"""COBS, CRC, counter and tick, without a port."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drivers.lib.tick_frames import (
    ECHO_TIMES,
    WAVEFORM,
    CobsScanner,
    TickFrameParser,
    TickTimeline,
    decode_cobs,
)
from drivers.lib.watch import Still
from drivers.packet import SensorCounters
from hil.emulators.tick_frames import encode_cobs, frame
from tests.drivers.damage import START_NS, check_damage, check_splits, feed

WORDS = np.array([1166, 0, 23300, 1])
FRAME = frame(ECHO_TIMES, 5, 123_456, WORDS)


def parser(count: int = 4, kind: int = ECHO_TIMES, words: str = "<u2") -> TickFrameParser:
    counters = SensorCounters()
    made = TickFrameParser(kind, words, count, 115200, Still("stuck_counter", "it stands", 20, counters))
    made.notes = counters.notes  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("plain", "encoded"),
    [
        ("", "01"),
        ("00", "0101"),
        ("0000", "010101"),
        ("11220033", "0311220233"),
        ("11223344", "0511223344"),
        ("11000000", "0211010101"),
        ("01" * 254, "ff" + "01" * 254),
        ("01" * 255, "ff" + "01" * 254 + "0201"),
    ],
)
def test_published_cobs_examples_decode(plain: str, encoded: str) -> None:
    assert decode_cobs(bytes.fromhex(encoded)) == bytes.fromhex(plain)


@given(st.binary(max_size=1000))
@example(b"\1" * 254)
@example(b"\1" * 254 + b"\0")
@example(b"\1" * 508)
@settings(deadline=None)
def test_what_cobs_hid_comes_back(plain: bytes) -> None:
    encoded = encode_cobs(plain)
    assert 0 not in encoded
    assert decode_cobs(encoded) == plain


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_may_be_called_cobs(encoded: bytes) -> None:
    decoded = decode_cobs(encoded)
    assert decoded is None or len(decoded) < max(1, len(encoded))


def test_a_frame_gives_its_words_tick_and_times() -> None:
    made = parser()
    rows = made.feed(b"\0" + FRAME, START_NS)
    assert rows.values.tolist() == [WORDS.tolist()]
    assert rows.ticks.tolist() == [123_456]
    assert rows.missing.tolist() == [0]
    assert rows.left_ns.tolist() == [START_NS - len(FRAME) * 10 * 10**9 // 115200]
    assert made.tally().tolist() == [1, 0, 0, 0]


def test_damage_gives_no_wrong_value_and_sync_returns() -> None:
    # Equal frames are one frame that is repeated, which gives a row only once: every second one differs.
    other = frame(ECHO_TIMES, 6, 123_456, WORDS)
    pair = other + FRAME
    check_damage(parser, pair, len(pair))


def test_any_split_gives_the_same() -> None:
    check_splits(parser, frame(ECHO_TIMES, 6, 123_456, WORDS) + FRAME)


def test_lost_frames_are_missing_also_where_the_counter_wraps() -> None:
    made = parser()
    stream = b"".join(frame(ECHO_TIMES, counter, counter * 50_000, WORDS) for counter in (65534, 65535, 65536, 65540))
    rows = made.feed(stream, START_NS)
    assert rows.missing.tolist() == [0, 0, 0, 3]


def test_frames_of_another_kind_or_size_are_valid_but_give_no_row() -> None:
    made = parser()
    assert len(feed(made, frame(WAVEFORM, 1, 1, WORDS) + frame(ECHO_TIMES, 2, 2, WORDS[:3]))) == 0
    assert made.tally().tolist() == [2, 0, 0, 0]


def test_a_counter_that_stands_still_gives_one_row_and_is_noted() -> None:
    made = parser()
    assert len(feed(made, FRAME * 99)) == 1
    assert made.notes == {}  # type: ignore[attr-defined]
    assert len(feed(made, FRAME * 2)) == 0
    assert made.notes == {"stuck_counter": "it stands"}  # type: ignore[attr-defined]
    assert len(feed(made, frame(ECHO_TIMES, 6, 9, WORDS))) == 1
    assert made.notes == {}  # type: ignore[attr-defined]


def test_memory_is_bounded_where_no_frame_ends() -> None:
    scanner = CobsScanner(100)
    for _ in range(1000):
        scanner.feed(b"\x01" * 997)
        assert len(scanner._rest) <= 102
    assert scanner.feed(b"\0") == []
    assert scanner.skipped_bytes == 997_000
    assert len(scanner.feed(FRAME)) == 1


def test_a_restarted_device_counts_what_the_host_saw_pass() -> None:
    timeline, made = TickTimeline(20), parser()
    arrival_ns = START_NS
    lost = []
    ticks = [*range(1_000, 1_040), *range(3, 40)]
    for index, number in enumerate(ticks):
        arrival_ns += 50_000_000 if index != 40 else 400_000_000
        rows = made.feed(frame(ECHO_TIMES, number, number * 50_000, WORDS), arrival_ns)
        lost.append(int(timeline.place(rows)[1][0]))
    assert sum(lost[:40]) == 0
    assert lost[40] <= 8
    assert sum(lost[41:]) == 0


def test_the_firmwares_framing_is_what_the_driver_reads(firmware_tool: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [
        (kind, index, counter, tick, rng.integers(0, high, count))
        for kind, index, counter, tick, high, count in [
            (1, 0, 0, 0, 1, 1),
            (1, 0, 0, 0, 1, 120),
            (1, 3, 65535, 2**32 - 1, 65536, 24),
            (2, 255, 256, 65536, 300, 120),
            *[(1, 0, number, number * 50_000, 23_300, 4) for number in range(300)],
        ]
    ]
    lines = [" ".join(map(str, [kind, index, counter, tick, *words])) for kind, index, counter, tick, words in frames]
    done = subprocess.run([firmware_tool], input="\n".join(lines), capture_output=True, text=True, check=True)
    for (kind, index, counter, tick, words), line in zip(frames, done.stdout.split(), strict=True):
        wire = bytes.fromhex(line)
        assert wire.count(0) == 1
        (found,) = CobsScanner(250).feed(wire)
        assert found.payload[:8] == bytes([kind, index]) + counter.to_bytes(2, "little") + tick.to_bytes(4, "little")
        assert np.frombuffer(found.payload[8:], "<u2").tolist() == words.tolist()
        if not index:
            assert wire == frame(kind, counter, tick, words)


@pytest.fixture(scope="module")
def firmware_tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.drivers.firmware import build

    return build("host", "framing_host", tmp_path_factory.mktemp("firmware"), needs=["make", "cc"])
