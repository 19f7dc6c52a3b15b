"""The driver and the emulator together, over a real terminal."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drivers.base import Disconnected, Unavailable
from drivers.imu.witmotion import Witmotion, WitmotionConfig
from drivers.packet import Packet
from hil.emulators.witmotion import WitmotionEmulator

DEADLINE_S = 10.0


def made_rows(count: int = 400) -> np.ndarray:
    return np.random.default_rng(1).integers(-9000, 9000, (count, 6)).astype(np.int16)


def driver_for(emulator: WitmotionEmulator, rate_hz: float = 50) -> Witmotion:
    return Witmotion("imu0", WitmotionConfig(port=str(emulator.link), rate_hz=rate_hz))


def read_until(driver: Witmotion, done: Callable[[list[Packet]], bool]) -> list[Packet]:
    packets: list[Packet] = []
    end = time.monotonic() + DEADLINE_S
    while not done(packets):
        if time.monotonic() > end:
            pytest.fail(f"not done after {DEADLINE_S} s; {len(packets)} packets, {driver.counters}")
        packet = driver.read(0.2)
        if packet is not None:
            packets.append(packet)
    return packets


def samples(packets: list[Packet]) -> int:
    return sum(len(p.data) for p in packets)


def first_index(packet: Packet, rows: np.ndarray) -> int:
    return int(np.flatnonzero((rows == packet.data[0]).all(axis=1))[0])


@pytest.mark.parametrize("timed", [True, False])
def test_rows_arrive_in_batches_with_the_time_at_which_they_were_measured(tmp_path: Path, timed: bool) -> None:
    rows = made_rows()
    with WitmotionEmulator(rows, 100, tmp_path / "imu", timed=timed) as emulator:
        driver = driver_for(emulator, 100)
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 150)
        driver.close()
    data = np.concatenate([p.data for p in packets])
    start = first_index(packets[0], rows)
    assert np.array_equal(data, rows[start : start + len(data)])
    assert [p.seq for p in packets] == list(range(len(packets)))
    assert np.mean([len(p.data) for p in packets]) >= 4
    indices = start + np.cumsum([0, *(len(p.data) for p in packets[:-1])])
    error_ns = [p.t0_ns - emulator.measured_at_ns(int(i)) for p, i in zip(packets, indices, strict=True)]
    assert np.median(np.abs(error_ns)) < 3_000_000
    assert driver.counters.lost == 0


def test_faults_are_counted_apart_and_cost_only_their_rows(tmp_path: Path) -> None:
    rows = made_rows()
    with WitmotionEmulator(rows, 100, tmp_path / "imu", timed=False) as emulator:
        driver = driver_for(emulator, 100)
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 20)
        emulator.corrupt()
        packets += read_until(driver, lambda p: sum(q.lost for q in p) >= 1)
        assert driver.counters.bad_checksum >= 1
        skipped = driver.counters.resync_bytes
        emulator.garbage(b"\x00\x55\x51\x07" * 3)
        packets += read_until(driver, lambda _: driver.counters.resync_bytes >= skipped + 12)
        lost = driver.counters.lost
        emulator.drop_bytes(9)
        packets += read_until(driver, lambda _: driver.counters.lost > lost)
        packets += read_until(driver, lambda p: samples(p) >= 20)
        driver.close()
    indices = [first_index(p, rows) for p in packets]
    expected = indices[0] + np.cumsum([len(p.data) for p in packets[:-1]]) + np.cumsum([p.lost for p in packets[1:]])
    assert indices[1:] == expected.tolist()
    assert driver.counters.lost == sum(p.lost for p in packets) == 2


def test_silence_is_measured_and_its_rows_are_lost(tmp_path: Path) -> None:
    with WitmotionEmulator(made_rows(), 50, tmp_path / "imu") as emulator:
        driver = driver_for(emulator)
        driver.open()
        read_until(driver, lambda p: samples(p) >= 10)
        emulator.silence(True)
        read_until(driver, lambda _: driver.counters.silent_s > 1.2)
        emulator.silence(False)
        packets = read_until(driver, lambda p: sum(q.lost for q in p) > 0)
        driver.close()
    assert packets[-1].lost == driver.counters.lost
    assert packets[-1].lost == pytest.approx(50 * driver.counters.silent_s, rel=0.25)


def test_unplugging_is_noticed_and_plugging_in_again_works(tmp_path: Path) -> None:
    with WitmotionEmulator(made_rows(), 50, tmp_path / "imu") as emulator:
        driver = driver_for(emulator)
        for _ in range(3):
            driver.open()
            read_until(driver, lambda p: samples(p) >= 5)
            emulator.unplug()
            with pytest.raises(Disconnected, match="unplugged"):
                read_until(driver, lambda _: False)
            driver.close()
            with pytest.raises(Unavailable, match=r"imu does not exist; (ports that are here|no serial port)"):
                driver.open()
            emulator.plug()


def test_bytes_that_are_no_frames_become_a_sentence_about_baud_rates(tmp_path: Path) -> None:
    rows = made_rows()
    with WitmotionEmulator(rows, 50, tmp_path / "imu") as emulator:
        driver = driver_for(emulator)
        emulator.silence(True)
        driver.open()
        stop = threading.Event()

        def hum() -> None:
            while not stop.wait(0.05):
                emulator.send_raw(b"\xe0\x1c" * 20)

        thread = threading.Thread(target=hum)
        thread.start()
        try:
            with pytest.raises(
                Unavailable, match=r"no valid frame in 5 s on .*imu at 115200 baud, .*baud = 9600, 921600"
            ):
                read_until(driver, lambda _: False)
        finally:
            stop.set()
            thread.join()
        assert "no_frames" in driver.counters.notes
        emulator.silence(False)
        driver.close()
        driver.open()
        read_until(driver, lambda p: samples(p) >= 5)
        assert driver.counters.notes == {}
        driver.close()


def test_a_gyroscope_that_never_moves_is_noted(tmp_path: Path) -> None:
    rows = made_rows()
    rows[:, 3:] = 0
    with WitmotionEmulator(rows, 200, tmp_path / "imu", angles=False) as emulator:
        driver = Witmotion("imu0", WitmotionConfig(port=str(emulator.link), rate_hz=20))
        driver.open()
        read_until(driver, lambda _: "stuck_gyro" in driver.counters.notes)
        driver.close()


def test_a_saturated_row_is_kept_and_counted(tmp_path: Path) -> None:
    rows = made_rows()
    rows[::10, 2] = -32768
    with WitmotionEmulator(rows, 100, tmp_path / "imu") as emulator:
        driver = driver_for(emulator, 100)
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 40)
        driver.close()
    saturated = int((np.concatenate([p.data for p in packets])[:, 2] == -32768).sum())
    assert saturated >= 3
    assert driver.counters.out_of_range >= saturated


def test_the_time_out_is_kept(tmp_path: Path) -> None:
    with WitmotionEmulator(made_rows(), 50, tmp_path / "imu") as emulator:
        driver = driver_for(emulator)
        emulator.silence(True)
        driver.open()
        begin = time.monotonic()
        assert driver.read(0.3) is None
        assert 0.29 <= time.monotonic() - begin < 0.8
        assert driver.read(0) is None
        driver.close()
