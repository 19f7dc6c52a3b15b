"""Lines of text of transducer arrays, without a port."""

import numpy as np
import pytest

from drivers.ultrasonic.array import Array, ArrayConfig
from drivers.ultrasonic.array_text import LONGEST_LINE, TextParser
from tests.drivers.damage import START_NS, check_splits, feed

CUT = b"8,9\n"


def parser(count: int = 3, steps: int = 10) -> TextParser:
    return TextParser(count, steps, 115200)


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b"12.3,45.6,0.0", [123, 456, 0]),
        (b"12.3, 45 ,7.25", [123, 450, 72]),
        (b"S1:123 S2:456 S3:0", [1230, 4560, 0]),
        (b"a=1 b= c=3", [10, 0, 30]),
        (b'{"t":123456,"d":[12.3,45.6,0]}', [123, 456, 0]),
        (b'{"d": [1, null, 3], "t": 5}', [10, 0, 30]),
        (b"nan,ovf,", [0, 0, 0]),
        (b"-1,inf,9999999", [0, 0, 99_999_990]),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_every_kind_of_line(line: bytes, row: list[int], end: bytes) -> None:
    made = parser()
    assert feed(made, CUT + line + end).tolist() == [row]
    assert made.tally().tolist() == [1, 0, len(CUT) - 1, 0]


@pytest.mark.parametrize(
    "line",
    [
        b"1,2",
        b"1,2,3,4",
        b"1,2,x",
        b"1;2;3",
        b"{}",
        b'{"d":[1,2]}',
        b"hello",
        b"1,2,3e5",
        b"1,2,-7",
        b"1,2,0x3",
        b"S1:1 2 3",
    ],
)
def test_any_other_line_is_a_missing_row(line: bytes) -> None:
    made = parser()
    rows = made.feed(CUT + b"1,2,3\n" + line + b"\n4,5,6\n\r\n7,8,9\n", START_NS)
    assert rows.values.tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert rows.missing.tolist() == [0, 1, 0]
    assert made.tally()[2] == len(CUT) - 1 + len(line)


def test_the_first_line_may_be_cut_and_is_given_up() -> None:
    assert feed(parser(), b"3.4,5.6,7.8\n1,2,3\n").tolist() == [[10, 20, 30]]


def test_the_time_of_json_lines_is_the_tick_and_wraps() -> None:
    stream = CUT + b'{"t":4294967297,"d":[1,2,3]}\n{"t":5,"d":[1,2,3]}\n1,2,3\n'
    assert parser().feed(stream, START_NS).ticks.tolist() == [1, 5, -1]


def test_a_line_without_end_takes_no_memory() -> None:
    made = parser()
    feed(made, CUT)
    for _ in range(100):
        feed(made, b"1," * 500)
        assert len(made._rest) <= LONGEST_LINE
    assert feed(made, b"\n1,2,3\n").tolist() == [[10, 20, 30]]
    assert made.tally()[2] == len(CUT) - 1 + 100_000


@pytest.mark.parametrize("chunk", [7, 10_000])
def test_a_line_that_is_too_long_is_given_up_wherever_reads_end(chunk: int) -> None:
    made = parser()
    assert feed(made, CUT + b" " * LONGEST_LINE + b"1,2,3\n4,5,6\n", chunk).tolist() == [[40, 50, 60]]


def test_any_split_gives_the_same() -> None:
    check_splits(parser, b"12.3,45.6,0.0\r\n")


@pytest.mark.parametrize(
    ("unit", "printed", "mm"), [("cm", b"123.4", 1234), ("mm", b"1234", 1234), ("us", b"5830", 1000)]
)
def test_units(unit: str, printed: bytes, mm: int) -> None:
    driver = Array("ring0", ArrayConfig(port="x", transducers=1, format="text", unit=unit))  # type: ignore[arg-type]
    values = feed(driver.new_parser(), CUT + printed + b"\n")
    assert values.dtype == np.int32
    assert values[0, 0] * driver.info().scale[0] == pytest.approx(mm, rel=1e-3)


def timed(line: bytes, periods_ms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times and losses of lines that come so far apart, where 20 a second are configured; a cut line comes first."""
    driver = Array("ring0", ArrayConfig(port="x", transducers=3, format="text", baud=2_000_000, rate_hz=20))
    made, timeline = driver.new_parser(), driver._new_timeline()
    feed(made, CUT)
    at_ns = START_NS + np.cumsum(np.rint(periods_ms * 1e6)).astype(np.int64)
    placed = [timeline.place(made.feed(line, int(now_ns))) for now_ns in at_ns]
    t_ns, lost = (np.concatenate(parts) for parts in zip(*placed, strict=True))
    return t_ns - at_ns, lost


@pytest.mark.parametrize("periods_ms", [np.full(200, 56.0), np.linspace(40, 70, 200), np.full(200, 45.0)])
def test_a_sketch_takes_as_long_as_it_takes_and_nothing_is_lost(periods_ms: np.ndarray) -> None:
    early_ns, lost = timed(b"1,2,3\n", periods_ms)
    assert not lost.any()
    assert (early_ns == -30_000).all()


def test_a_pause_and_damaged_lines_are_losses() -> None:
    _, lost = timed(b"1,2,3\n", np.array([50.0, 50, 1000, 50]))
    assert lost.tolist() == [0, 0, 19, 0]
    _, lost = timed(b"1,2,\xff\n1,2,3\n", np.array([50.0, 100, 100]))
    assert lost.tolist() == [0, 1, 1]
