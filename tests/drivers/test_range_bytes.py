"""Distance sensors: bytes to rows, without a port."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drivers.lib.framing import FrameFormat
from drivers.lib.ranging import NO_TARGET, ArrivalTimeline, RangeParser, within
from drivers.lib.timeline import Rows
from drivers.ultrasonic import a02, maxbotix, tfmini, urm07
from drivers.ultrasonic.us100 import ASK_DISTANCE, ASK_TEMPERATURE, Us100Answers
from hil.emulators.a02 import frame as a02_frame
from hil.emulators.tfmini import encode as tfmini_frames
from tests.drivers.damage import START_NS, check_damage, check_splits, feed, raw_bytes, vectors
from tests.drivers.fuzz import check_any_bytes

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


def test_every_recorded_vector_decodes_or_is_rejected(data_dir: Path) -> None:
    for vector in vectors(data_dir, "us_ff4", "us_ff4_stream"):
        expect = vector["expect"]
        wanted = expect.get("distances_mm", [expect.get("distance_mm")]) if vector["checksum_ok"] else []
        assert feed(of_a02(), raw_bytes(vector)).ravel().tolist() == wanted
    for vector in vectors(data_dir, "tfmini"):
        values = feed(of_tfmini(), raw_bytes(vector))
        expect = vector["expect"]
        wanted = [[expect["dist_cm"], expect["strength"], expect["temp_c"] * 8]] if vector["checksum_ok"] else []
        assert values.tolist() == wanted
    (vector,) = vectors(data_dir, "dfrobot_urm07")
    assert feed(of_urm07(), raw_bytes(vector)).tolist() == [[vector["expect"]["distance_mm"]]]
    (vector,) = vectors(data_dir, "dfrobot_urm07_cmd")
    assert urm07.question(0x11) == raw_bytes(vector)


def test_every_recorded_text_decodes_or_is_rejected(data_dir: Path) -> None:
    for vector in vectors(data_dir, "maxbotix"):
        parser = of_maxbotix()
        (value,) = feed(parser, vector["text"].replace("\\r", "\r").encode()).ravel().tolist()
        nothing = vector["expect"].get("no_target", False)
        assert value == (NO_TARGET if nothing else vector["expect"]["range_mm"])
        assert parser.tally().tolist() == [1, 0, 0, int(nothing)]
    (vector,) = vectors(data_dir, "maxbotix_wrong_polarity")
    assert len(feed(of_maxbotix(), raw_bytes(vector))) == 0


def test_every_recorded_answer_of_the_us100_decodes(data_dir: Path) -> None:
    answers = {vector["expect"]["request"]: vector for vector in vectors(data_dir, "us100")}
    parser = Us100Answers(10)
    assert parser.ask(7, START_NS) == ASK_TEMPERATURE
    assert len(parser.feed(raw_bytes(answers["0x50"]), START_NS + 1).values) == 0
    assert not parser.waiting
    assert parser.ask_on() == ASK_DISTANCE
    rows = parser.feed(raw_bytes(answers["0x55"]), START_NS + 2)
    assert rows.values.tolist() == [[answers["0x55"]["expect"]["distance_mm"], answers["0x50"]["expect"]["temp_c"]]]
    assert (rows.ticks.tolist(), rows.left_ns.tolist()) == ([7], [START_NS])
    assert parser.ask_on() == b""
    assert parser.ask(8, START_NS) == ASK_DISTANCE


@pytest.mark.parametrize(("make", "frame_format", "frame"), FRAMED)
def test_damage_gives_no_wrong_value_and_sync_returns(
    make: Callable[[], RangeParser], frame_format: FrameFormat, frame: bytes
) -> None:
    def sum_is_blind(bad: bytes) -> bool:
        stream = np.frombuffer(frame + bad + frame, np.uint8)
        starts = np.arange(len(stream) - len(frame) + 1)
        headed = np.ones(len(starts), np.bool_)
        for at, (low, high) in enumerate(frame_format.header):
            headed &= (stream[starts + at] >= low) & (stream[starts + at] <= high)
        found = starts[headed & frame_format.checksum(stream, starts)]
        return any(stream[at : at + len(frame)].tobytes() != frame for at in found)

    check_damage(make, frame, len(frame), sum_is_blind)


@pytest.mark.parametrize(("make", "frame_format", "frame"), EVERY)
def test_any_split_gives_the_same(make: Callable[[], RangeParser], frame_format: FrameFormat, frame: bytes) -> None:
    check_splits(make, frame)


@pytest.mark.parametrize(("make", "frame_format", "frame"), EVERY)
def test_any_bytes_may_come(make: Callable[[], RangeParser], frame_format: FrameFormat, frame: bytes) -> None:
    check_any_bytes(make, frame, frame[:1])


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
    (value,) = feed(driver._new_parser(), text).ravel().tolist()
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
