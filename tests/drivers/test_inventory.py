"""What is plugged in, who holds it, and which names stay."""

import os
import pty
import subprocess
import time
from contextlib import closing
from pathlib import Path

from drivers import inventory
from drivers.lib.serial_link import SerialLink

DEADLINE_S = 10.0


def test_who_holds_a_port(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    path = Path(os.ttyname(slave))
    os.close(slave)
    try:
        with subprocess.Popen(["cat", str(path)], stdout=subprocess.DEVNULL) as reader:
            deadline_s = time.monotonic() + DEADLINE_S
            while (held := inventory.holder(path)) is None:
                assert time.monotonic() < deadline_s
            reader.kill()
        assert held == f"cat ({reader.pid})"
        with closing(SerialLink(str(path), 9600)) as link:
            link.open()
            held = inventory.holder(path)
            assert held is not None
            assert f"({os.getpid()})" in held
    finally:
        os.close(master)
    assert inventory.holder(tmp_path / "absent") is None


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_microphones_have_names_that_stay(tmp_path: Path) -> None:
    write(
        tmp_path / "asound/cards",
        " 0 [PCH            ]: HDA-Intel - HDA Intel PCH\n                      HDA Intel PCH at 0xa1\n"
        " 1 [ArrayUAC10     ]: USB-Audio - ReSpeaker 4 Mic Array (UAC1.0)\n                      SEEED\n",
    )
    write(
        tmp_path / "asound/pcm",
        "00-03: HDMI 0 : HDMI 0 : playback 1\n01-00: USB Audio : USB Audio : playback 1 : capture 1\n",
    )
    write(tmp_path / "asound/card1/pcm0c/sub0/status", "state: RUNNING\nowner_pid   : 42\n")
    write(tmp_path / "42/comm", "arecord\n")
    (device,) = inventory.capture_devices(tmp_path)
    assert device.device == "hw:CARD=ArrayUAC10,DEV=0"
    assert (device.product, device.holder) == ("ReSpeaker 4 Mic Array (UAC1.0)", "arecord (42)")
    assert inventory.capture_devices(tmp_path / "absent") == []


def test_event_cameras_are_known_by_their_usb_id(tmp_path: Path) -> None:
    for name, vid, pid in (("1-1", "152a", "8419"), ("1-2", "0403", "6001"), ("1-3", "04b4", "00f5")):
        for key, value in (("idVendor", vid), ("idProduct", pid), ("serial", f"S{name}"), ("busnum", "1")):
            write(tmp_path / "bus/usb/devices" / name / key, value + "\n")
    found = inventory.event_cameras(tmp_path)
    assert [camera.usb_id for camera in found] == ["152a:8419:S1-1", "04b4:00f5:S1-3"]
    assert found[0].product == "iniVation"


def test_a_link_without_a_serial_number_behind_it_is_not_stable(tmp_path: Path) -> None:
    write(tmp_path / "ttyUSB0", "")
    for folder in ("serial/by-id", "serial/by-path"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "name").symlink_to(tmp_path / "ttyUSB0")
    names = [inventory.stable_name(tmp_path / "ttyUSB0", tmp_path, unique=unique) for unique in (True, False)]
    assert names == [str(tmp_path / "serial/by-id/name"), str(tmp_path / "serial/by-path/name")]
