import os
import select
import time
from pathlib import Path

import numpy as np
import pytest

from hil.emulators.witmotion import WitmotionEmulator

ROWS = np.arange(60, dtype=np.int16).reshape(10, 6)


def read_exactly(path: Path, count: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOCTTY)
    received = b""
    try:
        while len(received) < count:
            ready, _, _ = select.select([fd], [], [], 5)
            assert ready, f"{len(received)} of {count} bytes"
            received += os.read(fd, count - len(received))
    finally:
        os.close(fd)
    return received


def test_the_pace_has_no_drift(tmp_path: Path) -> None:
    with WitmotionEmulator(ROWS, 200, tmp_path / "imu", timed=False, angles=False) as emulator:
        assert emulator.wait_sent(400, 10)
        lateness_ms = [(emulator.sent_at_ns(k) - emulator.measured_at_ns(k)) / 1e6 for k in range(400)]
    # The line needs 1.9 ms for a row; what the scheduler adds does not add up.
    assert min(lateness_ms) >= 1.9
    assert np.median(lateness_ms[-100:]) < np.median(lateness_ms[:100]) + 3
    assert np.median(lateness_ms) < 8


def test_the_wire_carries_the_rows(tmp_path: Path) -> None:
    with WitmotionEmulator(ROWS, 50, tmp_path / "imu") as emulator:
        wire = read_exactly(emulator.link, 44 * 12)
    cycles = np.frombuffer(wire, np.uint8).reshape(12, 4, 11)
    assert (cycles[:, :, 0] == 0x55).all()
    assert (cycles[:, :, 1] == [0x50, 0x51, 0x52, 0x53]).all()
    assert (cycles[:, :, :10].sum(axis=2) % 256 == cycles[:, :, 10]).all()
    acc = np.ascontiguousarray(cycles[:, 1, 2:8]).view("<i2")
    gyro = np.ascontiguousarray(cycles[:, 2, 2:8]).view("<i2")
    assert np.array_equal(np.concatenate([acc, gyro], axis=1), np.concatenate([ROWS, ROWS[:2]]))
    ms = np.ascontiguousarray(cycles[:, 0, 8:10]).view("<u2").ravel()
    assert ms.tolist() == [20 * k for k in range(12)]


def test_rows_in_silence_and_while_unplugged_are_not_sent(tmp_path: Path) -> None:
    with WitmotionEmulator(ROWS, 100, tmp_path / "imu") as emulator:
        assert emulator.wait_sent(5, 5)
        emulator.silence(True)
        silent_at = emulator.sent_rows
        assert not emulator.wait_sent(silent_at + 1, 0.3)
        emulator.silence(False)
        assert emulator.wait_sent(silent_at + 5, 5)
        emulator.unplug()
        assert not emulator.link.is_symlink()
        unplugged_at = emulator.sent_rows
        assert not emulator.wait_sent(unplugged_at + 1, 0.2)
        emulator.plug()
        assert emulator.link.is_symlink()
        assert emulator.wait_sent(unplugged_at + 5, 5)
        passed = (time.monotonic_ns() - emulator.measured_at_ns(0)) / 1e9
        assert emulator.sent_rows <= 100 * (passed - 0.5) + 2
    assert not emulator.link.is_symlink()


def test_nobody_reading_blocks_nothing(tmp_path: Path) -> None:
    rows = np.zeros((100, 6), np.int16)
    with WitmotionEmulator(rows, 1000, tmp_path / "imu", baud=921600) as emulator:
        assert emulator.wait_sent(400, 10)
        end = time.monotonic() + 10
        while emulator.dropped_rows == 0 and time.monotonic() < end:
            emulator.wait_sent(emulator.sent_rows + 1, 0.1)
        assert emulator.dropped_rows > 0


def test_more_than_the_line_carries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 frames at 50 Hz need 22000 baud, the line has 9600"):
        WitmotionEmulator(ROWS, 50, tmp_path / "imu", baud=9600)


@pytest.mark.parametrize("rows", [np.zeros((0, 6), np.int16), np.zeros((5, 3), np.int16), np.zeros((5, 6), np.int32)])
def test_rows_of_another_shape_are_refused(tmp_path: Path, rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected int16 \(n, 6\)"):
        WitmotionEmulator(rows, 50, tmp_path / "imu")
