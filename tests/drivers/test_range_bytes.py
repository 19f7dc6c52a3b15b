"""Distance sensors: bytes to rows, without a port."""

from collections.abc import Callable

import numpy as np
import pytest

from drivers.lib.framing import FrameFormat
from drivers.lib.polled_sensor import FramedAnswers
from drivers.lib.ranging import NO_TARGET, ArrivalTimeline, RangeParser, within
from drivers.lib.timeline import Rows
from drivers.ultrasonic import a02, maxbotix, tfmini, urm07
from drivers.ultrasonic.us100 import ASK_TEMPERATURE, Us100Answers
from hil.emulators.a02 import frame as a02_frame
from hil.emulators.tfmini import encode as tfmini_frames
from tests.drivers.damage import START_NS, blind_sum, check_damage, check_splits, feed

ANY = within(-(2**31), 2**31 - 1)
A02_FRAME = bytes.fromhex("FF07A1A7")
TFMINI_FRAME = bytes.fromhex("5959CF000B23D00988")
URM07_FRAME = bytes.fromhex("55AA11020212345A")
MAXBOTIX_TEXT = b"R1234\r"


def of_a02() -> RangeParser:
    return RangeParser(a02.FORMAT, 9600, a02.decode, ANY)


def of_tfmini() -> RangeParser:
    return RangeParser(tfmini.FORMAT, 115200, tfmini.decode_s, ANY)


def of_urm07() -> RangeParser:
    return RangeParser(urm07.frame_format(0x11), 19200, urm07.decode, ANY)


def of_maxbotix() -> RangeParser:
    return RangeParser(maxbotix.frame_format(4), 9600, maxbotix.decode, within(300, 4999))


FRAMED = [
    pytest.param(of_a02, a02.FORMAT, A02_FRAME, id="a02"),
    pytest.param(of_tfmini, tfmini.FORMAT, TFMINI_FRAME, id="tfmini"),
    pytest.param(of_urm07, urm07.frame_format(0x11), URM07_FRAME, id="urm07"),
]
EVERY = [*FRAMED, pytest.param(of_maxbotix, maxbotix.frame_format(4), MAXBOTIX_TEXT, id="maxbotix")]


@pytest.mark.parametrize(("make", "frame_format", "frame"), FRAMED)
def test_damage_gives_no_wrong_value_and_sync_returns(
    make: Callable[[], RangeParser], frame_format: FrameFormat, frame: bytes
) -> None:
    check_damage(make, frame, len(frame), blind_sum(frame_format, frame))


@pytest.mark.parametrize(("make", "frame_format", "frame"), EVERY)
def test_any_split_gives_the_same(make: Callable[[], RangeParser], frame_format: FrameFormat, frame: bytes) -> None:
    check_splits(make, frame)


def test_a_stray_header_byte_costs_nothing() -> None:
    parser = of_a02()
    assert feed(parser, b"\xff" + A02_FRAME + a02_frame(250)).ravel().tolist() == [1953, 250]
    assert parser.tally().tolist() == [2, 1, 1, 0]


def test_nothing_in_range_is_no_target_and_counted() -> None:
    parser = RangeParser(a02.FORMAT, 9600, a02.decode, within(*a02.LIMITS_MM["a02"]))
    stream = b"".join(a02_frame(mm) for mm in (65535, 0, 29, 30, 4500, 4501))
    assert feed(parser, stream).ravel().tolist() == [0, 0, 0, 30, 4500, 0]
    assert parser.tally().tolist() == [6, 0, 0, 4]


@pytest.mark.parametrize("row", [(65535, 300, 0), (65534, 300, 0), (65532, 300, 0), (207, 99, 0), (207, 65535, 0)])
def test_error_codes_and_weak_light_are_no_target(row: tuple[int, int, int]) -> None:
    parser = RangeParser(tfmini.FORMAT, 115200, tfmini.decode_plain, tfmini.is_target)
    stream = b"".join(tfmini_frames(np.array([row, (207, 100, 7)])))
    assert feed(parser, stream).tolist() == [[NO_TARGET, row[1], row[2]], [207, 100, 7]]
    assert parser.tally().tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize("text", [b"R\r", b"R123\r", b"R12345\r", b"R12a4\r", b"R123", b"R 234\r", b"\r1234\r"])
def test_text_that_is_no_reading_gives_none(text: bytes) -> None:
    assert feed(of_maxbotix(), text + MAXBOTIX_TEXT).ravel().tolist() == [1234]


def test_the_banner_at_power_up_gives_no_reading() -> None:
    banner = b"HRXL-MaxSonar-WRL\rPN:MB7360\rCopyright 2011-2013\rMaxBotix Inc.\rRoHS 1.5b 011\rTempI\r"
    assert feed(of_maxbotix(), banner + MAXBOTIX_TEXT * 3).ravel().tolist() == [1234] * 3


@pytest.mark.parametrize(("model", "text", "mm"), [("lv", b"R100\r", 2540.0), ("xl", b"R100\r", 1000.0)])
def test_models_that_print_inches_or_centimetres(model: maxbotix.Model, text: bytes, mm: float) -> None:
    driver = maxbotix.Maxbotix("r0", maxbotix.MaxbotixConfig(port="x", model=model))
    (value,) = feed(driver.new_parser(), text).ravel().tolist()
    assert value * driver.info().scale[0] == pytest.approx(mm)


@pytest.mark.parametrize(
    ("answer", "rows", "tally"),
    [
        (b"\x27\x10", [[NO_TARGET, 0]], [1, 0, 0, 1]),
        (b"\x00\x01", [[NO_TARGET, 0]], [1, 0, 0, 1]),
        (b"\x00\x02", [[2, 0]], [1, 0, 0, 0]),
        (b"\x00\x42\x00", [], [0, 0, 3, 0]),
        (b"\x42", [], [0, 0, 0, 0]),
    ],
)
def test_answers_of_the_us100_that_are_no_distance(answer: bytes, rows: list[list[int]], tally: list[int]) -> None:
    parser = Us100Answers(1000)
    parser.ask(0, START_NS)
    parser.give_up()
    parser.ask_on()
    assert parser.feed(answer, START_NS).values.tolist() == rows
    assert parser.give_up() == (len(answer) == 1)
    assert parser.tally().tolist() == tally


def test_a_temperature_that_cannot_be_is_not_taken() -> None:
    parser = Us100Answers(10)
    for raw, wanted in ((b"\x46", 25), (b"\xff", 25)):
        for slot in range(20):
            if parser.ask(slot, START_NS) == ASK_TEMPERATURE:
                parser.feed(raw, START_NS)
                parser.ask_on()
            assert parser.feed(b"\x01\x00", START_NS).values.tolist() == [[256, wanted]]
    assert parser.tally().tolist() == [42, 0, 0, 1]


def rows_at(times_s: list[float], missing: list[int]) -> Rows:
    count = len(times_s)
    left_ns = START_NS + np.rint(np.array(times_s) * 1e9).astype(np.int64)
    return Rows(np.zeros((count, 1), np.int32), np.full(count, -1), left_ns, np.array(missing))


def test_irregular_sensors_lose_by_damage_and_pauses_only() -> None:
    timeline = ArrivalTimeline(10)
    times, lost = timeline.place(rows_at([0, 0.1, 0.4, 0.5, 1.2], [0, 0, 0, 0, 0]))
    assert lost.tolist() == [0, 0, 0, 0, 6]
    assert ((times - START_NS) / 1e9).tolist() == pytest.approx([0, 0.1, 0.4, 0.5, 1.2])
    times, lost = timeline.place(rows_at([1.19, 1.4, 1.7], [0, 1, 1]))
    assert lost.tolist() == [0, 1, 2]
    assert ((times - START_NS) / 1e9).tolist() == pytest.approx([1.2, 1.4, 1.7])


def test_a_late_delivery_is_no_pause_and_no_row_is_from_its_end() -> None:
    """Eight readings of 10 Hz wait in the kernel while the host is busy for 0.8 s."""
    timeline = ArrivalTimeline(10)
    timeline.place(rows_at([0], [0]))
    times, lost = timeline.place(rows_at([0.8 + 0.004 * k for k in range(8)], [0] * 8))
    assert not lost.any()
    assert ((times - START_NS) / 1e9).tolist() == pytest.approx([0.128 + 0.1 * k for k in range(8)])
    times, lost = timeline.place(rows_at([2.0, 2.004], [0, 1]))
    assert lost.tolist() == [9, 1]
    assert ((times - START_NS) / 1e9).tolist() == pytest.approx([1.804, 2.004])


def test_answers_that_nobody_asked_for_give_no_row_and_are_counted() -> None:
    parser = FramedAnswers(of_urm07(), urm07.question(0x11))
    assert len(parser.feed(URM07_FRAME, START_NS).values) == 0
    assert parser.tally().tolist() == [1, 0, 8, 0]
    parser.ask(7, START_NS)
    rows = parser.feed(URM07_FRAME * 3, START_NS + 1)
    assert (len(rows.values), rows.ticks.tolist(), rows.left_ns.tolist()) == (1, [7], [START_NS])
    assert parser.tally().tolist() == [4, 0, 24, 0]
