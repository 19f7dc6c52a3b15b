"""The sandbox on an emulated PC, where rules for devices hold: sensors that come late are let in, nothing else.

``make service`` runs it; it takes five minutes, as an emulated PC is slow.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.synthetic import motion
from hil.emulators.witmotion import encode
from hil.guest.device import PACKAGE_VARIABLE, Device, device, installable
from hil.guest.machine import Machine, bootable, give_drivers, make_image
from tests.end_to_end.rig import wait_for

RATE_HZ = 50.0
BOOT_S, RESULTS_S, END_S = 900.0, 600.0, 300.0
ALLOWED = ("/dev/ttyUSB0", "/dev/ttyS1", "/dev/snd/controlC0", "/dev/snd/pcmC0D1c", "/dev/bus/usb/001/001", "/dev/null")
FORBIDDEN = ("/dev/vda", "/dev/mem", "/dev/kmsg", "/dev/input/event0", "/dev/vcs1")

pytestmark = pytest.mark.skipif(os.environ.get("AXOND_SERVICE") != "full", reason="takes minutes: make service")

CONFIG = """
[device]
id = "guest"
profile = "pi"
[sensors.imu0]
driver = "imu.witmotion"
port = "/dev/ttyUSB0"
rate_hz = 50
[sensors.mic0]
driver = "audio.alsa"
device = "plughw:CARD=Loopback,DEV=1"
rate_hz = 16000
[pipelines.motion]
sensors = ["imu0"]
model = "activity"
"""

ACTOR = """
import json, os, subprocess, time
def say(**what):
    with open("/dev/ttyS0", "w") as console:
        console.write("\\nSAID " + json.dumps(what) + "\\n")
def status():
    done = subprocess.run(["axond", "status", "--json"], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None
"""
"""What every script in an emulated PC begins with."""
ACT = f"""
while (now := status()) is None or now["sensors"]["imu0"]["state"] != "missing":
    time.sleep(1)
say(waits=now["sensors"]["imu0"]["problem"])
while not now or now["pipelines"]["motion"]["inferences"] < 2 or now["sensors"]["mic0"]["state"] != "live":
    time.sleep(2)
    now = status()
say(priorities=now["profile"]["scheduling"]["priorities"])
say(sensors={{name: sensor["state"] for name, sensor in now["sensors"].items()}}, health=now["health"])
for path in {(*ALLOWED, *FORBIDDEN)!r}:
    os.chmod(path, 0o666)
subprocess.run(["systemctl", "stop", "axond"])
subprocess.run(["systemctl", "start", "sandbox"])
said = subprocess.run(["journalctl", "-u", "sandbox", "-o", "cat", "_TRANSPORT=stdout"], capture_output=True, text=True)
say(opened=dict(line.split() for line in said.stdout.splitlines()))
log = subprocess.run(["journalctl", "-u", "axond", "-p", "warning", "-o", "cat"], capture_output=True, text=True).stdout
say(log=log.splitlines())
"""

OPEN = f"""
import errno, os
for path in {(*ALLOWED, *FORBIDDEN)!r}:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))
        print(path, "opened")
    except OSError as error:
        print(path, errno.errorcode[error.errno])
"""


@contextmanager
def disk(folder: Path, config: str, act: str, prepare: Callable[[Device], None] = lambda _: None) -> Iterator[Path]:
    """That of a PC on which the package is installed and configured, and which runs the script ``act`` when it is up.

    Skips the test where there can be none.
    """
    if (reason := installable() or bootable()) is not None:
        pytest.skip(reason)
    if PACKAGE_VARIABLE not in os.environ:
        pytest.skip(f"{PACKAGE_VARIABLE} names no package to install: make service")
    made = folder / "disk.img"
    with device(folder / "guest") as installed:
        guest = installed.guest
        prepare(installed)
        installed.configure(config)
        installed.adjust("axond", "TimeoutStartSec=600", "WatchdogSec=300")
        guest.write("/root/act.py", ACTOR + act)
        unit = "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/usr/bin/python3 /root/act.py\n"
        guest.write("/etc/systemd/system/act.service", unit + "[Install]\nWantedBy=multi-user.target\n")
        guest.run("systemctl", "enable", "act", "axond")
        guest.end(power_off=True)
    make_image(folder / "guest", made)
    yield made
    made.unlink()


def put_devices(installed: Device) -> None:
    """Drivers, a sound card, and a program that tries what the sandbox lets in."""
    give_drivers(installed.guest)
    installed.guest.write("/etc/modules-load.d/loopback.conf", "snd-aloop\n")
    installed.guest.write("/usr/local/lib/open.py", OPEN)
    installed.write_sandbox("/usr/bin/python3", "-I", "/usr/local/lib/open.py")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path, CONFIG, ACT, put_devices) as made:
        yield made


def said(machine: Machine, what: str) -> Any:
    """The last that the guest said of ``what``; None: nothing yet."""
    found = None
    for line in machine.console.splitlines():
        if line.startswith("SAID {") and line.rstrip().endswith("}"):
            found = json.loads(line.removeprefix("SAID ")).get(what, found)
    return found


def test_sensors_that_come_late_are_let_in_and_other_devices_are_not(image: Path, tmp_path: Path) -> None:
    frames = encode(motion("walking", 3000, np.random.default_rng(1)), 0, RATE_HZ, timed=True, angles=True)
    with Machine(image, tmp_path) as machine:
        wait_for("the service misses its sensor", lambda: said(machine, "waits") is not None, BOOT_S)
        assert "/dev/ttyUSB0" in said(machine, "waits")
        with machine.plugged() as wire:
            unplugged = threading.Event()

            def play() -> None:
                at = 0
                with suppress(OSError):  # unplugged in the middle of a frame
                    while not unplugged.wait(1 / RATE_HZ):
                        wire.sendall(frames[at % len(frames)])
                        at += 1

            def hear() -> None:
                """What nobody takes off the wire would in the end stop the whole machine."""
                with suppress(OSError):
                    while wire.recv(4096):
                        pass

            players = [threading.Thread(target=play), threading.Thread(target=hear)]
            for player in players:
                player.start()
            try:
                wait_for("results of it", lambda: said(machine, "sensors") is not None, RESULTS_S)
                assert said(machine, "sensors") == {"imu0": "live", "mic0": "live"}
                assert said(machine, "priorities") == {"capture": "SCHED_RR 10", "pipeline": "nice -5"}
                wait_for("what may be opened", lambda: said(machine, "opened") is not None, END_S)
            finally:
                unplugged.set()
                wire.shutdown(socket.SHUT_RDWR)
                for player in players:
                    player.join()
        opened = said(machine, "opened")
        assert {path: opened[path] for path in ALLOWED} == dict.fromkeys(ALLOWED, "opened")
        # EPERM: the rules for devices; EACCES: what ProtectKernelLogs= hides. Their permissions let everybody in.
        assert {opened[path] for path in FORBIDDEN} <= {"EPERM", "EACCES"}, opened
