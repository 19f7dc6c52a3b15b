"""The serial event camera: driver and emulator together, over a real terminal."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drivers.base import Unavailable
from drivers.event_camera.edvs import Arrival, Edvs, EdvsConfig, EventClock
from drivers.event_camera.edvs_events import Events
from drivers.packet import EVENT, Packet
from hil.emulators.a02 import A02Emulator
from hil.emulators.edvs import EdvsEmulator
from tests.drivers.damage import read_until, samples

COUNT = 40_000
CODES, SCATTER = 32_768, 7919


def emulator(folder: Path, mean_step_us: float = 30, **options: object) -> EdvsEmulator:
    """The address of each event tells its place in the recording, modulo CODES."""
    rng = np.random.default_rng(0)
    t_us = np.cumsum(rng.exponential(mean_step_us, COUNT)).astype(np.int64)
    code = np.arange(COUNT) * SCATTER % CODES
    x, y, on = (part.astype(np.uint8) for part in (code % 128, code // 128 % 128, code // 16384))
    return EdvsEmulator(t_us, x, y, on, folder / "camera", **options)  # type: ignore[arg-type]


def indices(packets: list[Packet]) -> np.ndarray:
    """Which event of the recording each one is, modulo CODES."""
    data = np.concatenate([packet.data for packet in packets])
    x, y, on = (data[name].astype(np.int64) for name in ("x", "y", "on"))
    return (x + 128 * y + 16384 * on) * pow(SCATTER, -1, CODES) % CODES


def errors_ms(packets: list[Packet], camera: EdvsEmulator) -> np.ndarray:
    """How much later than it happened each event is said to have happened."""
    t_ns = np.concatenate([packet.data["t_ns"] for packet in packets])
    since_us = (t_ns - camera.measured_at_ns(0)) / 1000
    first, last = int(since_us[0]) - 100_000, int(since_us[-1]) + 100_000
    true_us, index = camera.played(max(0, first), last)
    found = indices(packets)
    (begin,) = np.flatnonzero(index % CODES == found[0])[:1]
    assert np.array_equal(index[begin : begin + len(found)] % CODES, found)
    return (since_us - true_us[begin : begin + len(found)]) / 1000


@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("edvs4337", 0),
        ("edvs4337", 1),
        ("edvs4337", 2),
        ("edvs4337", 3),
        ("edvs4337", 4),
        ("edvs128", 1),
        ("edvs128", 3),
    ],
)
def test_every_event_arrives_with_the_time_at_which_it_happened(tmp_path: Path, model: str, number: int) -> None:
    with emulator(tmp_path, model=model) as camera:
        driver = Edvs("dvs0", EdvsConfig(port=str(camera.link), model=model, format=number))  # type: ignore[arg-type]
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 25_000)
        driver.close()
    assert packets[0].data.dtype == EVENT
    assert (np.diff(np.concatenate([p.data["t_ns"] for p in packets])) >= 0).all()
    error_ms = errors_ms(packets, camera)
    # The camera hands its events over every 4 ms; with a clock of its own their distances are exact.
    assert np.median(np.abs(error_ms)) < 6
    if number:
        assert np.ptp(error_ms[5000:]) < 4
    assert driver.counters.lost == driver.counters.resync_bytes == 0


def test_the_camera_is_set_up_and_stopped(tmp_path: Path) -> None:
    with emulator(tmp_path) as camera:
        driver = Edvs("dvs0", EdvsConfig(port=str(camera.link), biases={0: 54, 11: 16_777_215}))
        driver.open()
        read_until(driver, lambda p: samples(p) >= 100)
        assert camera.biases == {0: 54, 11: 16_777_215}
        assert camera.time == "16"
        driver.close()
        sent = camera.sent_rows
        assert camera.wait_sent(sent + 5, 5)
        stopped_at = camera.sent_events
        assert camera.wait_sent(sent + 15, 5)
        assert camera.sent_events == stopped_at


@pytest.mark.parametrize("model", ["edvs4337", "edvs128"])
def test_replies_that_cannot_be_stopped_cost_nothing(tmp_path: Path, model: str) -> None:
    with emulator(tmp_path, model=model, echo=True) as camera:
        driver = Edvs("dvs0", EdvsConfig(port=str(camera.link), model=model))  # type: ignore[arg-type]
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 2000)
        driver.close()
    assert (np.diff(indices(packets)) % CODES == 1).all()
    assert driver.counters.lost == driver.counters.resync_bytes == 0


def change(part: int) -> Callable[[bytes], bytes]:
    return lambda wire: wire[: len(wire) // 2] + wire[len(wire) // 2 + part :]


def test_lost_bytes_are_counted_and_times_stay_right(tmp_path: Path) -> None:
    with emulator(tmp_path) as camera:
        driver = Edvs("dvs0", EdvsConfig(port=str(camera.link)))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 2000)
        for part in (1, 2, 3, 7):
            before = driver.counters.lost
            camera.fault(change(part))
            packets += read_until(driver, lambda _, before=before: driver.counters.lost > before)  # type: ignore[misc]
            packets += read_until(driver, lambda p: samples(p) >= 2000)
        driver.close()
    assert driver.counters.lost == sum(p.lost for p in packets)
    assert driver.counters.lost <= 20
    steps = np.diff(indices(packets)) % CODES
    assert np.count_nonzero(steps != 1) <= 12


def test_a_dark_room_is_silence_and_whole_wraps_are_counted_with_the_hosts_clock(tmp_path: Path) -> None:
    with emulator(tmp_path) as camera:
        driver = Edvs("dvs0", EdvsConfig(port=str(camera.link)))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 5000)
        camera.silence(True)
        read_until(driver, lambda _: driver.counters.silent_s > 1.1)
        camera.silence(False)
        packets = read_until(driver, lambda p: samples(p) >= 5000)
        driver.close()
    assert np.max(np.abs(errors_ms(packets, camera))) < 15


def test_a_few_events_a_second_come_through(tmp_path: Path) -> None:
    with emulator(tmp_path, mean_step_us=30_000) as camera:
        driver = Edvs("dvs0", EdvsConfig(port=str(camera.link)))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 40)
        driver.close()
    assert np.median(np.abs(errors_ms(packets, camera))) < 15
    assert driver.counters.lost == 0


def test_another_device_is_told_apart(tmp_path: Path) -> None:
    with A02Emulator(np.array([[1000]]), 20, tmp_path / "range") as sensor:
        driver = Edvs("dvs0", EdvsConfig(port=str(sensor.link)))
        with pytest.raises(Unavailable, match=r"no eDVS answered the reset on .* baud = 4000000, 2000000"):
            driver.open()


def test_a_pixel_that_never_rests_is_noted(tmp_path: Path) -> None:
    t_us = np.arange(1000) * 50
    same = np.full(1000, 7, np.uint8)
    with EdvsEmulator(t_us, same, same, same & 1, tmp_path / "camera") as camera:
        driver = Edvs("dvs0", EdvsConfig(port=str(camera.link)))
        driver.open()
        read_until(driver, lambda _: "hot_pixel" in driver.counters.notes)
        driver.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "edvs128", "format": 4}, "model 'edvs128' has the formats 0 to 3, not 4"),
        ({"biases": {12: 1}}, "bias 12 = 1 does not exist"),
        ({"biases": {0: -1}}, "bias 0 = -1 does not exist"),
    ],
)
def test_settings_that_do_not_exist_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        EdvsConfig(port="x", **options)


def events_at(ticks: list[int], ends: list[int], modulus: int = 65536) -> Events:
    zeros = np.zeros(len(ticks), np.uint8)
    return Events(zeros, zeros, zeros, np.array(ticks) % modulus, np.array(ends), after_loss=False)


def test_a_late_delivery_is_no_pause() -> None:
    """Events that waited in the kernel while the host was busy keep the times of the camera."""
    clock = EventClock(65536, timed=True, baud=12_000_000)
    start_ns, tick, position = 10**10, 0, 0
    for step in range(400):
        tick, position = tick + 1000, position + 4
        # From 200 on the host is busy for 150 ms; then it takes all that is there, event by event.
        late_ns = max(0, 350 - step) * 1_000_000 if step >= 200 else 0
        waited = late_ns == 0
        clock.arrived(Arrival(position, start_ns + tick * 1000 + late_ns, waited))
        (t_ns,) = clock.place(events_at([tick], [position])).tolist()
        assert abs(t_ns - start_ns - tick * 1000) < 100_000
    # A real pause of five wraps and a bit.
    tick, position = tick + 5 * 65536 + 700, position + 4
    clock.arrived(Arrival(position, start_ns + tick * 1000, waited=True))
    (t_ns,) = clock.place(events_at([tick], [position])).tolist()
    assert abs(t_ns - start_ns - tick * 1000) < 100_000
