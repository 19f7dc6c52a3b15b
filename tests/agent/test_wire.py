"""Batches on the wire: what goes in comes out, and nothing that a stranger sends does harm."""

import json
import math
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import wire

OFFSET_US = 1_700_000_000_000_000


class FixedClock:
    def monotonic_ns(self) -> int:
        return 5_000_000_000

    def offset_us(self) -> int:
        return OFFSET_US

    def uncertainty_ms(self) -> float | None:
        return 2.5

    def epoch(self) -> str:
        return "ab12"

    def is_settled(self) -> bool:
        return True


def encode(rows: list[wire.Row], seq0: int = 1) -> bytes:
    return wire.encode("b00t", "kw", seq0, [(7_000, row) for row in rows], FixedClock())


def packed(document: Any, **changes: Any) -> bytes:
    if isinstance(document, dict):
        document = {**document, **changes}
    return zstandard.ZstdCompressor().compress(json.dumps(document).encode())


def plain(data: bytes) -> dict[str, Any]:
    document = json.loads(zstandard.ZstdDecompressor().decompress(data))
    assert isinstance(document, dict)
    return document


GOOD = {
    "v": 1,
    "boot": "b00t",
    "stream": "kw",
    "seq": [1, 2],
    "clock": {"unc_ms": None, "mono_us": 0},
    "t_us": [10, 5],
    "cols": {"label": "yes", "score": [0.5, 1.5]},
}


def test_rows_come_out_as_they_went_in() -> None:
    rows: list[wire.Row] = [
        {"t_ns": 1_000_000, "label": "yes", "score": 0.25, "class": 3},
        {"t_ns": 3_500_000, "label": "yes", "score": 0.5, "class": None},
    ]
    batch = wire.decode(encode(rows, seq0=41))
    assert (batch.boot, batch.stream, batch.seq0, batch.seq1, batch.uncertainty_ms) == ("b00t", "kw", 41, 42, 2.5)
    assert batch.rows == [
        {"seq": 41, "t_us": OFFSET_US + 1000, "label": "yes", "score": 0.25, "class": 3},
        {"seq": 42, "t_us": OFFSET_US + 3500, "label": "yes", "score": 0.5, "class": None},
    ]


def test_time_of_put_stands_in_for_a_missing_capture_time() -> None:
    strange: list[wire.Row] = [{"a": 1}, {"t_ns": None}, {"t_ns": "noon"}, {"t_ns": math.nan}, {"t_ns": math.inf}]
    assert wire.decode(encode(strange)).t_us == (OFFSET_US + 7,) * 5
    assert wire.decode(encode([{"t_ns": 0}])).t_us == (OFFSET_US,)


def test_a_constant_column_is_one_value_and_times_are_differences() -> None:
    document = plain(encode([{"t_ns": 1000 * i, "label": "yes", "n": i} for i in (5, 7, 9)]))
    assert document["cols"] == {"label": "yes", "n": [5, 7, 9]}
    assert document["t_us"] == [OFFSET_US + 5, 2, 2]


def test_true_and_one_are_not_one_constant() -> None:
    assert [row["a"] for row in wire.decode(encode([{"a": 1}, {"a": 1.0}])).rows] == [1, 1.0]
    assert plain(encode([{"a": 1}, {"a": 1.0}]))["cols"]["a"] == [1, 1.0]


def test_floats_are_short_and_numbers_that_json_lacks_become_null() -> None:
    rows: list[wire.Row] = [{"a": 0.123456789012}, {"a": math.nan}, {"a": math.inf}]
    assert [row["a"] for row in wire.decode(encode(rows)).rows] == [0.1234568, None, None]
    assert [row["a"] for row in wire.decode(encode([{"a": math.nan}, {"a": None}])).rows] == [None, None]


def test_numpy_scalars_and_strange_values_do_not_stop_a_batch() -> None:
    row: Any = {"a": np.float32(0.5), "b": np.int64(7), "c": [1, 2], "d": True, "e": "\ud800"}
    (out,) = wire.decode(encode([row])).rows
    assert (out["a"], out["b"], out["c"], out["d"], out["e"]) == (0.5, 7, "[1, 2]", 1, "?")


def test_a_name_that_a_row_lacks_is_null() -> None:
    rows = wire.decode(encode([{"a": 1}, {"b": 2}])).rows
    assert [(row["a"], row["b"]) for row in rows] == [(1, None), (None, 2)]


def test_the_same_rows_give_the_same_bytes() -> None:
    assert encode([{"a": 1.5}]) == encode([{"a": 1.5}])


def test_a_hundred_results_cost_few_bytes() -> None:
    rows: list[wire.Row] = [
        {"t_ns": i * 250_000_000 + (i * 7919) % 1000, "label": "yes", "class": i % 12, "score": (i * 37 % 100) / 100}
        for i in range(100)
    ]
    assert len(encode(rows)) / 100 < 12


def test_a_gap_record_has_a_range_and_a_cause() -> None:
    gap = wire.decode(wire.encode_gap("b00t", "kw", 5, 9, "quota"))
    assert (gap.seq0, gap.seq1, gap.cause, gap.rows) == (5, 9, "quota", [])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not zstd"),
        (b"nonsense", "not zstd"),
        (b"\0" * (wire.MAX_WIRE_BYTES + 1), "at most"),
        (zstandard.ZstdCompressor().compress(b"{"), "not JSON"),
        (zstandard.ZstdCompressor().compress(b"\xff\xfe"), "not JSON"),
        (zstandard.ZstdCompressor().compress(b"[" * 100_000), "not JSON"),
        (zstandard.ZstdCompressor().compress(b'{"v":' + b"9" * 5000 + b"}"), "number out of range"),
        (packed([1]), "not a JSON object"),
        (packed(GOOD, v=2), "version"),
        (packed(GOOD, boot="A B"), "names"),
        (packed(GOOD, stream=None), "names"),
        (packed(GOOD, seq=[2]), "seq"),
        (packed(GOOD, seq=[True, 2]), "seq"),
        (packed(GOOD, seq=[0, 1]), "range"),
        (packed(GOOD, seq=[2, 1]), "range"),
        (packed(GOOD, seq=[1, wire.MAX_SEQ + 1]), "range"),
        (packed(GOOD, seq=[1, wire.MAX_ROWS + 1]), "rows"),
        (packed(GOOD, seq=[1, 3]), "t_us has 2"),
        (packed(GOOD, t_us=[1, "x"]), "t_us"),
        (packed(GOOD, t_us=[1, 1 << 60]), "range"),
        (packed(GOOD, cols=[]), "cols"),
        (packed(GOOD, cols={str(i): 0 for i in range(wire.MAX_COLUMNS + 1)}), "columns"),
        (packed(GOOD, cols={"a": [1]}), "'a' has 1 values"),
        (packed(GOOD, cols={"a": [1, [2]]}), "'a' holds"),
        (packed(GOOD, cols={"a": {}}), "'a' holds"),
        *((packed(GOOD, clock={"unc_ms": odd}), "unc_ms") for odd in ("x", True, -1, 10**400, math.inf, math.nan)),
        (packed(GOOD, gap={}), "cause"),
        (packed(GOOD, gap={"cause": "\ud800"}), "cause"),
    ],
)
def test_what_is_no_batch_is_refused_with_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(wire.WireError, match=sentence):
        wire.decode(data)


def test_a_zstd_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(b" " * (1 << 28))
    assert len(bomb) < wire.MAX_WIRE_BYTES
    with pytest.raises(wire.WireError, match="declares"):
        wire.decode(bomb)


def test_a_bomb_that_hides_its_size_is_refused() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(b" " * (8 << 20))
    with pytest.raises(wire.WireError, match="declares"):
        wire.decode(bomb)


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(wire.WireError, match="not zstd"):
        wire.decode(packed(GOOD) + b"x")


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 150), st.integers(0, 255))
def test_damage_is_a_wire_error_and_nothing_else(noise: bytes, at: int, byte: int) -> None:
    data = bytearray(packed(GOOD))
    data[at % len(data)] = byte
    for candidate in (noise, bytes(data)):
        try:
            wire.decode(candidate)
        except wire.WireError as error:
            assert str(error)


VALUES = st.one_of(
    st.none(), st.integers(-(2**53), 2**53), st.text('aé"\n', max_size=5), st.floats(width=16, allow_nan=False)
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), VALUES), min_size=1, max_size=20))
def test_any_rows_survive(rows: list[wire.Row]) -> None:
    names = {name for row in rows for name in row}
    for row, out in zip(rows, wire.decode(encode(rows)).rows, strict=True):
        for name in names:
            value = row.get(name)
            if isinstance(value, float):
                value = float(f"{value:.7g}") if math.isfinite(value) else None
            assert out[name] == value


def test_the_kernel_says_how_wrong_the_clock_is_or_that_it_does_not_know() -> None:
    uncertainty_ms = wire.SystemClock().uncertainty_ms()
    assert uncertainty_ms is None or uncertainty_ms >= 0


def test_people_read_times_even_if_the_clock_is_mad() -> None:
    assert wire.iso_time(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
    assert wire.iso_time(0) == "1970-01-01T00:00:00.000000Z"
    assert wire.iso_time(1 << 80) == str(1 << 80)
