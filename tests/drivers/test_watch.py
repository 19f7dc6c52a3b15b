import numpy as np
import pytest

from drivers.lib.clock import NS_PER_S
from drivers.lib.watch import Still, Watch
from drivers.packet import SensorCounters

STEP_NS = NS_PER_S // 10


class Sensor:
    """Reads of 100 ms each, without waiting for them."""

    def __init__(self, rate_hz: float = 50) -> None:
        self.counters = SensorCounters()
        self.watch = Watch("/dev/ttyUSB0 at 9600 baud", rate_hz, self.counters, 0)
        self.now_ns = 0

    def reads(self, seconds: float, frames: int = 0, rows: int = 0, received_bytes: int = 0) -> str | None:
        sentence = None
        for _ in range(round(seconds * 10)):
            self.now_ns += STEP_NS
            sentence = self.watch.update(frames, rows, received_bytes, self.now_ns)
        return sentence


def test_nothing_is_said_of_a_sensor_that_works() -> None:
    sensor = Sensor()
    assert sensor.reads(60, frames=10, rows=5, received_bytes=110) is None
    assert sensor.counters == SensorCounters()


@pytest.mark.parametrize("rate_hz", [0.1, 0.5, 1.0, 2.0])
def test_a_slow_sensor_is_not_silent_between_its_rows(rate_hz: float) -> None:
    sensor = Sensor(rate_hz)
    for _ in range(30):
        assert sensor.reads(1 / rate_hz - 0.1) is None
        assert sensor.reads(0.1, frames=1, rows=1, received_bytes=4) is None
        assert sensor.counters == SensorCounters()
    sensor.reads(7 / rate_hz + 5)
    assert sensor.counters.silent_s == pytest.approx(7 / rate_hz + 5)
    assert "nothing arrives" in sensor.counters.notes["no_frames"]


def test_silence_adds_up_and_is_noted_after_five_seconds() -> None:
    sensor = Sensor()
    sensor.reads(2, frames=10, rows=5)
    assert sensor.reads(4) is None
    assert sensor.counters.silent_s == pytest.approx(4)
    assert sensor.counters.notes == {}
    assert sensor.reads(2) is None
    assert "nothing arrives, check power and wiring" in sensor.counters.notes["no_frames"]
    sensor.reads(2, frames=10, rows=5)
    assert sensor.counters.notes == {}
    sensor.reads(3)
    assert sensor.counters.silent_s == pytest.approx(6 + 3)


def test_bytes_without_a_frame_are_a_sentence() -> None:
    sensor = Sensor()
    assert sensor.reads(4.9, received_bytes=96) is None
    assert sensor.reads(0.1, received_bytes=96) == (
        "no valid frame in 5 s on /dev/ttyUSB0 at 9600 baud, although 4800 bytes arrived"
    )


def test_power_that_goes_in_the_middle_of_a_frame_is_silence() -> None:
    sensor = Sensor()
    sensor.reads(2, frames=10, rows=5, received_bytes=110)
    sensor.reads(0.1, received_bytes=40)
    assert sensor.reads(20) is None
    assert "nothing arrives, check power and wiring" in sensor.counters.notes["no_frames"]


def test_frames_of_other_kinds_only_are_noted() -> None:
    sensor = Sensor()
    assert sensor.reads(6, frames=5, received_bytes=55) is None
    assert "but not the ones that are needed" in sensor.counters.notes["no_rows"]
    sensor.reads(1, frames=10, rows=5)
    assert "no_rows" not in sensor.counters.notes


def test_another_rate_is_noted_until_it_is_right() -> None:
    sensor = Sensor()
    sensor.reads(10, frames=2, rows=1)
    assert "10.0 rows/s arrive on /dev/ttyUSB0 at 9600 baud, rate_hz is 50" in sensor.counters.notes["rate"]
    sensor.reads(10, frames=10, rows=5)
    assert "rate" not in sensor.counters.notes


def test_a_pause_is_no_wrong_rate() -> None:
    sensor = Sensor()
    for _ in range(5):
        sensor.reads(3, frames=10, rows=5)
        sensor.reads(1.5)
        assert "rate" not in sensor.counters.notes
    sensor.reads(12, frames=10, rows=5)
    assert "rate" not in sensor.counters.notes


def test_values_that_stand_still_are_noted_until_they_move() -> None:
    counters = SensorCounters()
    still = Still("stuck", "it is dead", 10, counters)
    for _ in range(9):
        still.update(np.full((5, 2), 7))
        assert counters.notes == {}
    still.update(np.full((6, 2), 7))
    assert counters.notes == {"stuck": "it is dead"}
    still.update(np.array([[7, 7], [7, 8], [7, 8]]))
    assert counters.notes == {}
    for _ in range(24):
        still.update(np.array([[7, 8], [7, 8]]))
    assert counters.notes == {}
    still.update(np.array([[7, 8]]))
    assert counters.notes == {"stuck": "it is dead"}
