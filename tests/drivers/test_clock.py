import numpy as np
import pytest

from drivers.lib.clock import NS_PER_S, DeviceClock, sent_ns
from drivers.lib.timeline import Rows, Timeline

START_NS = 5_000_000_000_000


def simulate(
    seconds: float,
    rate_hz: float,
    ppm: float,
    rng: np.random.Generator,
    jitter_ms: float = 2.0,
    late_share: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """True capture times of a device that is ``ppm`` slow, and its samples' arrivals: late only, a few very late."""
    count = int(seconds * rate_hz)
    true_ns = START_NS + np.rint(np.arange(count) * NS_PER_S / rate_hz * (1 + ppm * 1e-6)).astype(np.int64)
    delay_ms = rng.exponential(jitter_ms, count)
    delay_ms += np.where(rng.random(count) < late_share, rng.uniform(20, 400, count), 0)
    return true_ns, np.maximum.accumulate(true_ns + (delay_ms * 1e6).astype(np.int64))


def run(clock: DeviceClock, ticks: np.ndarray, arrival_ns: np.ndarray, batch: int = 4) -> np.ndarray:
    parts = [
        clock.update(ticks[i : i + batch], arrival_ns[i : i + batch].max().repeat(len(ticks[i : i + batch])))
        for i in range(0, len(ticks), batch)
    ]
    return np.concatenate(parts)


def place(timeline: Timeline, ticks: np.ndarray, arrival_ns: np.ndarray, batch: int = 4) -> np.ndarray:
    """The same for a counter that wraps."""
    parts = []
    for i in range(0, len(ticks), batch):
        some = ticks[i : i + batch]
        left_ns = arrival_ns[i : i + batch].max().repeat(len(some))
        parts.append(timeline.place(Rows(np.zeros((len(some), 1), np.int16), some, left_ns, np.zeros_like(some)))[0])
    return np.concatenate(parts)


@pytest.mark.parametrize("ppm", [-200, -20, 0, 20, 200])
def test_drift_is_followed_and_jitter_is_not(ppm: float) -> None:
    true_ns, arrival_ns = simulate(120, 50, ppm, np.random.default_rng(7))
    clock = DeviceClock(50)
    error_ms = (run(clock, np.arange(len(true_ns)), arrival_ns) - true_ns) / 1e6
    settled = error_ms[50 * 10 :]
    assert abs(settled).max() < 1.5
    assert abs(settled).mean() < 0.5
    assert clock.drift * 1e6 == pytest.approx(ppm, abs=15)
    assert (arrival_ns - true_ns).max() > 8e6


def test_the_output_never_goes_back_and_never_lies_behind_the_arrival() -> None:
    rng = np.random.default_rng(3)
    _, arrival_ns = simulate(60, 100, 150, rng, jitter_ms=10, late_share=0.05)
    ticks = np.arange(len(arrival_ns))
    mapped = run(DeviceClock(100), ticks, arrival_ns, batch=1)
    assert (np.diff(mapped) >= 0).all()
    assert (mapped <= arrival_ns).all()


def test_late_outliers_do_not_move_the_clock() -> None:
    true_ns, arrival_ns = simulate(60, 50, 50, np.random.default_rng(5), late_share=0.1)
    error_ms = (run(DeviceClock(50), np.arange(len(true_ns)), arrival_ns, batch=2) - true_ns) / 1e6
    assert abs(error_ms[500:]).max() < 2


@pytest.mark.parametrize(
    ("modulus", "tick_hz", "rate_hz"), [(256, 100, 100), (65536, 1000, 50), (86_400_000, 1000, 50)]
)
def test_a_counter_that_wraps(modulus: int, tick_hz: int, rate_hz: int) -> None:
    true_ns, arrival_ns = simulate(150, rate_hz, 80, np.random.default_rng(2))
    steps = np.arange(len(true_ns)) * (tick_hz // rate_hz)
    ticks = (steps + modulus - 500 % modulus) % modulus
    mapped = place(Timeline(rate_hz, tick_hz, modulus), ticks, arrival_ns)
    assert abs(mapped - true_ns)[rate_hz * 10 :].max() < 2e6


@pytest.mark.parametrize("gap_s", [0.5, 3.0, 7.3, 40.0])
def test_a_gap_longer_than_the_counter_s_range(gap_s: float) -> None:
    true_ns, arrival_ns = simulate(80, 100, 0, np.random.default_rng(4))
    keep = np.ones(len(true_ns), bool)
    keep[2000 : 2000 + int(gap_s * 100)] = False
    mapped = place(Timeline(100, 100, 256), (np.arange(len(true_ns)) % 256)[keep], arrival_ns[keep])
    assert abs(mapped - true_ns[keep])[1500:].max() < 2e6


def test_one_broken_counter_value_changes_nothing_else() -> None:
    true_ns, arrival_ns = simulate(30, 50, 0, np.random.default_rng(6))
    ticks = np.arange(len(true_ns)) * 20
    ticks[700] += 30_000
    ticks[900] -= 30_000
    mapped = place(Timeline(50, 1000, 86_400_000), ticks, arrival_ns, batch=1)
    error_ms = np.delete(mapped - true_ns, [700, 900])[500:] / 1e6
    assert abs(error_ms).max() < 12
    assert np.median(abs(error_ms)) < 0.5


@pytest.mark.parametrize("set_by_ms", [3_600_000, -3_600_000, -10_000, 700])
def test_a_device_clock_that_is_set_is_followed_after_a_moment(set_by_ms: int) -> None:
    true_ns, arrival_ns = simulate(60, 50, 0, np.random.default_rng(8))
    ticks = np.arange(len(true_ns)) * 20
    ticks[1500:] += set_by_ms
    clock = DeviceClock(1000)
    mapped = run(clock, ticks, arrival_ns)
    assert clock.restarts == 1
    assert abs(mapped - true_ns)[1600:].max() < 6e6
    assert (np.diff(mapped) >= 0).all()


def test_without_a_counter_the_line_s_transmission_time_is_taken_off() -> None:
    """22-byte rows at 50 Hz over 19 200 baud, read in bursts of five rows."""
    baud, row_bytes, rate_hz = 19200, 22, 50
    count = 50 * 40
    measured_ns = START_NS + np.arange(count, dtype=np.int64) * NS_PER_S // rate_hz
    line_ns = row_bytes * 10 * NS_PER_S // baud
    rng = np.random.default_rng(9)
    clock = DeviceClock(rate_hz)
    mapped = []
    for i in range(0, count, 5):
        arrival_ns = int(measured_ns[i + 4]) + line_ns + int(rng.exponential(1e6))
        left_ns = sent_ns(arrival_ns, row_bytes * np.arange(5, 0, -1), baud)
        mapped.append(clock.update(np.arange(i, i + 5), left_ns))
    error_ms = (np.concatenate(mapped) - measured_ns) / 1e6
    assert abs(error_ms[500:]).max() < 1
    assert line_ns > 11e6


def test_reset_starts_anywhere() -> None:
    clock = DeviceClock(50)
    clock.update(np.array([3]), np.array([START_NS]))
    clock.reset()
    assert clock.update(np.array([200]), np.array([START_NS - NS_PER_S])).tolist() == [START_NS - NS_PER_S]


def test_a_clock_set_within_the_first_samples_makes_none_of_them_hours_old() -> None:
    arrival_ns = START_NS + np.arange(4) * 10_000_000
    times = DeviceClock(1000).update(np.array([0, 10, 36_000_000, 36_000_010]), arrival_ns)
    assert times[-1] == arrival_ns[-1]
    assert times[0] == arrival_ns[0] - 60 * NS_PER_S
    assert (np.diff(times) >= 0).all()
