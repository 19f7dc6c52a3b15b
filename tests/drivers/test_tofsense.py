"""The TOFSense driver on what the maker's manual prints, and on its emulator; the README shows these very files."""

import re
from pathlib import Path

import numpy as np
import pytest

from drivers.ultrasonic.tofsense import Tofsense, TofsenseConfig
from hil.emulators.tofsense import TofsenseEmulator, frame
from tests.drivers.damage import read_until, samples

ROOT = Path(__file__).parents[2]
MANUAL = bytes.fromhex("57 00 ff 00 9e 8f 00 00 ad 08 00 00 03 00 06 41")
"""TOFSense-F User Manual V1.2, 7.2.1: 36 766 ms, 2.221 m, status 0, strength 3."""


def test_the_frame_of_the_manual() -> None:
    parser = Tofsense("tof0", TofsenseConfig(port="x")).new_parser()
    rows = parser.feed(MANUAL * 2, 10**10)
    assert rows.values.tolist() == [[2221, 0, 3]] * 2
    assert rows.ticks.tolist() == [36_766] * 2
    assert parser.tally().tolist() == [2, 0, 0, 0]
    assert frame(36_766, 2221, 0, 3) == MANUAL


@pytest.mark.parametrize("distance_mm", [0, 25_001, 0xFFFFFF])
def test_what_no_model_can_measure_is_no_target(distance_mm: int) -> None:
    parser = Tofsense("tof0", TofsenseConfig(port="x")).new_parser()
    rows = parser.feed(frame(5, distance_mm, 14, 9), 10**10)
    assert rows.values.tolist() == [[0, 14, 9]]
    assert parser.tally().tolist() == [1, 0, 0, 1]


def test_times_are_those_of_the_sensor_and_lost_rows_are_counted_by_them(tmp_path: Path) -> None:
    rows = np.stack([np.arange(1000, 1900), np.zeros(900), np.full(900, 70)], axis=1).astype(np.int64)
    with TofsenseEmulator(rows, 100, tmp_path / "range") as sensor:
        driver = Tofsense("tof0", TofsenseConfig(port=str(sensor.link), rate_hz=100))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 50)
        sensor.flip_bit(9)
        packets += read_until(driver, lambda p: any(packet.lost for packet in p))
        driver.close()
    assert driver.counters.lost == sum(packet.lost for packet in packets) == driver.counters.bad_checksum == 1
    error_ms = [(p.t0_ns - sensor.measured_at_ns(int(p.data[0, 0]) - 1000)) / 1e6 for p in packets]
    assert np.ptp(error_ms) < 20


@pytest.mark.parametrize("path", ["drivers/ultrasonic/tofsense.py", "hil/emulators/tofsense.py"])
def test_the_readme_shows_this_file(path: str) -> None:
    page = (ROOT / "README.md").read_text()
    shown = re.search(rf"`{re.escape(path)}`:\n\n```python\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    assert shown[1] == (ROOT / path).read_text()
