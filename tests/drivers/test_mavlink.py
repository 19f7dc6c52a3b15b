import sys
from pathlib import Path

import numpy as np
import pytest

from drivers.base import Misconfigured, Unavailable
from drivers.imu.mavlink import Mavlink, MavlinkConfig, MavlinkParser, Message, dialect_for
from drivers.lib.framing_variable import VariableScanner
from drivers.lib.inertial import si_steps
from drivers.lib.mavlink import MavlinkFormat, senders
from hil.emulators.mavlink import MavlinkEmulator
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

pytest.importorskip("pymavlink")

HOLD_BYTES = 280
RAW_V1 = bytes.fromhex("fe1a0701011bcb04fb711f010000640038ff5226fbff0600f9ff2c0170fef401cffc")
RAW_V2 = bytes.fromhex("fd1a0000 0701011b0000cb04fb711f010000640038ff5226fbff0600f9ff2c0170fef4018cec")
ROW = [100, -200, 9810, -5, 6, -7]


def parser(message: Message = "RAW_IMU") -> MavlinkParser:
    return MavlinkParser(dialect_for(message), 57600)


def made_rows(message: str, count: int = 400) -> np.ndarray:
    rng = np.random.default_rng(1)
    if message == "HIGHRES_IMU":
        return rng.normal(0, 3, (count, 9)).astype(np.float32).astype(np.float64)
    return rng.integers(-9000, 9000, (count, 9))


def driver_for(emulator: MavlinkEmulator, message: Message = "RAW_IMU") -> Mavlink:
    return Mavlink("imu0", MavlinkConfig(port=str(emulator.link), baud=115200, rate_hz=50, message=message))


@pytest.mark.parametrize("frame", [RAW_V1, RAW_V2])
def test_damage_gives_no_wrong_value_and_sync_returns(frame: bytes) -> None:
    assert parser().feed(frame, START_NS).values.tolist() == [ROW]
    check_damage(parser, frame, HOLD_BYTES)
    check_splits(parser, frame)


def test_a_signed_frame_is_read_and_an_unknown_format_is_not() -> None:
    from pymavlink.dialects.v20 import common

    sender = common.MAVLink(None, 1, 1)
    sender.signing.secret_key = bytes(32)
    sender.signing.sign_outgoing = True
    signed = bytes(common.MAVLink_raw_imu_message(5, *ROW, 0, 0, 0).pack(sender))
    assert (signed[0], signed[2]) == (0xFD, 1)
    receiver = parser()
    assert feed(receiver, signed * 2).tolist() == [ROW, ROW]
    assert receiver.tally().tolist() == [2, 0, 0, 0]
    assert len(parser().feed(signed[:2] + b"\x03" + signed[3:], START_NS).values) == 0


def test_a_whole_frame_inside_a_damaged_one_is_found() -> None:
    """Resynchronisation begins one byte behind the bad header, as for every sensor."""
    outer = bytearray(b"\xfd\x40\0\0\x07\x01\x01\x1b\0\0" + RAW_V1 + bytes(0x40 - len(RAW_V1)) + b"\0\0")
    assert parser().feed(bytes(outer), START_NS).values.tolist() == [ROW]


def test_another_sender_is_not_mixed_in_but_takes_over_when_the_first_is_gone() -> None:
    from pymavlink.dialects.v20 import common

    first, second = common.MAVLink(None, 1, 1), common.MAVLink(None, 2, 1)
    one = bytes(common.MAVLink_raw_imu_message(1, *ROW, 0, 0, 0).pack(first))
    two = bytes(common.MAVLink_raw_imu_message(1, *ROW[::-1], 0, 0, 0).pack(second))
    receiver = parser()
    assert receiver.feed(one + two + one, START_NS).values.tolist() == [ROW, ROW]
    assert receiver.feed(two, START_NS + 10**9).values.tolist() == []
    assert receiver.feed(two, START_NS + 3 * 10**9).values.tolist() == [ROW[::-1]]
    assert receiver.feed(one, START_NS + 3 * 10**9 + 1).values.tolist() == []


def test_sequence_numbers_tell_what_is_lost() -> None:
    scanner = VariableScanner(MavlinkFormat(dialect_for("RAW_IMU").messages))
    sender, sequence = senders(scanner.feed(RAW_V1 + RAW_V2))
    assert sender.tolist() == [257, 257]
    assert sequence.tolist() == [7, 7]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("message", ["RAW_IMU", "SCALED_IMU", "SCALED_IMU2", "SCALED_IMU3", "HIGHRES_IMU"])
def test_rows_arrive_with_their_times_and_losses_are_counted(tmp_path: Path, message: Message, version: int) -> None:
    rows = made_rows(message)
    if version == 1 and message == "SCALED_IMU3":
        pytest.skip("not in version 1 of the protocol")
    with MavlinkEmulator(rows, 50, tmp_path / "imu", message=message, version=version) as emulator:
        driver = driver_for(emulator, message)
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 20)
        emulator.fault(lambda row: row[:-20] + bytes([row[-20] ^ 4]) + row[-19:])
        packets += read_until(driver, lambda _: driver.counters.lost >= 1)
        packets += read_until(driver, lambda p: samples(p) >= 20)
        driver.close()
    integers = si_steps(rows[:, :6])[0] if message == "HIGHRES_IMU" else rows[:, :6]
    indices = [row_index(packet, integers) for packet in packets]
    check_losses(packets, indices)
    assert driver.counters.lost == 1
    assert driver.counters.bad_checksum >= 1
    error_ns = [packet.t0_ns - emulator.measured_at_ns(i) for packet, i in zip(packets, indices, strict=True)]
    assert np.median(np.abs(error_ns)) < 15_000_000


def test_an_uneven_stream_without_holes_in_the_sequence_loses_nothing(tmp_path: Path) -> None:
    with MavlinkEmulator(made_rows("RAW_IMU"), 50, tmp_path / "imu") as emulator:
        driver = Mavlink("imu0", MavlinkConfig(port=str(emulator.link), baud=115200, rate_hz=100))
        driver.open()
        read_until(driver, lambda p: samples(p) >= 50)
        driver.close()
    assert driver.counters.lost == 0


def test_another_message_alone_is_noted(tmp_path: Path) -> None:
    with MavlinkEmulator(made_rows("RAW_IMU"), 50, tmp_path / "imu") as emulator:
        driver = driver_for(emulator, "HIGHRES_IMU")
        driver.open()
        read_until(driver, lambda _: "the message HIGHRES_IMU" in driver.counters.notes.get("no_rows", ""))
        driver.close()


def test_bytes_that_are_no_frames_become_a_sentence(tmp_path: Path) -> None:
    with MavlinkEmulator(made_rows("RAW_IMU"), 50, tmp_path / "imu") as emulator:
        driver = driver_for(emulator)
        driver.open()
        for _ in range(500):
            emulator.fault(lambda row: bytes(byte ^ 0x5A for byte in row))
        with pytest.raises(Unavailable, match=r"no valid frame in 5 s on .*MAVLink autopilot.*baud = 57600"):
            read_until(driver, lambda _: False)
        driver.close()


def test_without_pymavlink_it_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymavlink.dialects.v20", None)
    driver = Mavlink("imu0", MavlinkConfig(port="/dev/null"))
    with pytest.raises(Misconfigured, match=r"pip install 'axond\[mavlink\]'"):
        driver.open()
