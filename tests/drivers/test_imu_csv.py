from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from drivers.base import Unavailable
from drivers.imu.csv import MAX_LINE_BYTES, Csv, CsvConfig, CsvParser
from drivers.packet import SensorInfo
from hil.emulators.imu_csv import CsvEmulator
from tests.drivers.damage import START_NS, check_losses, damaged, feed, read_until, row_index, samples

LINE = b"0.497,-0.501,0.722,0.488,-1.526,-14.282\r\n"
STEPS = [497, -501, 722, 488, -1526, -14282]


def parser(**config: object) -> CsvParser:
    return CsvParser(CsvConfig(port="x", **config))


def made_rows(count: int = 400) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(-3999, 3999, (count, 6)) / 1000


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_what_an_arduino_prints_is_read_and_the_cut_first_line_is_not(newline: bytes) -> None:
    wire = (b"97,0.488,-1.526,-14.282\r\naX,aY,aZ,gX,gY,gZ\r\n" + LINE * 3 + b"\r\n" + LINE).replace(b"\r\n", newline)
    receiver = parser()
    assert feed(receiver, wire).tolist() == [STEPS] * 4
    assert receiver.tally()[[0, 1, 3]].tolist() == [4, 0, 0]
    assert receiver.tally()[2] >= 23 + 17


def test_recorded_files_are_read_line_by_line(data_dir: Path) -> None:
    for path in sorted((data_dir / "imu_gestures_arduino").glob("*.csv")):
        content = path.read_bytes()
        lines = [line.strip() for line in content.decode().splitlines()]
        wanted = [[round(float(v) * 1000) for v in line.split(",")] for line in lines if line and line[0] not in "a"]
        receiver = parser(limit=(4.0,) * 3 + (2001.0,) * 3)
        assert np.array_equal(feed(receiver, content, 777), wanted)
        assert len(wanted) >= 1190
        assert receiver.tally()[3] == 0


@pytest.mark.parametrize("field", [b"nan", b"ovf", b"", b"4.001", b"-4.1", b"1e5", b"inf", b"0.4.9"])
def test_a_line_without_a_value_in_range_is_dropped_counted_and_missing(field: bytes) -> None:
    receiver = parser()
    bad = LINE.replace(b"0.722", field)
    rows = receiver.feed(b"\n" + LINE * 3 + bad + LINE, START_NS)
    assert rows.values.tolist() == [STEPS] * 4
    assert rows.missing.tolist() == [0, 0, 0, 1]
    assert receiver.tally()[3] == 1


@pytest.mark.parametrize("field", [b"nan", b"NaN", b" nan", b"ovf", b"-inf"])
def test_a_sensor_that_is_dead_behind_its_board_is_out_of_range_and_not_another_baud_rate(field: bytes) -> None:
    receiver = parser()
    receiver.feed(b"\n" + b",".join([field] * 6) + b"\r\n", START_NS)
    # A valid frame, no byte skipped, out of range.
    assert receiver.tally().tolist() == [1, 0, 1, 1]
    receiver.feed(b",,,,,\n", START_NS)
    assert receiver.tally().tolist() == [1, 0, 7, 1]


@pytest.mark.parametrize(
    "text", [b"ready", b"BNO055 ok, 3 sensors", b"1,2,3", b"\xff\xfe\x00\xaa", LINE[:20] + LINE[:30]]
)
def test_other_lines_are_skipped(text: bytes) -> None:
    receiver = parser()
    assert feed(receiver, b"\n" + LINE + text + b"\r\n" + LINE).tolist() == [STEPS] * 2
    assert receiver.tally()[2] >= len(text)


def test_a_line_that_never_ends_is_given_up() -> None:
    receiver = parser()
    receiver.feed(b"\n", START_NS)
    for _ in range(100):
        receiver.feed(b"1" * 100, START_NS)
        assert len(receiver._rest) <= MAX_LINE_BYTES
    assert feed(receiver, b"11" + LINE + LINE).tolist() == [STEPS]
    assert receiver.tally()[2] >= 10_000


@pytest.mark.parametrize("chunk", [7, 10_000])
def test_a_line_that_is_too_long_is_given_up_wherever_reads_end(chunk: int) -> None:
    receiver = parser()
    assert feed(receiver, b"\n" + LINE + b" " * MAX_LINE_BYTES + LINE + LINE, chunk).tolist() == [STEPS] * 2
    assert receiver.tally().tolist() == [2, 0, 1 + MAX_LINE_BYTES + len(LINE), 0]


def test_any_split_gives_the_same() -> None:
    stream = LINE[20:] + LINE * 3
    for at in range(len(stream)):
        receiver = parser()
        parts = [receiver.feed(part, START_NS).values for part in (stream[:at], stream[at:])]
        assert np.concatenate(parts).tolist() == [STEPS] * 3
        assert receiver.tally().tolist() == [3, 0, len(LINE) - 20, 0]


def test_damage_costs_at_most_two_lines() -> None:
    for bad in damaged(LINE):
        rows = feed(parser(), b"\n" + LINE * 3 + bad + LINE * 4)
        assert len(rows) >= 3 + 4 - 1
        assert (np.abs(rows[:, :3]) <= 4000).all()
        assert (np.abs(rows[:, 3:]) <= 2_000_000).all()
        assert rows[-3:].tolist() == [STEPS] * 3


def test_columns_scales_and_units_are_the_configurations() -> None:
    config = CsvConfig(
        port="x", columns=("-", "gz", "ax"), units=("deg/s", "g"), scale=(0.1, 0.01), limit=(500.0, 16.0), rate_hz=10
    )
    driver = Csv("imu0", config)
    assert driver.info().channels == ("gz", "ax")
    assert driver.info().scale == (0.1, 0.01)
    assert feed(CsvParser(config), b"\n1234567,-20.06, 1.5\n+1e3,.5,16.\n").tolist() == [[-201, 150], [5, 1600]]


def test_slow_channels_of_a_machine_come_the_same_way(tmp_path: Path) -> None:
    names = ("pre1", "pre2", "vib1", "vib2", "vib3", "vib4")
    config = CsvConfig(
        port=str(tmp_path / "bench"),
        family="vibration",
        rate_hz=10,
        columns=names,
        units=("MPa",) * 2 + ("1",) * 4,
        scale=(0.001,) * 6,
        limit=(2.0,) * 2 + (30.0,) * 4,
    )
    driver = Csv("bench", config)
    assert driver.info() == SensorInfo("vibration", names, config.units, config.scale, 10)
    rows = np.array([[0.181, 0.175, 0.996, 0.671, 29.9, 0.335]]) + np.arange(50)[:, None] / 1000
    with CsvEmulator(rows, 10, tmp_path / "bench"):
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 5)
        driver.close()
    data = np.concatenate([packet.data for packet in packets])
    first = int(data[0, 0]) - 181
    assert data.tolist() == np.rint(rows[first : first + len(data)] * 1000).astype(int).tolist()
    assert all(abs(packet.dt_ns - 100_000_000) < 5_000_000 for packet in packets)


def test_a_family_that_no_model_takes_is_refused() -> None:
    with pytest.raises(ValidationError, match="family"):
        CsvConfig(port="x", family="audio")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"columns": ("ax", "ax")}, "each name once"),
        ({"columns": ("-",)}, "at least one name"),
        ({"columns": ("ax",)}, "units has 6 entries, expected one for each of ax"),
        ({"scale": (0.0,) * 6}, r"scale 0 and limit 4 of ax must give 1 to 2\*\*31 - 1 steps"),
        ({"scale": (1e-12,) * 6}, "must give 1 to"),
    ],
)
def test_a_wrong_table_is_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        CsvConfig(port="x", **wrong)


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_rows_arrive_with_their_times_and_losses_are_counted(tmp_path: Path, newline: bytes) -> None:
    rows = made_rows()
    with CsvEmulator(rows, 100, tmp_path / "imu", newline=newline) as emulator:
        driver = Csv("imu0", CsvConfig(port=str(emulator.link), rate_hz=100))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 40)
        emulator.fault(lambda line: b"x" + line)
        packets += read_until(driver, lambda _: driver.counters.lost >= 1)
        emulator.fault(lambda line: line.replace(b",", b",nan", 1))
        packets += read_until(driver, lambda _: driver.counters.lost >= 2)
        packets += read_until(driver, lambda p: samples(p) >= 40)
        driver.close()
    indices = [row_index(packet, np.rint(rows * 1000).astype(int)) for packet in packets]
    check_losses(packets, indices)
    assert driver.counters.lost == 2
    error_ns = [packet.t0_ns - emulator.measured_at_ns(i) for packet, i in zip(packets, indices, strict=True)]
    assert np.median(np.abs(error_ns)) < 8_000_000


def test_values_that_never_move_are_noted(tmp_path: Path) -> None:
    with CsvEmulator(made_rows(1), 100, tmp_path / "imu") as emulator:
        driver = Csv("imu0", CsvConfig(port=str(emulator.link), rate_hz=100))
        driver.open()
        read_until(driver, lambda _: "stuck_values" in driver.counters.notes)
        driver.close()


def test_bytes_that_are_no_lines_become_a_sentence(tmp_path: Path) -> None:
    with CsvEmulator(made_rows(), 100, tmp_path / "imu") as emulator:
        driver = Csv("imu0", CsvConfig(port=str(emulator.link), rate_hz=100))
        driver.open()
        for _ in range(1000):
            emulator.fault(lambda line: bytes(byte ^ 0x5A for byte in line))
        with pytest.raises(
            Unavailable, match=r"no valid frame in 5 s on .* no board that prints .*baud = 9600.* axond sensors probe"
        ):
            read_until(driver, lambda _: False)
        driver.close()
