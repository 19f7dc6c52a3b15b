"""Every vector with a checksum, damaged in every way between others like it: no wrong value, and sync returns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.imu import bno08x_rvc, witmotion
from drivers.imu.mavlink import MavlinkParser, dialect_for
from drivers.imu.vectornav import VectornavParser
from drivers.imu.xsens import XsensParser
from drivers.lib import xbus
from drivers.lib.framing import FrameFormat
from drivers.lib.ranging import RangeParser, within
from drivers.lib.serial_sensor import Parser
from drivers.lib.vectornav import MAX_ASCII_BYTES, MAX_BINARY_BYTES
from drivers.ultrasonic import a02, maxbotix, tfmini, urm07
from hil.emulators import vectornav as vectornav_emulator
from hil.emulators import xsens as xsens_emulator
from tests.drivers.damage import START_NS, blind_sum, check_damage, check_splits, feed, passes_xor, raw_bytes, vectors
from tests.drivers.seeds import MAVLINK

ANY = within(-(2**31), 2**31 - 1)
MAVLINK_HOLD_BYTES = 280
ROW = np.arange(1, 7, dtype=np.float32)
WIT_ACC, WIT_GYRO = bytes.fromhex("55519FFDE8FFA507350B15"), bytes.fromhex("5552000000000000350BE7")


def ranges(frame_format: FrameFormat, decode: Callable[[Any], Any]) -> Callable[[], RangeParser]:
    return lambda: RangeParser(frame_format, 9600, decode, ANY)


RANGES = {
    "us_ff4": (a02.FORMAT, ranges(a02.FORMAT, a02.decode)),
    "tfmini": (tfmini.FORMAT, ranges(tfmini.FORMAT, tfmini.decode_s)),
    "dfrobot_urm07": (urm07.frame_format(0x11), ranges(urm07.frame_format(0x11), urm07.decode)),
    "bno08x_rvc": (bno08x_rvc.FORMAT, lambda: bno08x_rvc.RvcParser(115200)),
}


def good_and_bad(data_dir: Path, *protocols: str) -> tuple[list[bytes], list[bytes]]:
    found = vectors(data_dir, *protocols)
    good = [raw_bytes(vector) for vector in found if vector["checksum_ok"]]
    return good, [raw_bytes(vector) for vector in found if not vector["checksum_ok"]]


def check(
    make: Callable[[], Parser], unit: bytes, hold_bytes: int, blind: Callable[[bytes], bool] = lambda _: False
) -> None:
    check_damage(make, unit, hold_bytes, blind)
    check_splits(make, unit)


def check_rejected(make: Callable[[], Parser], good: bytes, bad: bytes) -> None:
    """A whole frame with a wrong checksum takes no good one with it."""
    rows = feed(make(), good * 3 + bad + good * 3)
    assert rows.tolist() == feed(make(), good * 6).tolist()


@pytest.mark.parametrize("protocol", RANGES)
def test_frames_of_one_length(data_dir: Path, protocol: str) -> None:
    frame_format, make = RANGES[protocol]
    good, bad = good_and_bad(data_dir, protocol)
    for frame in good:
        check(make, frame, len(frame), blind_sum(frame_format, frame))
        for wrong in bad:
            check_rejected(make, frame, wrong)


def test_witmotion_frames(data_dir: Path) -> None:
    good, _ = good_and_bad(data_dir, "witmotion_uart")
    assert len(good) == 22
    for raw in good:
        cycle = {0x50: raw + WIT_ACC + WIT_GYRO, 0x51: raw + WIT_GYRO, 0x52: WIT_ACC + raw}
        unit = cycle.get(raw[1], WIT_ACC + WIT_GYRO + raw)
        check(lambda: witmotion.RowJoiner(115200), unit, len(unit), blind_sum(witmotion.FORMAT, unit))


def test_xbus_messages(data_dir: Path) -> None:
    (packet,) = xsens_emulator.encode(ROW[None], 7, 100)
    for raw in good_and_bad(data_dir, "xbus")[0]:
        unit = raw if raw[2] == xbus.MTDATA2 else raw + packet
        check(lambda: XsensParser(115200), unit, xbus.MAX_DATA_BYTES)


def test_vectornav_lines_and_messages(data_dir: Path) -> None:
    def lines() -> VectornavParser:
        return VectornavParser("ascii", 115200)

    good, bad = good_and_bad(data_dir, "vectornav_ascii")
    for raw in good:
        check(lines, raw, MAX_ASCII_BYTES, passes_xor)
        for wrong in bad:
            check_rejected(lines, raw, wrong)
    (raw,), (wrong,) = good_and_bad(data_dir, "vectornav_binary")
    message = vectornav_emulator.encode_binary(ROW, 10**9)
    check(lambda: VectornavParser("binary", 115200), raw + message, MAX_BINARY_BYTES)
    check_rejected(lambda: VectornavParser("binary", 115200), message, wrong)


def test_mavlink_messages(data_dir: Path) -> None:
    pytest.importorskip("pymavlink")
    raw_imu, highres = dialect_for("RAW_IMU"), dialect_for("HIGHRES_IMU")
    good, _ = good_and_bad(data_dir, "mavlink1", "mavlink2")
    assert len(good) == 9
    for raw in good:
        number = raw[5] if raw[0] == 0xFE else raw[7]
        dialect = highres if number == 105 else raw_imu
        unit = raw if number in (27, 105) else raw + bytes.fromhex(MAVLINK[0])
        check(lambda dialect=dialect: MavlinkParser(dialect, 57600), unit, MAVLINK_HOLD_BYTES)  # type: ignore[misc]


def test_lines_without_a_checksum_are_in_step_again(data_dir: Path) -> None:
    make = ranges(maxbotix.frame_format(4), maxbotix.decode)
    for vector in vectors(data_dir, "maxbotix"):
        check(make, raw_bytes(vector), 6, blind=lambda _: True)
    (wrong,) = vectors(data_dir, "maxbotix_wrong_polarity")
    assert len(make().feed(b"R1234\r" + raw_bytes(wrong) + b"R1234\r", START_NS).values) == 2
