from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from drivers.base import Misconfigured, Unavailable
from drivers.imu.xsens import ACCELERATION, RATE_OF_TURN, Xsens, XsensConfig, XsensParser, XsensTimeline
from drivers.lib import xbus
from drivers.lib.framing_variable import VariableScanner
from drivers.lib.inertial import si_steps
from drivers.lib.timeline import Rows
from hil.emulators.xsens import XsensEmulator, encode
from tests.drivers.damage import (
    START_NS,
    check_damage,
    check_losses,
    check_splits,
    feed,
    read_until,
    row_index,
    samples,
)

ITEMS = {
    "packet_counter": (0x1020, ">u2"),
    "sample_time_fine": (0x1060, ">u4"),
    "quat": (0x2010, ">f4"),
    "acc": (0x4020, ">f4"),
    "gyr": (0x8020, ">f4"),
    "mag": (0xC020, ">f4"),
    "temp_c": (0x0810, ">f4"),
    "pressure_pa": (0x3010, ">u4"),
    "status": (0xE020, ">u4"),
}


def parser() -> XsensParser:
    return XsensParser(115200)


def made_rows(count: int = 400) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 3, (count, 6)).astype(np.float32)


def driver_for(emulator: XsensEmulator, rate_hz: int = 100) -> Xsens:
    return Xsens("imu0", XsensConfig(port=str(emulator.link), rate_hz=rate_hz))


def test_damage_gives_no_wrong_value_and_sync_returns() -> None:
    frame = encode(made_rows(1), 7, 100)[0]
    check_damage(parser, frame, xbus.MAX_DATA_BYTES)
    check_splits(parser, frame)


def test_messages_with_a_long_length_are_read() -> None:
    items = b"\x10\x20\x02\x00\x07" + b"\x55\x50\xf0" + bytes(240)
    item = encode(made_rows(1), 7, 100)[0][16:46]
    scanner = VariableScanner(xbus.XbusFormat())
    packet = xbus.message(xbus.MTDATA2, items + item)
    assert packet[3] == 0xFF
    assert len(scanner.feed(b"\xfa\xff" + packet)) == 1
    assert scanner.skipped_bytes == 2
    assert set(xbus.layout_of(packet).items) == {0x1020, 0x5550, ACCELERATION, RATE_OF_TURN}
    assert np.array_equal(feed(parser(), packet), si_steps(made_rows(1))[0])


@pytest.mark.parametrize("change", [{}, {"acc": np.nan}, {"acc": 1e9}, {"acc": np.inf}])
def test_values_that_are_no_measurements_are_dropped_and_counted(change: dict[str, float]) -> None:
    rows = made_rows(3)
    if change:
        rows[1, 0] = change["acc"]
    receiver = parser()
    values = feed(receiver, b"".join(encode(rows, 0, 100)))
    assert len(values) == (2 if change else 3)
    assert receiver.tally()[3] == bool(change)


def test_the_packet_counter_is_exact_where_the_time_is_not() -> None:
    timeline = XsensTimeline(100)
    ticks = np.array([0, 100, 460, 560]) + (1 << 32) - 200
    left_ns = START_NS + np.array([0, 10, 46, 56]) * 1_000_000
    rows = Rows(np.zeros((4, 6), np.int32), ticks % (1 << 32), left_ns, np.array([0, 0, 2, 0]))
    _, lost = timeline.place(rows)
    assert lost.tolist() == [0, 0, 2, 0]
    later = Rows(rows.values[:1], np.array([360 + 65536 * 100]), left_ns[-1:] + 655_370_000_000, np.array([3]))
    _, lost = timeline.place(later)
    assert lost.tolist() == [65536 + 3]


def test_the_sensor_is_set_up_and_its_rows_arrive(tmp_path: Path) -> None:
    rows = made_rows()
    with XsensEmulator(rows, 100, tmp_path / "imu") as emulator:
        emulator.measures = False
        driver = driver_for(emulator)
        driver.open()
        assert emulator.measures
        packets = read_until(driver, lambda p: samples(p) >= 40)
        emulator.flip_bit(20)
        packets += read_until(driver, lambda _: driver.counters.lost >= 1)
        emulator.drop_bytes(30)
        packets += read_until(driver, lambda _: driver.counters.lost >= 2)
        packets += read_until(driver, lambda p: samples(p) >= 40)
        driver.close()
    steps, _ = si_steps(rows)
    indices = [row_index(packet, steps) for packet in packets]
    check_losses(packets, indices)
    assert driver.counters.lost == 2
    assert driver.counters.bad_checksum >= 1
    error_ns = [packet.t0_ns - emulator.measured_at_ns(i) for packet, i in zip(packets, indices, strict=True)]
    assert np.median(np.abs(error_ns)) < 8_000_000


def test_clipping_is_counted(tmp_path: Path) -> None:
    with XsensEmulator(made_rows(), 100, tmp_path / "imu") as emulator:
        emulator.status = 0x00481403
        driver = driver_for(emulator)
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 20)
        driver.close()
    assert driver.counters.out_of_range >= samples(packets)


def test_a_rate_that_the_sensor_does_not_have_is_a_sentence(tmp_path: Path) -> None:
    with XsensEmulator(made_rows(), 100, tmp_path / "imu") as emulator:
        emulator.offered_hz = 80
        with pytest.raises(Misconfigured, match="offers 80 Hz for rate_hz = 100"):
            driver_for(emulator).open()


def test_an_error_of_the_sensor_is_a_sentence(tmp_path: Path) -> None:
    class Stubborn(XsensEmulator):
        def answer(self, request: bytes) -> bytes:
            return xbus.message(xbus.ERROR, b"\x03")

    with (
        Stubborn(made_rows(), 100, tmp_path / "imu") as emulator,
        pytest.raises(Misconfigured, match="refuses command 0x30: a period out of range"),
    ):
        driver_for(emulator).open()


def test_a_device_that_does_not_answer_is_a_sentence(tmp_path: Path) -> None:
    with XsensEmulator(made_rows(), 100, tmp_path / "imu") as emulator:
        emulator.silence(True)
        driver = driver_for(emulator)
        with pytest.raises(Unavailable, match=r"no answer came: no Xsens MTi.*\(baud = 921600.*sensors probe"):
            driver.open()
        emulator.silence(False)
        driver.open()
        driver.close()


def test_a_gyroscope_that_never_moves_is_noted(tmp_path: Path) -> None:
    rows = made_rows()
    rows[:, 3:] = 0
    with XsensEmulator(rows, 50, tmp_path / "imu") as emulator:
        emulator.offered_hz = 10
        driver = driver_for(emulator, 10)
        driver.open()
        read_until(driver, lambda _: "stuck_gyro" in driver.counters.notes)
        driver.close()


def test_a_rate_that_does_not_fit_the_line_is_refused() -> None:
    with pytest.raises(ValidationError, match="54 bytes at 400 Hz need 216000 baud, the port has 115200"):
        XsensConfig(port="x", rate_hz=400)
