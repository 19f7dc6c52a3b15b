import numpy as np

from drivers.lib.clock import NS_PER_S
from drivers.lib.timeline import Rows, Timeline

RATE_HZ = 100
PERIOD_NS = NS_PER_S // RATE_HZ
START_NS = 9_000_000_000


def counted(first: int, count: int, arrival_ns: int) -> Rows:
    """Samples with an 8-bit counter that are delivered together, back to back at 115200 baud."""
    index = np.arange(first, first + count)
    left_ns = arrival_ns - (index[-1] - index + 1) * 1_650_000
    return Rows(np.zeros((count, 1), np.int16), index % 256, left_ns, np.zeros(count, np.int64))


def test_a_stalled_host_loses_nothing_though_the_counter_wraps_every_2_5_seconds() -> None:
    timeline = Timeline(RATE_HZ, RATE_HZ, 256)
    times, losses = [], []
    first = 0
    for count in [5] * 200 + [190] + [5] * 200:
        now_ns = START_NS + (first + count) * PERIOD_NS
        t_ns, lost = timeline.place(counted(first, count, now_ns))
        times.append(t_ns)
        losses.append(lost)
        first += count
    assert np.concatenate(losses).sum() == 0
    late_ns = np.concatenate(times) - (START_NS + np.arange(first) * PERIOD_NS)
    assert late_ns.max() - late_ns.min() < 12_000_000


def test_a_pause_of_several_wraps_is_lost_in_full() -> None:
    timeline = Timeline(RATE_HZ, RATE_HZ, 256)
    timeline.place(counted(0, 5, START_NS))
    _, lost = timeline.place(counted(5 + 1000, 5, START_NS + 1005 * PERIOD_NS))
    assert lost.tolist() == [1000, 0, 0, 0, 0]


def test_samples_without_a_counter_are_placed_by_count_and_damage() -> None:
    timeline = Timeline(RATE_HZ)
    times = []
    for batch in range(100):
        left_ns = START_NS + (np.arange(5) + 5 * batch + (batch >= 50)) * PERIOD_NS
        missing = np.array([int(batch == 50), 0, 0, 0, 0])
        t_ns, lost = timeline.place(Rows(np.zeros((5, 1), np.int16), np.full(5, -1), left_ns, missing))
        assert lost.tolist() == missing.tolist()
        times.append(t_ns)
    steps = np.diff(np.concatenate(times))
    assert steps[249] == 2 * PERIOD_NS
    assert (np.delete(steps, 249) == PERIOD_NS).all()
