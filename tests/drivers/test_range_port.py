"""Distance sensors: drivers and emulators together, over a real terminal."""

import threading
from pathlib import Path

import numpy as np
import pytest

from drivers.base import Unavailable
from drivers.ultrasonic.a02 import A02, A02Config
from drivers.ultrasonic.array import Array, ArrayConfig
from drivers.ultrasonic.echo import Echo, EchoConfig
from drivers.ultrasonic.maxbotix import Maxbotix, MaxbotixConfig
from drivers.ultrasonic.tfmini import Tfmini, TfminiConfig
from drivers.ultrasonic.urm07 import Urm07, Urm07Config
from drivers.ultrasonic.us100 import Us100, Us100Config
from hil.emulators.a02 import A02Emulator, A02TriggeredEmulator
from hil.emulators.maxbotix import MaxbotixEmulator
from hil.emulators.tfmini import TfminiEmulator
from hil.emulators.tick_frames import WAVEFORM, TextArrayEmulator, TickFrameEmulator
from hil.emulators.urm07 import Urm07Emulator
from hil.emulators.us100 import Us100Emulator
from tests.drivers.damage import check_losses, read_until, row_index, samples


def made_rows(columns: int = 1, count: int = 300) -> np.ndarray:
    """No two alike."""
    rows = np.arange(310, 310 + 3 * count, 3)[:, None] + np.arange(columns)
    return np.random.default_rng(0).permutation(rows)


def starts(packets: list, rows: np.ndarray) -> list[int]:
    return [row_index(packet, rows) for packet in packets]


def test_maxbotix_readings_arrive_and_damage_costs_only_its_row(tmp_path: Path) -> None:
    rows = made_rows()
    with MaxbotixEmulator(rows, 8, tmp_path / "range") as emulator:
        driver = Maxbotix("r0", MaxbotixConfig(port=str(emulator.link), rate_hz=8))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 5)
        emulator.drop_bytes(2)
        packets += read_until(driver, lambda p: sum(q.lost for q in p) >= 1)
        emulator.garbage(b"R\rR99\r\xff")
        packets += read_until(driver, lambda p: samples(p) >= 5)
        driver.close()
    check_losses(packets, starts(packets, rows))
    assert sum(p.lost for p in packets) == driver.counters.lost == 1
    assert driver.counters.resync_bytes >= 10


def test_a02_times_are_arrivals_less_the_time_on_the_line(tmp_path: Path) -> None:
    rows = made_rows()
    with A02Emulator(rows, 10, tmp_path / "range") as emulator:
        driver = A02("r0", A02Config(port=str(emulator.link)))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 15)
        driver.close()
        error_ms = [(p.t0_ns - emulator.measured_at_ns(row_index(p, rows))) / 1e6 for p in packets]
    assert np.median(np.abs(error_ms)) < 3
    assert driver.counters.lost == 0


def test_a_pause_is_silence_and_its_rows_are_lost(tmp_path: Path) -> None:
    rows = made_rows()
    with A02Emulator(rows, 20, tmp_path / "range") as emulator:
        driver = A02("r0", A02Config(port=str(emulator.link), rate_hz=20))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 3)
        emulator.silence(True)
        read_until(driver, lambda _: driver.counters.silent_s > 1.2)
        emulator.silence(False)
        packets += read_until(driver, lambda p: sum(q.lost for q in p) > 0)
        packets += read_until(driver, lambda p: samples(p) >= 3)
        driver.close()
    assert abs(sum(p.lost for p in packets) - 20 * driver.counters.silent_s) <= 4
    check_losses(packets, starts(packets, rows))


def test_a_wall_and_a_stuck_sensor_look_the_same_and_are_noted(tmp_path: Path) -> None:
    with A02Emulator(np.full((1, 1), 1000), 40, tmp_path / "range") as emulator:
        driver = A02("r0", A02Config(port=str(emulator.link), rate_hz=10))
        driver.open()
        read_until(driver, lambda _: "still" in driver.counters.notes)
        assert "\n" not in driver.counters.notes["still"]
        driver.close()


def test_tfmini_rows_arrive_and_a_bad_sum_is_counted(tmp_path: Path) -> None:
    rows = made_rows(3)
    with TfminiEmulator(rows, 100, tmp_path / "range") as emulator:
        driver = Tfmini("r0", TfminiConfig(port=str(emulator.link), model="tf02"))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 20)
        emulator.flip_bit(3, bit=1)
        packets += read_until(driver, lambda p: sum(q.lost for q in p) >= 1)
        packets += read_until(driver, lambda p: samples(p) >= 20)
        driver.close()
    wire = np.stack([rows[:, 0], rows[:, 1], rows[:, 2] & 0xFF], axis=1)
    check_losses(packets, starts(packets, wire))
    assert driver.counters.bad_checksum >= 1
    assert sum(p.lost for p in packets) == 1


def test_us100_answers_are_rows_on_the_hosts_grid(tmp_path: Path) -> None:
    rows = made_rows()
    with Us100Emulator(rows, tmp_path / "range", temperature_degc=-7) as emulator:
        driver = Us100("r0", Us100Config(port=str(emulator.link), rate_hz=15))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 10)
        driver.close()
    data = np.concatenate([p.data for p in packets])
    assert np.array_equal(data[:, 0], rows[:10, 0])
    assert (data[:, 1] == -7).all()
    steps_ms = np.diff([p.t0_ns for p in packets]) / 1e6
    assert np.median(np.abs(steps_ms - 1000 / 15)) < 3
    assert driver.counters.lost == 0


@pytest.mark.parametrize("late", [b"\x12", b"\x01\x02\x03"])
def test_a_late_or_broken_answer_shifts_nothing(tmp_path: Path, late: bytes) -> None:
    rows = made_rows()
    with Us100Emulator(rows, tmp_path / "range") as emulator:
        driver = Us100("r0", Us100Config(port=str(emulator.link), rate_hz=10))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 3)
        emulator.fault(lambda _: late)
        packets += read_until(driver, lambda p: samples(p) >= 5)
        driver.close()
    assert set(np.concatenate([p.data for p in packets])[:, 0]) <= set(rows[:, 0])
    assert sum(p.lost for p in packets) == driver.counters.lost == 1
    assert driver.counters.resync_bytes == len(late)


def test_a_temperature_that_is_not_known_is_noted(tmp_path: Path) -> None:
    with Us100Emulator(made_rows(), tmp_path / "range", temperature_degc=21) as emulator:
        emulator.fault(lambda _: b"")
        driver = Us100("r0", Us100Config(port=str(emulator.link), rate_hz=10))
        driver.open()
        (first, *_) = read_until(driver, lambda p: samples(p) >= 1)
        assert first.data[0, 1] == 0
        assert "not for temperature" in driver.counters.notes["no_temperature"]
        packets = read_until(driver, lambda p: bool(p) and p[-1].data[-1, 1] == 21)
        assert "no_temperature" not in driver.counters.notes
        assert {int(p.data[0, 1]) for p in packets} == {0, 21}
        driver.close()


def test_a_slow_line_has_time_for_question_and_answer(tmp_path: Path) -> None:
    rows = made_rows()
    with Urm07Emulator(rows, tmp_path / "range") as emulator:

        def later(answer: bytes) -> bytes:
            """Six bytes there and eight back take 117 ms at 1200 baud; the sensor itself took its time, too."""
            sending = threading.Timer(0.17, emulator.send_raw, (answer,))
            sending.start()
            return b""

        for _ in range(3):
            emulator.fault(later)
        driver = Urm07("r0", Urm07Config(port=str(emulator.link), baud=1200, rate_hz=3))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 3)
        driver.close()
    assert np.array_equal(np.concatenate([p.data for p in packets]), rows[:3])
    assert driver.counters.lost == driver.counters.resync_bytes == 0


def test_urm07_questions_without_an_answer_are_lost_rows(tmp_path: Path) -> None:
    rows = made_rows()
    with Urm07Emulator(rows, tmp_path / "range", address=0x55) as emulator:
        driver = Urm07("r0", Urm07Config(port=str(emulator.link), rate_hz=20, address=0x55))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 5)
        emulator.flip_bit(6)
        packets += read_until(driver, lambda _: driver.counters.bad_checksum >= 1)
        packets += read_until(driver, lambda p: samples(p) >= 5)
        emulator.silence(True)
        read_until(driver, lambda _: driver.counters.silent_s > 1.1)
        emulator.silence(False)
        packets += read_until(driver, lambda p: samples(p) >= 5)
        driver.close()
    assert set(np.concatenate([p.data for p in packets])[:, 0]) <= set(rows[:, 0])
    assert driver.counters.lost == sum(p.lost for p in packets)
    assert driver.counters.lost >= 20


def test_another_address_does_not_answer(tmp_path: Path) -> None:
    with Urm07Emulator(made_rows(), tmp_path / "range", address=0x12) as emulator:
        driver = Urm07("r0", Urm07Config(port=str(emulator.link), rate_hz=20))
        driver.open()
        read_until(driver, lambda _: "nothing arrives" in driver.counters.notes.get("no_frames", ""))
        driver.close()


def test_a_triggered_a02_is_asked(tmp_path: Path) -> None:
    rows = made_rows()
    with A02TriggeredEmulator(rows, tmp_path / "range", trigger=0x01) as emulator:
        driver = A02("r0", A02Config(port=str(emulator.link), rate_hz=20, trigger="01"))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 10)
        driver.close()
    assert np.array_equal(np.concatenate([p.data for p in packets]), rows[:10])


@pytest.mark.parametrize("count", [4, 24])
def test_a_ring_of_any_size_arrives_with_the_boards_own_times(tmp_path: Path, count: int) -> None:
    rows = made_rows(count)
    with TickFrameEmulator(rows, 20, tmp_path / "ring") as emulator:
        driver = Array("ring0", ArrayConfig(port=str(emulator.link), transducers=count))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 10)
        emulator.flip_bit(9)
        packets += read_until(driver, lambda p: sum(q.lost for q in p) >= 1)
        emulator.silence(True)
        read_until(driver, lambda _: driver.counters.silent_s > 1.1)
        emulator.silence(False)
        packets += read_until(driver, lambda p: sum(q.lost for q in p) >= 10)
        packets += read_until(driver, lambda p: samples(p) >= 10)
        driver.close()
        error_ms = [(p.t0_ns - emulator.measured_at_ns(row_index(p, rows))) / 1e6 for p in packets]
    check_losses(packets, starts(packets, rows))
    assert driver.counters.bad_checksum == 1
    # The line takes up to 5 ms for a frame; the tick is the time of the first ping.
    assert np.max(np.abs(error_ms)) < 12


@pytest.mark.parametrize(("style", "count"), [("csv", 4), ("labelled", 2), ("json", 24)])
def test_text_of_every_kind_arrives(tmp_path: Path, style: str, count: int) -> None:
    rows = made_rows(count)
    with TextArrayEmulator(rows, 20, tmp_path / "ring", style=style) as emulator:  # type: ignore[arg-type]
        config = ArrayConfig(port=str(emulator.link), transducers=count, format="text", unit="mm")
        driver = Array("ring0", config)
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 10)
        emulator.drop_bytes(3)
        packets += read_until(driver, lambda p: samples(p) >= 10)
        driver.close()
    assert driver.info().scale == (1.0,) * count
    found = sum((rows == row).all(axis=1).any() for packet in packets for row in packet.data)
    assert found >= samples(packets) - 1


def test_no_echo_is_zero_and_counted(tmp_path: Path) -> None:
    rows = np.array([[1166, 0, 23_319, 23_321], [1167, 2, 3, 60_000]])
    with TickFrameEmulator(rows, 20, tmp_path / "ring") as emulator:
        driver = Array("ring0", ArrayConfig(port=str(emulator.link)))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 6)
        driver.close()
    data = np.concatenate([p.data for p in packets])
    assert {tuple(row) for row in data.tolist()} == {(1166, 0, 23_319, 0), (1167, 2, 3, 0)}
    assert driver.counters.out_of_range >= np.count_nonzero(data == 0)


def test_an_array_of_another_size_is_told_apart_from_noise(tmp_path: Path) -> None:
    with TickFrameEmulator(made_rows(8), 20, tmp_path / "ring") as emulator:
        driver = Array("ring0", ArrayConfig(port=str(emulator.link)))
        driver.open()
        read_until(driver, lambda _: "no_rows" in driver.counters.notes)
        assert "echoes of 4 transducers" in driver.counters.notes["no_rows"]
        driver.close()


def test_waveforms_arrive_whole(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(-32768, 32768, (40, 1500)).astype(np.int16)
    rows[:, 700:1300] = 0
    with TickFrameEmulator(rows, 20, tmp_path / "echo", kind=WAVEFORM, baud=921600) as emulator:
        driver = Echo("echo0", EchoConfig(port=str(emulator.link), rate_hz=20))
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 8)
        emulator.drop_bytes(700)
        packets += read_until(driver, lambda p: sum(q.lost for q in p) >= 1)
        driver.close()
    check_losses(packets, starts(packets, rows))
    assert packets[0].data.dtype == np.int16
    assert driver.info().channels[:2] == ("0.0us", "8.2us")


def test_a_waveform_that_does_not_fit_the_line_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1500 samples at 20 Hz need 602000 baud, the port has 115200"):
        EchoConfig(port="x", baud=115200, rate_hz=20)


@pytest.mark.parametrize("kind", ["maxbotix", "urm07"])
def test_bytes_that_are_no_frames_become_a_sentence(tmp_path: Path, kind: str) -> None:
    with A02Emulator(made_rows(), 10, tmp_path / "range") as emulator:
        driver: Maxbotix | Urm07
        if kind == "maxbotix":
            driver = Maxbotix("r0", MaxbotixConfig(port=str(emulator.link)))
        else:
            driver = Urm07("r0", Urm07Config(port=str(emulator.link)))
        driver.open()
        with pytest.raises(Unavailable, match=r"no valid frame in 5 s on .*range at \d+ baud, although ") as caught:
            read_until(driver, lambda _: False)
        driver.close()
    advice = "polarity and of this model" if kind == "maxbotix" else "another rate (baud = 9600, 115200, 38400, 57600)"
    assert advice in str(caught.value)


def test_a_driver_in_a_thread_survives_unplugging_while_it_asks(tmp_path: Path) -> None:
    with Us100Emulator(made_rows(), tmp_path / "range") as emulator:
        driver = Us100("r0", Us100Config(port=str(emulator.link)))
        for _ in range(5):
            driver.open()
            unplugging = threading.Timer(0.02, emulator.unplug)
            unplugging.start()
            with pytest.raises(Unavailable, match="unplugged"):
                read_until(driver, lambda _: False)
            unplugging.join()
            driver.close()
            emulator.plug()
        driver.open()
        read_until(driver, lambda p: samples(p) >= 2)
        driver.close()
