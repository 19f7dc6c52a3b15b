"""A host that was stopped or starved finds what it missed waiting for it: late, but whole. That moves no time."""

import os
import pty
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest

from drivers.audio.serial_pcm import PcmTimeline
from drivers.event_camera.edvs_clock import Arrival, EventClock
from drivers.event_camera.edvs_events import Events
from drivers.imu.bno08x_rvc import Bno08xRvc, Bno08xRvcConfig
from drivers.lib.clock import NS_PER_S, STALLED_NS, DeviceClock
from drivers.lib.timeline import Rows, Timeline
from drivers.packet import Packet
from hil.emulators import bno08x_rvc

START_NS = 10**10
MS = 1_000_000


def worked_off(step: int, begin: int, stall_ns: int, each_ns: int, speed: float) -> int:
    """How late delivery ``step`` is, when the host stalls before ``begin`` and then reads ``speed`` times as fast."""
    return max(0, round(stall_ns - (step - begin) * each_ns * (1 - 1 / speed))) if step >= begin else 0


@pytest.mark.parametrize("stall_s", [0.4, 0.7, 3.0, 8.0])
@pytest.mark.parametrize("speed", [1.2, 3.0, 50.0])
def test_a_counter_that_runs_on_keeps_its_time(stall_s: float, speed: float) -> None:
    clock = DeviceClock(1_000_000)
    each_ns = 20 * MS
    for step in range(2000):
        true_ns = START_NS + step * each_ns
        late_ns = worked_off(step, 500, round(stall_s * NS_PER_S), each_ns, speed)
        (t_ns,) = clock.update(np.array([step * 20_000]), np.array([true_ns + late_ns])).tolist()
        assert abs(t_ns - true_ns) < MS, step
    assert clock.restarts == 0


def test_a_counter_that_stood_still_is_followed_in_the_end() -> None:
    clock = DeviceClock(1_000_000)
    for step in range(3000):
        stood_ns = 2 * NS_PER_S if step >= 500 else 0
        true_ns = START_NS + step * 20 * MS + stood_ns
        (t_ns,) = clock.update(np.array([step * 20_000]), np.array([true_ns])).tolist()
        if step * 20 * MS > 500 * 20 * MS + 1.2 * STALLED_NS:
            assert abs(t_ns - true_ns) < MS
    assert clock.restarts == 1


def events_at(ticks: np.ndarray, position: int, modulus: int) -> Events:
    zeros = np.zeros(len(ticks), np.uint8)
    return Events(zeros, zeros, zeros, ticks % modulus, position + 4 * np.arange(1, 1 + len(ticks)), after_loss=False)


class Camera:
    """A camera with an event per ms, whose deliveries of 20 ms are as late as the test says."""

    def __init__(self, modulus: int | None) -> None:
        self.clock = EventClock(modulus, timed=True, baud=12_000_000)
        self._modulus = modulus
        self._position = 0
        self._last_ms = 0

    def error_ns(self, end_ms: int, late_ns: int, waited: bool = False) -> int:
        """Deliver 20 events up to ``end_ms``; by how much the times are wrong."""
        ms = end_ms - np.arange(20)[::-1]
        steps = np.diff(ms, prepend=self._last_ms) * 1000
        events = events_at(ms * 1000 if self._modulus else steps, self._position, self._modulus or 1 << 40)
        self._last_ms, self._position = end_ms, self._position + 80
        self.clock.arrived(Arrival(self._position, START_NS + end_ms * MS + late_ns, waited))
        return int(np.abs(self.clock.place(events) - START_NS - ms * MS).max())


@pytest.mark.parametrize("modulus", [None, 1 << 16, 1 << 24])
@pytest.mark.parametrize("stall_s", [0.3, 0.7, 3.0])
def test_events_that_waited_keep_the_time_of_the_camera(modulus: int | None, stall_s: float) -> None:
    camera = Camera(modulus)
    for step in range(1, 1000):
        late_ns = worked_off(step, 300, round(stall_s * NS_PER_S), 20 * MS, 1.5)
        assert camera.error_ns(20 * step, late_ns) < MS, step


@pytest.mark.parametrize("waited", [True, False])
def test_a_pause_of_whole_wraps_is_noticed_at_once_on_an_idle_line_else_soon(waited: bool) -> None:
    camera = Camera(1 << 16)
    pause_ms = 700
    for step in range(1, 600):
        late = step >= 300
        error_ns = camera.error_ns(20 * step + late * pause_ms, 0, waited and step == 300)
        if waited or step < 300 or step > 300 + 3 * 50:
            assert error_ns < MS, step


def pcm_rows(count: int, arrival_ns: int, rate_hz: int = 16_000, baud: int = 500_000) -> Rows:
    left_ns = arrival_ns - 20 * (count - 1 - np.arange(count)) * NS_PER_S // baud
    none = np.zeros(count, np.int64)
    return Rows(np.zeros((count, 1), np.int16), none - 1, left_ns, none)


@pytest.mark.parametrize(("settle_s", "missing"), [(2, 6144), (20, 6144), (2, 0), (20, 0)])
def test_samples_behind_a_stall_are_counted_once(settle_s: int, missing: int) -> None:
    """The stall ends with all that the kernel kept and what has come since; ``missing`` samples did not fit in."""
    timeline = PcmTimeline(16_000)
    lost, sampled = 0, 0
    for _ in range(settle_s * 20):
        sampled += 800
        lost += int(timeline.place(pcm_rows(800, START_NS + sampled * 62_500))[1].sum())
    kept = 10_000
    sampled += kept + missing
    t_ns, gone = timeline.place(pcm_rows(kept, START_NS + sampled * 62_500))
    assert int(gone.sum()) == pytest.approx(missing, abs=40)
    lost += int(gone.sum())
    assert abs(int(t_ns[-1]) - START_NS - sampled * 62_500) < 3 * MS
    for _ in range(200):
        sampled += 800
        lost += int(timeline.place(pcm_rows(800, START_NS + sampled * 62_500))[1].sum())
    assert lost == pytest.approx(missing, abs=40)


def test_a_host_that_falls_behind_and_catches_up_lost_nothing() -> None:
    timeline = PcmTimeline(16_000)
    lost = 0
    for step in range(1, 900):
        # From 300 on it reads with 0.8 of the pace that it should have, from 500 on with 1.2 of it.
        late_ns = max(0, min(step - 300, 700 - step)) * 10 * MS
        lost += int(timeline.place(pcm_rows(800, START_NS + step * 50 * MS + late_ns))[1].sum())
    assert lost == 0


def ticked(index: np.ndarray, modulus: int, arrival_ns: int) -> Rows:
    left_ns = arrival_ns - (len(index) - np.arange(len(index))) * 1_650_000
    return Rows(np.zeros((len(index), 1), np.int16), index % modulus, left_ns, np.zeros(len(index), np.int64))


@pytest.mark.parametrize("modulus", [256, 1 << 16, 1 << 32])
@pytest.mark.parametrize(("kept", "missing"), [(500, 0), (40, 460), (200, 1300)])
def test_what_a_stall_cost_is_told_by_the_counter(modulus: int, kept: int, missing: int) -> None:
    """100 Hz: the kernel kept ``kept`` rows; the next ones are gone; then everything is as before."""
    timeline = Timeline(100, 100, modulus)
    at, lost = 0, 0
    for count, gone in [(5, 0)] * 200 + [(kept, missing)] + [(5, 0)] * 200:
        old = at + np.arange(count)
        fresh = at + count + gone + np.arange(5)
        at += count + gone + 5
        index = np.concatenate([old, fresh])
        t_ns, losses = timeline.place(ticked(index, modulus, START_NS + at * 10 * MS))
        lost += int(losses.sum())
        assert np.ptp(t_ns - START_NS - index * 10 * MS) < 12 * MS
    assert lost == missing


@pytest.fixture
def port() -> Iterator[tuple[str, Callable[[bytes], int]]]:
    """A terminal, and what writes to it without ever waiting."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    try:
        yield os.ttyname(slave), lambda wire: os.write(master, wire)
    finally:
        os.close(master)
        os.close(slave)


def test_a_sensor_that_nobody_read_for_seconds_lost_nothing(port: tuple[str, Callable[[bytes], int]]) -> None:
    """The frame index wraps in 2.56 s, one read gives 2.2 s of frames: all of them are taken before the host's clock
    tells how often it wrapped."""
    link, write = port
    rows = np.zeros((1000, 6), np.int16)
    rows[:, 0] = np.arange(1000)
    frames = bno08x_rvc.encode(rows, 0)
    driver = Bno08xRvc("imu0", Bno08xRvcConfig(port=link))
    with closing(driver):
        driver.open()
        packets = fed(driver, write, frames[:100], 0.01)
        # What a process finds that was stopped meanwhile.
        stalled_s = 4.0
        time.sleep(stalled_s - 0.05)
        for frame in frames[100:500]:
            write(frame)
        packets += fed(driver, write, frames[500:600], 0.01)
    data = np.concatenate([packet.data for packet in packets])
    assert np.array_equal(data[:, 0], data[0, 0] + np.arange(len(data)))
    assert len(data) > 590
    assert driver.counters.lost == 0
    starts = np.cumsum([0, *(len(packet.data) for packet in packets[:-1])])
    off_ms = np.array([packet.t0_ns / MS for packet in packets]) - 10 * starts
    assert np.ptp(off_ms) < 100


def fed(driver: Bno08xRvc, write: Callable[[bytes], int], frames: list[bytes], each_s: float) -> list[Packet]:
    """What a driver gives while these frames come at their pace."""
    packets: list[Packet] = []
    begin_s = time.monotonic()
    for index, frame in enumerate(frames, 1):
        write(frame)
        while (left_s := begin_s + index * each_s - time.monotonic()) > 0:
            packet = driver.read(left_s)
            packets += [packet] if packet is not None else []
    return packets
