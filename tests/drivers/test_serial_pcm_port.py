"""The microphone on a serial port: driver and emulator together, over a real terminal."""

from pathlib import Path

import numpy as np
import pytest

from drivers.audio.serial_pcm import SerialPcm, SerialPcmConfig
from hil.emulators.serial_pcm import SampleFormat, SerialPcmEmulator
from tests.drivers.damage import read_until, samples


def sound(count: int = 16_000) -> np.ndarray:
    """No stretch of it repeats."""
    rng = np.random.default_rng(0)
    return (7000 * np.sin(np.cumsum(rng.uniform(0.05, 0.3, count))) + rng.normal(0, 100, count)).astype(np.int16)


def place(data: np.ndarray, played: np.ndarray) -> int:
    """Where in ``played`` (n,) the first samples of ``data`` are."""
    head = data[:50].ravel()
    starts = np.flatnonzero(played == head[0])
    return next(int(at) for at in starts if np.array_equal(np.take(played, at + np.arange(50), mode="wrap"), head))


@pytest.mark.parametrize("sample_format", ["raw", "marked", "decimal"])
def test_every_sample_arrives_with_its_time(tmp_path: Path, sample_format: SampleFormat) -> None:
    with SerialPcmEmulator(sound(), 16_000, tmp_path / "mic", sample_format=sample_format) as emulator:
        driver = SerialPcm("mic0", SerialPcmConfig(port=str(emulator.link), baud=2_000_000, format=sample_format))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 12_000 and len(p) >= 20)
        driver.close()
    data = np.concatenate([p.data for p in packets])
    at = place(data, emulator.samples)
    assert np.array_equal(data.ravel(), np.take(emulator.samples, at + np.arange(len(data)), mode="wrap"))
    starts = at + np.cumsum([0, *(len(p.data) for p in packets[:-1])])
    error_ms = [(p.t0_ns - emulator.measured_at_ns(0)) / 1e6 - s / 16 for p, s in zip(packets, starts, strict=True)]
    # Which loop of the recording it was, is not known.
    error_ms = (np.array(error_ms) + 500) % 1000 - 500
    assert np.median(np.abs(error_ms[5:])) < 20
    assert np.ptp(error_ms[5:]) < 20
    assert driver.counters.lost == 0
    assert driver.counters.notes == {}


def test_a_lost_byte_costs_a_few_milliseconds_and_no_noise(tmp_path: Path) -> None:
    with SerialPcmEmulator(sound(), 16_000, tmp_path / "mic") as emulator:
        driver = SerialPcm("mic0", SerialPcmConfig(port=str(emulator.link)))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 3000)
        emulator.fault(lambda buffer: buffer[:201] + buffer[202:])
        packets += read_until(driver, lambda _: driver.counters.lost > 0)
        packets += read_until(driver, lambda p: samples(p) >= 3000)
        driver.close()
    assert 0 < driver.counters.lost <= 128
    assert driver.counters.lost == sum(p.lost for p in packets)
    assert driver.counters.resync_bytes > 0
    # A fault of one block at most can sound: the recording's own steps are far smaller than those of swapped bytes.
    steps = np.abs(np.diff(np.concatenate([p.data for p in packets]).ravel().astype(np.int64)))
    assert np.count_nonzero(steps > 8000) < 8


def test_silence_on_the_line_is_counted_as_lost_samples(tmp_path: Path) -> None:
    with SerialPcmEmulator(sound(), 16_000, tmp_path / "mic") as emulator:
        driver = SerialPcm("mic0", SerialPcmConfig(port=str(emulator.link)))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 3000)
        emulator.silence(True)
        read_until(driver, lambda _: driver.counters.silent_s > 1.1)
        emulator.silence(False)
        packets = read_until(driver, lambda p: sum(q.lost for q in p) > 0)
        driver.close()
    assert packets[-1].lost == pytest.approx(16_000 * driver.counters.silent_s, rel=0.2)


def test_a_rate_that_is_not_the_configured_one_is_noted(tmp_path: Path) -> None:
    with SerialPcmEmulator(sound(), 15_625, tmp_path / "mic") as emulator:
        driver = SerialPcm("mic0", SerialPcmConfig(port=str(emulator.link)))
        driver.open()
        read_until(driver, lambda _: "sample_rate" in driver.counters.notes, deadline_s=20)
        words = driver.counters.notes["sample_rate"].split()
        assert float(words[0]) == pytest.approx(15_625, rel=5e-3)
        assert driver.counters.lost == 0
        driver.close()


def test_a_dead_microphone_and_noise_are_noted(tmp_path: Path) -> None:
    with SerialPcmEmulator(np.zeros(100, np.int16), 16_000, tmp_path / "mic") as emulator:
        driver = SerialPcm("mic0", SerialPcmConfig(port=str(emulator.link), rate_hz=3000))
        driver.open()
        read_until(driver, lambda _: "stuck" in driver.counters.notes)
        driver.close()
    noise = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    with SerialPcmEmulator(noise, 16_000, tmp_path / "mic") as emulator:
        driver = SerialPcm("mic0", SerialPcmConfig(port=str(emulator.link), rate_hz=3000))
        driver.open()
        read_until(driver, lambda _: "noise" in driver.counters.notes)
        driver.close()


def test_samples_that_do_not_fit_the_line_are_refused() -> None:
    with pytest.raises(ValueError, match=r"raw samples at 16000 Hz need 320000 baud, the port has 115200"):
        SerialPcmConfig(port="x", baud=115_200)
