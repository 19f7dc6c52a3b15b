"""Decimal numbers that stand in columns against the same ones read line by line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.lib.decimals import DecimalLines


def table_of(lines: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(lines), np.uint8).reshape(len(lines), -1)


def check(lines: list[bytes], fields: int) -> tuple[np.ndarray, np.ndarray]:
    """As a table and line by line: the same bits, the sign of zero included."""
    expected, expected_good = DecimalLines(fields).parse(lines)
    numbers, good = DecimalLines(fields).parse_table(table_of(lines))
    assert good.tolist() == expected_good.tolist()
    assert numbers.tobytes() == expected.tobytes()
    return numbers, good


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        (b"+100.949,-007.330", [100.949, -7.33]),
        (b" -.5 , 12. ", [-0.5, 12.0]),
        (b"-0.000000,+000", [-0.0, 0.0]),
        (b"123456789012.345,0.123456789012", [123456789012.345, 0.123456789012]),
        (b"123456789012.345678901234,1", [123456789012.345678901234, 1.0]),
        (b"1e3,-2.5E-02", [1000.0, -0.025]),
    ],
)
def test_each_way_to_write_a_number_is_read_to_the_last_bit(line: bytes, numbers: list[float]) -> None:
    found, good = check([line] * 3, 2)
    assert good.all()
    assert found.tobytes() == np.array([numbers] * 3).tobytes()


@pytest.mark.parametrize("line", [b"1,2,3", b"1", b"1,,2", b"+-1,2", b"1,2\x00", b"1 2,3", b".,1", b"", b"nan,1"])
def test_other_lines_are_told(line: bytes) -> None:
    assert not check([line] * 2, 2)[1].any()


def test_lines_of_other_shapes_are_read_beside_those_in_columns() -> None:
    lines = [b"+1.25,-3.50", b"-9.99,+0.01", b"-99.9,+00.1", b"+1.2x,-3.50", b"1e+1,-03.50", b"+0.00,-0.00"]
    assert check(lines, 2)[1].tolist() == [True, True, True, False, True, True]
    assert check(lines[::-1], 2)[1].tolist() == [True, True, False, True, True, True]


def test_a_new_shape_replaces_the_old_one() -> None:
    lines = DecimalLines(2)
    for each in ([b"+1.25,-3.50"], [b"12.5,13.75"], [b"nonsense"], [b"12.5,13.75"], [b"1.25,137.5"]):
        numbers, good = lines.parse_table(table_of(each))
        expected, expected_good = DecimalLines(2).parse(each)
        assert (numbers.tobytes(), good.tolist()) == (expected.tobytes(), expected_good.tolist())


@given(
    digits=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(any), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    damage=st.integers(0, 3),
)
@settings(max_examples=300, deadline=None)
def test_columns_and_lines_agree_to_the_last_bit(digits: list[tuple[int, int]], seed: int, damage: int) -> None:
    rng = np.random.default_rng(seed)
    shape = b",".join(b"+" + b"0" * before + b"." + b"0" * behind for before, behind in digits)
    table = np.tile(np.frombuffer(shape, np.uint8), (6, 1))
    table[table == ord("0")] = rng.integers(ord("0"), ord("9") + 1, np.count_nonzero(table == ord("0")))
    table[table == ord("+")] = rng.choice(np.frombuffer(b"+-", np.uint8), np.count_nonzero(table == ord("+")))
    at = rng.integers(0, [[6], [len(shape)]], (2, damage))
    table[at[0], at[1]] = rng.choice(np.frombuffer(b"0 .,-eEx\x00\xff", np.uint8), damage)
    check([line.tobytes() for line in table], len(digits))
