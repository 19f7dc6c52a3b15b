"""Which driver understands what a port says: the right one, and no other."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from agent import config
from drivers.base import Unavailable
from drivers.fit import fits, toml
from drivers.lib.serial_link import SerialLink
from drivers.probe import baud_rates, probe
from hil.emulators.case import cases
from hil.emulators.imu_csv import CsvEmulator
from hil.emulators.serial_pcm import SerialPcmEmulator
from hil.emulators.us100 import Us100Emulator
from hil.emulators.witmotion import WitmotionEmulator

CASES = cases()
STREAMS = [name for name, case in CASES.items() if not case.asked and not case.start and not name.startswith("audio")]


def heard_from(name: str, folder: Path) -> tuple[bytes, float]:
    """What a second of listening gives, or 20 rows: it begins and ends anywhere."""
    if CASES[name].package is not None:
        pytest.importorskip(CASES[name].package)
    emulator = CASES[name].emulator(folder / "port")
    count = max(20, round(emulator.rate_hz))
    return b"".join(emulator.encode(7, count))[3:-2], count / emulator.rate_hz


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_known_by_its_bytes_and_nobody_else_claims_it(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    heard, seconds = heard_from(name, tmp_path)
    found = fits(heard, seconds, case.settings["baud"])
    # Lines of whole numbers may be anybody's.
    others = {"imu.csv"} if name == "ultrasonic.array.text" else set()
    assert {one.kind for one in found} == {case.kind} | others
    found = [one for one in found if one.kind == case.kind]
    assert found[0].settings["baud"] == case.settings["baud"]
    expected_hz = case.settings.get("rate_hz", 100)
    assert abs(found[0].rate_hz / expected_hz - 1) < 0.15
    chosen = {key: value for key, value in case.settings.items() if key not in ("baud", "rate_hz", "unit")}
    assert any(chosen.items() <= one.settings.items() for one in found)
    file = tmp_path / "axond.toml"
    file.write_text(toml("probed", "/dev/serial/by-id/x", found[0]))
    assert config.load(file).sensors["probed"].kind == case.kind


@pytest.mark.parametrize("baud", [115200, 9600, 921600])
@pytest.mark.parametrize(
    "heard",
    [
        np.random.default_rng(1).bytes(20_000),
        bytes(20_000),
        b"\xff" * 20_000,
        b"boot: ok\r\nwifi: connecting ...\r\n" * 200,
        b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n" * 50,
        (8000 * np.sin(np.arange(16_000) * 0.17)).astype("<i2").tobytes(),
        b"",
    ],
    ids=["noise", "zeros", "ones", "log", "gps", "raw sound", "nothing"],
)
def test_what_no_driver_speaks_is_claimed_by_none(heard: bytes, baud: int) -> None:
    assert fits(heard, 1.0, baud) == []


def test_a_stream_at_another_rate_than_its_sensors_have_is_not_claimed(tmp_path: Path) -> None:
    heard, seconds = heard_from("ultrasonic.maxbotix", tmp_path)
    assert fits(heard, seconds, 9600)
    assert fits(heard, seconds, 115200) == []


def test_columns_of_lines_are_counted(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(0, 100, (50, 3))
    wire = b"".join(CsvEmulator(rows, 50, tmp_path / "port").encode(0, 50))
    found = fits(wire[5:-3], 1.0, 115200)
    kinds = {one.kind: one.settings for one in found}
    assert kinds["imu.csv"]["columns"] == ("c0", "c1", "c2")
    lines = toml("c", "/dev/x", next(one for one in found if one.kind == "imu.csv"))
    assert 'columns = ["c0", "c1", "c2"]' in lines


def test_valid_frames_without_rows_are_told_apart(tmp_path: Path) -> None:
    frame = b"\x55\x53" + bytes(range(8))
    frame += bytes([sum(frame) & 0xFF])
    (found,) = fits(frame * 60, 1.0, 115200)
    assert found.kind == "imu.witmotion"
    assert "switch that on" in found.note


def test_the_usual_rates_come_first_and_none_twice() -> None:
    rates = baud_rates()
    assert rates[:2] == (115200, 9600)
    assert len(set(rates)) == len(rates)


@pytest.fixture
def imu(tmp_path: Path) -> Iterator[WitmotionEmulator]:
    rows = np.random.default_rng(0).integers(-3000, 3000, (500, 6)).astype(np.int16)
    with WitmotionEmulator(rows, 100, tmp_path / "imu") as emulator:
        yield emulator


def quiet(_: str) -> None:
    """Progress is for people."""


def test_a_polled_sensor_is_asked_and_others_are_not_written_to(tmp_path: Path) -> None:
    with Us100Emulator(np.full((10, 1), 500), tmp_path / "range") as emulator:
        silent = probe(str(emulator.link), ask=False, say=quiet)
        assert (silent.found, silent.asked, emulator.answered) == ([], [], 0)
        report = probe(str(emulator.link), ask=True, say=quiet)
    assert [one.kind for one in report.found] == ["ultrasonic.us100"]
    assert report.found[0].settings == {"baud": 9600}


def test_a_port_that_is_held_or_goes_away_is_told(imu: WitmotionEmulator) -> None:
    with closing(SerialLink(str(imu.link), 115200)) as link:
        link.open()
        with pytest.raises(Unavailable, match="held by another sensor of this process"):
            probe(str(imu.link), ask=True, say=quiet)
    with pytest.raises(Unavailable, match="went away"):
        probe(str(imu.link), ask=True, say=lambda _: imu.unplug())
    imu.plug()


def test_sound_without_frames_is_not_mistaken_for_a_sensor(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-8000, 8000, 16_000).astype(np.int16)
    wire = b"".join(SerialPcmEmulator(samples, 16_000, tmp_path / "mic").encode(0, 60))
    assert [fits(wire, 1.0, baud) for baud in (115200, 500_000, 2_000_000)] == [[], [], []]
