"""``axond bench drivers``: cases run and say what they promise; how good the numbers are is for people to judge."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from drivers.lib.serial_sensor import SerialSensor
from drivers.registry import driver_class, kinds
from hil.bench import drivers, event_files
from hil.emulators.case import cases


def test_every_serial_driver_has_a_case() -> None:
    serial = {kind for kind in kinds() if issubclass(driver_class(kind), SerialSensor)}
    assert serial <= {case.kind for case in cases().values()}


@pytest.mark.parametrize("name", ["imu.witmotion", "event_camera.edvs", "ultrasonic.us100"])
def test_a_case_beside_its_baseline(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "cases", lambda: {name: cases()[name]})
    monkeypatch.setattr(drivers, "EVENT_FILES_S", 0.0)
    monkeypatch.setattr(event_files, "EVENTS", 10_000)
    numbers = drivers.measure(1.5)
    assert {key.removeprefix(name).split(".")[1] for key in numbers} >= {"live_per_s", "cpu_share", "lost"}
    assert "event_files.source" in numbers
    assert numbers[f"{name}.live_per_s"] > 0
    assert 0 < numbers[f"{name}.cpu_share"] < 1
    if name == "ultrasonic.us100":
        # A sensor that must be asked has no stream that could be parsed or read bare.
        assert f"{name}.times_line" not in numbers
        assert f"{name}.bare_cpu_share" not in numbers
    else:
        assert numbers[f"{name}.times_line"] > 1
        assert numbers[f"{name}.times_sensor"] > 1
        assert numbers[f"{name}.mb_per_s"] > 0
        assert 0 < numbers[f"{name}.bare_cpu_share"] < 1
        assert numbers[f"{name}.bare_bytes_per_s"] > 0


def test_the_player_tells_what_the_line_dropped(tmp_path: Path) -> None:
    link = tmp_path / "port"
    command = [sys.executable, "-m", "hil.bench.play", "imu.bno08x_rvc", str(link)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert link.is_symlink()
        told, _ = child.communicate(timeout=10)
    assert json.loads(told)["dropped_rows"] >= 0
    assert child.returncode == 0
    assert not link.is_symlink()


def test_event_files_stand_beside_faery_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faery")
    monkeypatch.setattr(event_files, "EVENTS", 10_000)
    numbers = event_files.measure(0.5)
    assert "encoded by faery" in numbers.pop("event_files.source")
    assert {key.split(".")[1] for key in numbers} == {"evt2", "evt3", "aedat4", "dat", "es", "five_bytes"}
    assert all(value > 0 for value in numbers.values())
    for kind in ("evt2", "evt3", "aedat4", "dat", "es"):
        assert {key.rsplit(".")[2] for key in numbers if f".{kind}." in key} == {
            "events_per_s",
            "faery_events_per_s",
            "ratio",
        }
    assert "event_files.five_bytes.ratio" not in numbers
