"""Serial ports by their USB identity: ``vid:pid:serial`` and by-id names, whatever number the port has today."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hil.emulators.dvxplorer import missing
from hil.emulators.usb_port import Identity, UsbSockets
from hil.emulators.witmotion import WitmotionEmulator

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

DEADLINE_S = 30.0
OURS = Identity(0x1A86, 0x7523, "A1B2", "WT901")
OTHER = Identity(0x1A86, 0x7523, "C3D4", "WT901")
READER = """
import sys, threading
from drivers.base import Disconnected, Unavailable
from drivers.imu.witmotion import Witmotion, WitmotionConfig
driver = Witmotion("imu0", WitmotionConfig(port=sys.argv[1], rate_hz=100))
said = None
def say(sentence):
    global said
    if sentence != said:
        print(sentence, flush=True)
    said = sentence
while True:
    try:
        driver.open()
        while True:
            packet = driver.read(0.2)
            if packet is not None:
                say(f"rows of {packet.data.shape[1]} channels")
    except Disconnected as error:
        say(f"gone: {error}")
    except Unavailable as error:
        say(f"missing: {error}")
    driver.close()
    threading.Event().wait(0.05)
"""


@pytest.fixture
def sockets() -> Iterator[UsbSockets]:
    with UsbSockets() as machine:
        yield machine


@pytest.fixture
def sensors(tmp_path: Path) -> Iterator[tuple[WitmotionEmulator, WitmotionEmulator]]:
    rows = np.random.default_rng(0).integers(-3000, 3000, (500, 6)).astype(np.int16)
    with (
        WitmotionEmulator(rows, 100, tmp_path / "ours") as ours,
        WitmotionEmulator(rows, 100, tmp_path / "other") as other,
    ):
        yield ours, other


def line(reader: subprocess.Popen[bytes]) -> str:
    assert reader.stdout is not None
    assert select.select([reader.stdout], [], [], DEADLINE_S)[0]
    return reader.stdout.readline().decode()


@pytest.mark.parametrize("port", [OURS.usb_id, str(OURS.by_id)])
def test_a_sensor_is_found_again_under_another_number(
    sockets: UsbSockets, sensors: tuple[WitmotionEmulator, WitmotionEmulator], port: str
) -> None:
    ours, other = sensors
    sockets.plug(OTHER, other.link, 0)
    with subprocess.Popen(
        [sys.executable, "-c", READER, port],
        env={**os.environ, **sockets.environment},
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as reader:
        try:
            absent = line(reader)
            assert absent.startswith("missing: ")
            assert "ports that are here: /dev/ttyACM0 (1a86:7523 WT901)" in absent
            sockets.plug(OURS, ours.link, 1)
            assert line(reader) == "rows of 6 channels\n"
            sockets.unplug(OURS, 1)
            ours.unplug()
            assert "went away" in line(reader)
            assert line(reader) == absent
            ours.plug()
            sockets.plug(OURS, ours.link, 7)
            assert line(reader) == "rows of 6 channels\n"
        finally:
            reader.kill()


def test_a_serial_number_that_every_chip_has_makes_no_name_that_stays(
    sockets: UsbSockets, sensors: tuple[WitmotionEmulator, WitmotionEmulator]
) -> None:
    nameless = Identity(0x10C4, 0xEA60, "0001", "CP2102")
    sockets.plug(nameless, sensors[0].link, 0)
    command = [sys.executable, "-m", "agent", "sensors", "list", "--json"]
    environment = {**os.environ, **sockets.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    (port,) = json.loads(done.stdout)["serial_ports"]
    assert (port["usb_id"], port["stable"]) == (nameless.usb_id, None)


def test_list_and_probe_tell_the_name_that_stays(
    sockets: UsbSockets, sensors: tuple[WitmotionEmulator, WitmotionEmulator]
) -> None:
    ours, _ = sensors
    sockets.plug(OURS, ours.link, 3)
    environment = {**os.environ, **sockets.environment}

    def told(*arguments: str) -> list[dict[str, object]]:
        command = [sys.executable, "-m", "agent", "sensors", *arguments, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        found = json.loads(done.stdout)
        return list(found["serial_ports"] if isinstance(found, dict) else found)

    (port,) = told("list")
    assert port == {
        "device": "/dev/ttyACM3",
        "stable": str(OURS.by_id),
        "usb_id": OURS.usb_id,
        "product": "WT901",
        "holder": None,
        "access": "ok",
    }
    (report,) = told("probe")
    assert report["port"] == str(OURS.by_id)
    assert 'driver = "imu.witmotion"' in str(report["found"])
