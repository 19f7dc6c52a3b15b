"""``axond sensors``: what it says to people and machines; and the udev rules."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent import config
from agent.__main__ import main
from agent.tail import Meter, headline, line
from drivers import inventory
from drivers.packet import EVENT, Packet, SensorCounters, SensorInfo
from hil.emulators.witmotion import WitmotionEmulator

DEADLINE_S = 10.0
RULES = Path(__file__).parents[2] / "packaging" / "udev" / "60-axond.rules"


@pytest.fixture
def imu(tmp_path: Path) -> Iterator[WitmotionEmulator]:
    rows = np.random.default_rng(0).integers(-3000, 3000, (500, 6)).astype(np.int16)
    with WitmotionEmulator(rows, 100, tmp_path / "imu") as emulator:
        yield emulator


def test_probe_says_what_to_paste(imu: WitmotionEmulator, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["sensors", "probe", str(imu.link)]) == 0
    said = capsys.readouterr().out
    assert "imu.witmotion at 115200 baud" in said
    file = tmp_path / "axond.toml"
    file.write_text(said[said.index("[sensors") :])
    sensor = config.load(file).sensors["sensor0"]
    assert sensor.settings.model_dump() == {"port": str(imu.link), "baud": 115200, "rate_hz": 100}


def test_probe_for_machines(imu: WitmotionEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensors", "probe", "--json", str(imu.link)]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["found"][0]["kind"] == "imu.witmotion"
    assert 'driver = "imu.witmotion"' in report["found"][0]["toml"]


def test_a_port_that_is_missing_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["sensors", "probe", str(tmp_path / "absent")]) == 1
    assert "does not exist" in capsys.readouterr().err


def write_config(folder: Path, port: Path) -> Path:
    path = folder / "axond.toml"
    path.write_text(
        f'[device]\nstate_dir = "{folder}/state"\n[sensors.motion]\ndriver = "synthetic"\n'
        f'[sensors.imu0]\ndriver = "imu.witmotion"\nport = "{port}"\nrate_hz = 100\n'
    )
    return path


def test_list_names_configured_and_present(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_config(tmp_path, tmp_path / "imu")
    assert main(["sensors", "list", "--json", "--config", str(path)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sensors"]["imu0"] == {"driver": "imu.witmotion", "device": str(tmp_path / "imu")}
    assert all(port["device"].startswith("/dev/") for port in facts["serial_ports"])
    assert main(["sensors", "list", "--config", str(path)]) == 0
    assert "imu.witmotion" in capsys.readouterr().out
    assert main(["sensors", "list", "--config", str(tmp_path / "absent.toml")]) == 78


def test_tail_gives_a_line_of_numbers_a_second(
    imu: WitmotionEmulator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write_config(tmp_path, imu.link)
    assert main(["sensors", "tail", "imu0", "--seconds", "1.5", "--json", "--config", str(path)]) == 0
    first, last = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert 80 < first["rate_hz"] < 120
    assert 0 <= first["jitter_ms"] < 50
    assert (first["lost"], last["lost"]) == (0, 0)
    assert set(first["values"]) == {"ax", "ay", "az", "gx", "gy", "gz"}
    assert first["values"]["ax"]["unit"] == "g"
    assert abs(first["values"]["ax"]["max"]) <= 3000 * 16 / 32768 + 1e-6
    assert main(["sensors", "tail", "imu0", "--seconds", "0.3", "--config", str(path)]) == 0
    assert re.match(r"imu0  [\d.]+ Hz, jitter [\d.]+ ms, lost 0; ax -?[\d.e-]+ g", capsys.readouterr().out)


def test_tail_of_a_sensor_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_config(tmp_path, tmp_path / "absent")
    assert main(["sensors", "tail", "imu0", "--config", str(path)]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert main(["sensors", "tail", "nobody", "--config", str(path)]) == 1
    assert "no sensor 'nobody'; there are motion, imu0" in capsys.readouterr().err


def test_tail_of_a_sensor_that_the_agent_has(
    imu: WitmotionEmulator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write_config(tmp_path, imu.link)
    command = [sys.executable, "-m", "agent", "run", "--config", str(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as agent:
        try:
            deadline_s = time.monotonic() + DEADLINE_S
            while not reads(path, capsys):
                assert time.monotonic() < deadline_s
                assert agent.poll() is None
            assert main(["sensors", "tail", "imu0", "--config", str(path)]) == 1
            assert "held by the running agent" in capsys.readouterr().err
        finally:
            agent.terminate()


def reads(path: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    code = main(["status", "--json", "--config", str(path)])
    said = capsys.readouterr().out
    return code == 0 and json.loads(said)["sensors"]["imu0"]["state"] == "live"


IMU = SensorInfo("imu", ("a", "b"), ("g", "deg/s"), (0.5, 0.1), 100)
SOUND = SensorInfo("audio", ("mono",), ("FS",), (1 / 32768,), 16000)
EVENTS = SensorInfo("event_camera", ("x", "y", "on"), ("px", "px", "1"), (1.0,) * 3, 1e6)
STEP_NS = 10_000_000


def packet(seq: int, t0_ns: int, data: Any, dt_ns: int = STEP_NS, lost: int = 0) -> Packet:
    return Packet("s", seq, t0_ns, dt_ns, data, lost)


def test_values_are_in_the_unit_and_times_are_judged_by_the_grid() -> None:
    meter = Meter("s", IMU, SensorCounters(), 0)
    meter.add(packet(0, 0, np.array([[1, 10], [3, -10]], np.int16)), 5 * STEP_NS)
    meter.add(packet(1, 3 * STEP_NS + 3_000_000, np.array([[2, 20]], np.int16), lost=1), 6 * STEP_NS)
    facts = meter.take(10 * STEP_NS)
    assert facts["values"]["a"] == {"last": 1.0, "min": 0.5, "max": 1.5, "unit": "g"}
    assert facts["values"]["b"]["min"] == -1.0
    assert (facts["samples"], facts["packets"], facts["lost"], facts["rate_hz"]) == (3, 2, 1, 30.0)
    assert facts["jitter_ms"] == 3.0
    assert "lost 1" in headline(facts)
    nothing = meter.take(20 * STEP_NS)
    assert (nothing["samples"], nothing["jitter_ms"], nothing["lost"], nothing["values"]) == (0, None, 1, {})
    assert "jitter -" in line(nothing)


def test_silence_is_told_apart_from_losses() -> None:
    meter = Meter("s", IMU, counters := SensorCounters(), 0)
    assert "silent" not in headline(meter.take(STEP_NS))
    counters.silent_s = 2.5
    assert headline(meter.take(2 * STEP_NS)).endswith("lost 0, silent 2.5 s")


def test_the_level_of_sound_is_in_dbfs() -> None:
    meter = Meter("s", SOUND, SensorCounters(), 0)
    sine = np.rint(16384 * np.sin(np.arange(1600) * 2 * np.pi / 16)).astype(np.int16)[:, None]
    meter.add(packet(0, 0, sine, 62_500), STEP_NS)
    level = meter.take(STEP_NS)["values"]["mono"]
    assert (level["peak_dbfs"], level["rms_dbfs"]) == (-6.0, -9.0)
    meter.add(packet(1, 0, np.zeros((10, 1), np.int16), 62_500), STEP_NS)
    assert meter.take(2 * STEP_NS)["values"]["mono"]["rms_dbfs"] == -120.0


def test_events_are_drawn_where_they_are() -> None:
    from rich.console import Console

    meter = Meter("s", EVENTS, SensorCounters(notes={"hot": "one pixel is hot"}), 0)
    events = np.zeros(4, EVENT)
    events["x"], events["y"], events["on"] = (0, 0, 345, 345), (0, 0, 259, 259), (1, 1, 0, 0)
    meter.add(packet(0, 0, events, 0), STEP_NS)
    facts = meter.take(100 * STEP_NS)
    assert facts["values"] == {"on": 2, "off": 2, "width": 346, "height": 260}
    assert facts["rate_hz"] == 4.0
    with (Path(os.devnull)).open("w") as nowhere:
        out = Console(file=nowhere, record=True, width=100, force_terminal=True, color_system="truecolor")
        out.print(meter.picture(facts))
        drawn = out.export_text(styles=True)
    lines = drawn.splitlines()
    raster = [text for text in lines if "▀" in text]
    assert len(raster) == 24
    assert "38;2;0;255;0" in raster[0]
    assert "48;2;255;0;0" in raster[-1]
    assert not any("255" in text for text in raster[1:-1])
    assert "one pixel is hot" in drawn
    assert "2 brighter, 2 darker, 346 x 260" in drawn


@pytest.mark.parametrize("info", [IMU, SOUND])
def test_pictures_of_numbers_and_levels(info: SensorInfo) -> None:
    from rich.console import Console

    meter = Meter("s", info, SensorCounters(), 0)
    meter.add(packet(0, 0, np.full((10, len(info.channels)), 1000, np.int16)), STEP_NS)
    facts = meter.take(STEP_NS)
    with Path(os.devnull).open("w") as nowhere:
        out = Console(file=nowhere, record=True, width=100)
        out.print(meter.picture(facts))
    drawn = out.export_text()
    assert all(name in drawn for name in info.channels)
    assert ("dBFS" if info is SOUND else "deg/s") in drawn


TERM = re.compile(
    r"(ACTION|SUBSYSTEMS?|KERNEL|DRIVERS?|TEST|GOTO|LABEL|GROUP|MODE|SYMLINK|TAG|"
    r'(?:ATTRS?|ENV|IMPORT)\{[A-Za-z_]+\})(==|!=|\+=|=)"([^"]*)"'
)


def test_udev_rules_are_well_formed_and_lead_somewhere() -> None:
    labels, targets = [], []
    for number, text in enumerate(RULES.read_text().splitlines(), 1):
        if not text or text.startswith("#"):
            continue
        for term in text.split(", "):
            match = TERM.fullmatch(term)
            assert match, f"{RULES.name}:{number}: {term!r}"
            key, _, value = match.groups()
            labels += [value] if key == "LABEL" else []
            targets += [(number, value)] if key == "GOTO" else []
            if key in ("ATTR{idVendor}", "ATTRS{idVendor}", "ATTR{idProduct}", "ATTRS{idProduct}"):
                assert re.fullmatch(r"([0-9a-f]{2,4}(\[[0-9a-f]+\])?\??\|?)+", value), (
                    f"{RULES.name}:{number}: {value!r}"
                )
    assert sorted(labels) == sorted({target for _, target in targets})


def test_udev_rules_name_every_event_camera_that_is_listed() -> None:
    text = RULES.read_text()
    for vendor, _, _, maker in inventory.EVENT_CAMERAS:
        assert f'ATTR{{idVendor}}=="{vendor:04x}"' in text, maker
    for wanted in ('ENV{ID_MM_DEVICE_IGNORE}="1"', 'ATTR{latency_timer}="1"', 'TAG+="uaccess"', 'GROUP="dialout"'):
        assert wanted in text
    assert f'ENV{{AXOND_UNIT}}=="{"|".join(inventory.NO_SERIALS)}", ENV{{AXOND_UNIT}}=""' in text
