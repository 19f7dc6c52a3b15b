from pathlib import Path

import numpy as np
import pytest

from drivers.base import Unavailable
from drivers.imu.bno08x_rvc import Bno08xRvc, Bno08xRvcConfig, RvcParser
from hil.emulators.bno08x_rvc import Bno08xRvcEmulator, encode
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

FRAME = bytes.fromhex("AAAADE010092FF25088DFEECFFD103000000E7")
ROW = [-371, -20, 977, 1, -110, 2085]


def parser() -> RvcParser:
    return RvcParser(115200)


def made_rows(count: int = 400) -> np.ndarray:
    return np.random.default_rng(1).integers(-9000, 9000, (count, 6)).astype(np.int16)


def test_the_data_sheets_frame_decodes() -> None:
    rows = parser().feed(FRAME, START_NS)
    assert rows.values.tolist() == [ROW]
    assert rows.ticks.tolist() == [222]
    assert rows.left_ns.tolist() == [START_NS - 19 * 10 * 10**9 // 115200]


def test_damage_gives_no_wrong_value_and_sync_returns() -> None:
    check_damage(parser, FRAME, 19)


def test_any_split_gives_the_same() -> None:
    check_splits(parser, FRAME)


def test_an_impossible_angle_is_dropped_and_counted() -> None:
    rows = made_rows(10)
    rows[4, 4] = 9001
    receiver = parser()
    assert np.array_equal(feed(receiver, b"".join(encode(rows, 250))), np.delete(rows, 4, axis=0))
    assert receiver.tally().tolist() == [10, 0, 0, 1]


def test_rows_arrive_with_their_times_and_losses_are_counted(tmp_path: Path) -> None:
    rows = made_rows()
    with Bno08xRvcEmulator(rows, tmp_path / "imu") as emulator:
        driver = Bno08xRvc("imu0", Bno08xRvcConfig(port=str(emulator.link)))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 40)
        emulator.flip_bit(12)
        packets += read_until(driver, lambda _: driver.counters.lost >= 1)
        emulator.drop_bytes(5)
        packets += read_until(driver, lambda _: driver.counters.lost >= 2)
        emulator.garbage(b"\x00\xaa\xaa\x07")
        packets += read_until(driver, lambda p: samples(p) >= 40)
        driver.close()
    indices = [row_index(packet, rows) for packet in packets]
    check_losses(packets, indices)
    assert driver.counters.lost == sum(packet.lost for packet in packets) == 2
    assert driver.counters.bad_checksum >= 1
    assert driver.counters.resync_bytes >= 4 + 14
    error_ns = [packet.t0_ns - emulator.measured_at_ns(i) for packet, i in zip(packets, indices, strict=True)]
    assert np.median(np.abs(error_ns)) < 5_000_000


def test_a_pause_longer_than_the_index_counts_is_lost_in_full(tmp_path: Path) -> None:
    rows = made_rows(1000)
    with Bno08xRvcEmulator(rows, tmp_path / "imu") as emulator:
        driver = Bno08xRvc("imu0", Bno08xRvcConfig(port=str(emulator.link)))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 20)
        emulator.silence(True)
        packets += read_until(driver, lambda _: driver.counters.silent_s > 3.2)
        emulator.silence(False)
        packets += read_until(driver, lambda _: driver.counters.lost > 0)
        driver.close()
    check_losses(packets, [row_index(packet, rows) for packet in packets])
    assert driver.counters.lost > 300


def test_a_frame_index_that_stands_still_is_noted(tmp_path: Path) -> None:
    with Bno08xRvcEmulator(made_rows(), tmp_path / "imu") as emulator:
        emulator.index_stands_still = True
        driver = Bno08xRvc("imu0", Bno08xRvcConfig(port=str(emulator.link)))
        driver.open()
        read_until(driver, lambda _: "stuck_counter" in driver.counters.notes)
        assert "stuck_values" not in driver.counters.notes
        driver.close()


def test_an_acceleration_that_never_moves_is_noted(tmp_path: Path) -> None:
    rows = made_rows()
    rows[:, :3] = (0, 0, 1000)
    with Bno08xRvcEmulator(rows, tmp_path / "imu") as emulator:
        driver = Bno08xRvc("imu0", Bno08xRvcConfig(port=str(emulator.link)))
        driver.open()
        read_until(driver, lambda _: "stuck_values" in driver.counters.notes)
        driver.close()


def test_another_device_becomes_a_sentence(tmp_path: Path) -> None:
    with Bno08xRvcEmulator(made_rows(), tmp_path / "imu") as emulator:
        driver = Bno08xRvc("imu0", Bno08xRvcConfig(port=str(emulator.link)))
        driver.open()
        # Frames whose checksum never holds: what another baud rate, or a loose wire, looks like.
        for _ in range(1000):
            emulator.flip_bit(5)
        with pytest.raises(Unavailable, match=r"no valid frame in 5 s on .* always talks at 115200 baud"):
            read_until(driver, lambda _: False)
        driver.close()
