"""Bytes to rows, without a port."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.imu.witmotion import DAY_MS, RowJoiner, Witmotion, WitmotionConfig
from drivers.lib.timeline import Rows, Timeline
from hil.emulators.witmotion import encode

BAUD = 115200
PERIOD_NS = 20_000_000
START_NS = 9_000_000_000

SCALE = np.array(Witmotion("imu0", WitmotionConfig(port="x")).info().scale)
ACC = bytes.fromhex("55519FFDE8FFA507350B15")
GYRO = bytes.fromhex("5552000000000000350BE7")
TIME = bytes.fromhex("55501805110E341179009F")


def made_rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-32768, 32768, (count, 6)).astype(np.int16)


def feed(joiner: RowJoiner, stream: bytes, chunk: int = 33) -> list[Rows]:
    return [joiner.feed(stream[i : i + chunk], START_NS + i) for i in range(0, len(stream), chunk)]


def values_of(parts: list[Rows]) -> np.ndarray:
    return np.concatenate([part.values for part in parts])


def test_published_captures_decode() -> None:
    rows = RowJoiner(BAUD).feed(TIME + ACC + GYRO, START_NS)
    assert (rows.values[0] * SCALE).round(5).tolist() == [-0.29736, -0.01172, 0.95557, 0, 0, 0]
    assert rows.ticks.tolist() == [((14 * 60 + 52) * 60 + 17) * 1000 + 121]
    assert rows.left_ns.tolist() == [START_NS - 33 * 10 * 10**9 // BAUD]


@pytest.mark.parametrize("chunk", [1, 7, 11, 33, 44, 1000])
@pytest.mark.parametrize("timed", [True, False])
def test_any_chunking_gives_every_row(chunk: int, timed: bool) -> None:
    rows = made_rows(60)
    stream = b"".join(encode(rows, 0, 50, timed=timed, angles=True))
    parts = feed(RowJoiner(BAUD), stream, chunk)
    # Without a time frame nobody can know that the first row was not cut.
    assert np.array_equal(values_of(parts), rows if timed else rows[1:])
    assert sum(int(part.missing.sum()) for part in parts) == 0
    if timed:
        assert np.concatenate([part.ticks for part in parts]).tolist() == [20 * i for i in range(60)]


@pytest.mark.parametrize(
    ("timed", "frame", "whole_rows_lost"), [(True, 0, 1), (True, 1, 2), (True, 2, 2), (False, 0, 2)]
)
@pytest.mark.parametrize("chunk", [5, 33, 400])
def test_two_cycles_are_never_mixed(timed: bool, frame: int, whole_rows_lost: int, chunk: int) -> None:
    """One row's rate frame and a frame of the next row are broken: an acceleration without its rate is left."""
    rows = made_rows(20)
    wire = encode(rows, 0, 50, timed=timed, angles=False)
    broken = bytearray(b"".join(wire[:10]))
    broken[-2] ^= 0xFF
    following = bytearray(b"".join(wire[10:]))
    following[frame * 11 + 4] ^= 0xFF
    parts = feed(RowJoiner(BAUD), bytes(broken + following), chunk)
    wanted = np.delete(rows, range(9, 9 + whole_rows_lost), axis=0)
    assert np.array_equal(values_of(parts), wanted if timed else wanted[1:])
    assert sum(int(part.missing.sum()) for part in parts) == whole_rows_lost


def test_a_time_frame_of_a_clock_that_was_never_set_is_normal() -> None:
    clock = bytes([0x55, 0x50, 0, 0, 0, 0, 0, 1, 0x10, 0])
    stream = clock + bytes([sum(clock) & 0xFF]) + ACC + GYRO
    joiner = RowJoiner(BAUD)
    assert joiner.feed(stream, START_NS).ticks.tolist() == [1016]
    assert joiner.bad_times == 0


def test_an_impossible_time_of_day_is_counted_and_not_used() -> None:
    clock = bytes([0x55, 0x50, 24, 13, 40, 25, 61, 1, 0x10, 0])
    joiner = RowJoiner(BAUD)
    rows = joiner.feed(clock + bytes([sum(clock) & 0xFF]) + ACC + GYRO, START_NS)
    assert rows.ticks.tolist() == [-1]
    assert joiner.bad_times == 1


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([ACC, GYRO, TIME, b"\x55", b"UQUR"])), max_size=40))
@settings(max_examples=200, deadline=None)
def test_random_bytes_never_raise_and_all_are_accounted_for(parts: list[bytes]) -> None:
    joiner, timeline = RowJoiner(BAUD), Timeline(50, 1000, DAY_MS)
    last_ns = 0
    for i, part in enumerate(parts):
        rows = joiner.feed(part, START_NS + i * PERIOD_NS)
        if len(rows.values):
            t_ns, lost = timeline.place(rows)
            assert t_ns.min() >= last_ns
            assert lost.min() >= 0
            last_ns = int(t_ns[-1])
    frames, _, skipped, _ = joiner.tally().tolist()
    total = sum(map(len, parts))
    assert total - 11 < frames * 11 + skipped <= total


def timeline_of(joiner: RowJoiner, wire: list[tuple[int, bytes]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, times and losses of rows that are delivered one by one, each at its own time."""
    timeline = Timeline(50, 1000, DAY_MS)
    values, times, losses = [], [], []
    for index, row in wire:
        rows = joiner.feed(row, START_NS + index * PERIOD_NS + len(row) * 10 * 10**9 // BAUD)
        if len(rows.values):
            t_ns, lost = timeline.place(rows)
            values.append(rows.values)
            times.append(t_ns)
            losses.append(lost)
    return np.concatenate(values), np.concatenate(times), np.concatenate(losses)


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("missing", [range(100, 101), range(100, 103), range(200, 400)])
def test_rows_lost_without_a_trace_are_counted_and_later_times_are_right(timed: bool, missing: range) -> None:
    rows = made_rows(1000)
    encoded = encode(rows, 0, 50, timed=timed, angles=False)
    wire = [(i, row) for i, row in enumerate(encoded) if i not in missing]
    values, times, losses = timeline_of(RowJoiner(BAUD), wire)
    assert losses.sum() == len(missing)
    assert len(values) == len(rows) - len(missing) - (0 if timed else 1)
    late = times[-400:] - (START_NS + np.arange(600, 1000) * PERIOD_NS)
    assert abs(late).max() < 2_000_000
    if timed:
        assert losses[missing.start] == len(missing)


def test_damage_is_a_loss_at_its_place_even_without_a_device_clock() -> None:
    rows = made_rows(300)
    encoded = encode(rows, 0, 50, timed=False, angles=True)
    encoded[150] = encoded[150][:4] + bytes([encoded[150][4] ^ 1]) + encoded[150][5:]
    encoded[200] = encoded[200][:6] + encoded[200][12:]
    values, _, losses = timeline_of(RowJoiner(BAUD), list(enumerate(encoded)))
    assert np.array_equal(values, np.delete(rows, [0, 150, 200], axis=0))
    assert np.flatnonzero(losses).tolist() == [149, 198]
    assert losses.sum() == 2


def test_a_device_clock_that_is_set_loses_nothing() -> None:
    rows = made_rows(400)
    early, late = (
        encode(rows[:200], 0, 50, timed=True, angles=False),
        encode(rows[200:], 90_000, 50, timed=True, angles=False),
    )
    _, times, losses = timeline_of(RowJoiner(BAUD), list(enumerate(early + late)))
    assert losses.sum() == 0
    assert (np.diff(times) >= 0).all()


def test_midnight_of_the_device_is_no_loss() -> None:
    rows = made_rows(100)
    encoded = encode(rows, 86_400 * 50 - 50, 50, timed=True, angles=False)
    _, times, losses = timeline_of(RowJoiner(BAUD), list(enumerate(encoded)))
    assert losses.sum() == 0
    assert abs(np.diff(times) - PERIOD_NS).max() < 1_100_000


def test_a_rate_that_does_not_fit_the_line_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"50 Hz need 11000 baud, the port has 9600"):
        WitmotionConfig(port="/dev/ttyUSB0", baud=9600, rate_hz=50)
