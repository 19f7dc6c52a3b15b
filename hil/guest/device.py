"""axond installed in a guest, as on a device: from its package, or straight from this tree."""

import json
import os
import shlex
import site
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.status import StatusUnavailable, ask
from hil.guest.nspawn import Guest, available

PACKAGE_VARIABLE = "AXOND_DEB"
"""Names the package to install; without it the tree and the environment that run this are what the guest runs."""
TREE = Path(__file__).parents[2]
UNITS = TREE / "packaging" / "systemd"
GUEST_PYTHON = (3, 11)
SOURCES, LIBRARY = "/opt/axond/sources", "/opt/axond/library"
LAUNCHER = f"""#!/usr/bin/python3 -I
import sys
sys.path[:0] = ["{SOURCES}", "{LIBRARY}"]
from agent.__main__ import main
sys.exit(main())
"""
_OF_A_SERVICE = ("Type=", "NotifyAccess=", "ExecStart=", "Restart", "WatchdogSec=")
PLACES = {
    ".service": "/lib/systemd/system/{}.service",
    ".sysusers": "/usr/lib/sysusers.d/{}.conf",
    ".tmpfiles": "/usr/lib/tmpfiles.d/{}.conf",
    ".catalog": "/usr/lib/systemd/catalog/{}.catalog",
}
SENSOR = """import fcntl, os, sys, termios, threading
sys.path[:0] = [{paths}]
import numpy as np
from pathlib import Path
from drivers.synthetic import motion
from hil.emulators.witmotion import WitmotionEmulator
with WitmotionEmulator(motion("walking", 3000, np.random.default_rng(1)), 50.0, Path("{link}")) as sensor:
    os.chmod(os.path.realpath("{link}"), 0o660)
    os.chown(os.path.realpath("{link}"), 0, 20)
    port = os.open("{link}", os.O_RDWR | os.O_NOCTTY)
    while not threading.Event().wait(0.2):
        fcntl.ioctl(port, termios.TIOCNXCL)
"""
"""An IMU as a process of its own. Its port belongs to the group dialout, 20 on every Debian, as serial ports do.

A serial port forgets with its last reader that it was taken exclusively; a pseudo-terminal has its master as well, and
must be told after a reader was killed.
"""


def installable() -> str | None:
    """None where a guest with axond can be booted, else why not."""
    if (reason := available()) is not None:
        return reason
    if PACKAGE_VARIABLE not in os.environ and sys.version_info[:2] != GUEST_PYTHON:
        return f"the guest has Python 3.11, this is {sys.version.split()[0]}: {PACKAGE_VARIABLE} may name a package"
    return None


@contextmanager
def device(folder: Path) -> Iterator["Device"]:
    """A booted guest with axond in it: not started, not configured. Raises GuestError."""
    package = os.environ.get(PACKAGE_VARIABLE)
    binds = {} if package else {TREE: SOURCES, Path(site.getsitepackages()[0]): LIBRARY}
    with Guest.booted(folder, binds) as guest:
        made = Device(guest)
        if package:
            guest.copy(Path(package), "/root/axond.deb")
            guest.run("dpkg", "-i", "/root/axond.deb", timeout_s=300)
            guest.run("systemctl", "stop", "axond", check=False)
        else:
            made.put_tree()
        yield made


class Device:
    """What tests do with it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def put_tree(self) -> None:
        """What the package does, from this tree."""
        self.guest.write("/usr/bin/axond", LAUNCHER)
        self.guest.run("chmod", "755", "/usr/bin/axond")
        for path in sorted(UNITS.iterdir()):
            if path.suffix in PLACES:
                self.guest.write(PLACES[path.suffix].format(path.stem), path.read_text())
        self.guest.run("systemd-sysusers")
        self.guest.run("systemd-tmpfiles", "--create", "axond.conf")
        self.guest.run("journalctl", "--update-catalog")
        self.guest.run("systemctl", "daemon-reload")

    def configure(self, text: str) -> None:
        self.guest.write("/etc/axond/axond.toml", text)

    def adjust(self, unit: str, *lines: str) -> None:
        """A drop-in of ``[Service]`` lines, as ``systemctl edit`` makes one."""
        self.guest.write(f"/etc/systemd/system/{unit}.service.d/test.conf", "\n".join(["[Service]", *lines, ""]))
        self.guest.run("systemctl", "daemon-reload")

    def write_sandbox(self, *command: str) -> None:
        """The unit ``sandbox``: a command in the sandbox of axond.service, with its user and its devices."""
        lines = self.guest.run("systemctl", "cat", "axond").stdout.splitlines()
        kept = [line for line in lines if not line.startswith(_OF_A_SERVICE)]
        at = kept.index("[Service]") + 1
        kept[at:at] = ["Type=oneshot", f"ExecStart={shlex.join(command)}"]
        self.guest.write("/etc/systemd/system/sandbox.service", "\n".join([*kept, ""]))
        self.guest.run("systemctl", "daemon-reload")

    def in_sandbox(self, *command: str, timeout_s: float) -> str:
        """A command's output, run in that sandbox. Raises GuestError."""
        self.write_sandbox(*command)
        self.guest.run("systemctl", "start", "sandbox", timeout_s=timeout_s)
        said = ("journalctl", "-u", "sandbox", "-o", "cat", "--no-pager", "_TRANSPORT=stdout")
        return self.guest.run(*said).stdout

    def plug_sensor(self, link: str, unit: str = "sensor") -> None:
        """An IMU appears at ``link``."""
        python, paths = ("/usr/bin/python3", f'"{SOURCES}", "{LIBRARY}"')
        if PACKAGE_VARIABLE in os.environ:
            python, paths = "/opt/axond/bin/python3", ""
        self.guest.write(f"/root/{unit}.py", SENSOR.format(link=link, paths=paths))
        self.guest.run("systemd-run", "--quiet", f"--unit={unit}", python, "-I", f"/root/{unit}.py")

    def start_broker(self, users: Mapping[str, str]) -> None:
        """Debian's mosquitto with its own unit; ``users`` have passwords, nobody else is let in."""
        for name, password in users.items():
            self.guest.run("touch", "/etc/mosquitto/passwd")
            self.guest.run("mosquitto_passwd", "-b", "/etc/mosquitto/passwd", name, password)
        self.guest.run("chown", "mosquitto:", "/etc/mosquitto/passwd")
        lines = ("listener 1883 127.0.0.1", "allow_anonymous false", "password_file /etc/mosquitto/passwd", "")
        self.guest.write("/etc/mosquitto/conf.d/test.conf", "\n".join(lines))
        self.guest.run("systemctl", "start", "mosquitto")

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.guest.run("systemctl", "show", unit, "-p", name, "--value").stdout.strip()

    def pid(self, unit: str = "axond") -> int:
        """Of the unit's main process, as this machine counts."""
        return self.guest.outside(int(self.show(unit, "MainPID")))

    def status(self) -> dict[str, Any]:
        """The running agent's snapshot; empty while none answers."""
        try:
            return ask(self.guest.root / "var/lib/axond")
        except StatusUnavailable:
            return {}

    def outbox(self) -> dict[str, Any]:
        """``axond outbox stats``, of the file."""
        answer: dict[str, Any] = json.loads(self.guest.run("axond", "outbox", "stats", "--json").stdout)
        return answer

    def hub_ledger(self) -> list[dict[str, Any]]:
        """What the hub stored of each boot and stream; empty before its first start."""
        command = ("axond", "hub", "ledger", "--db", "/var/lib/axond-hub/hub.db", "--json")
        done = self.guest.run(*command, check=False)
        lines: list[dict[str, Any]] = json.loads(done.stdout) if done.stdout else []
        return lines

    def journal(self, unit: str = "axond") -> list[dict[str, Any]]:
        """All that was said by and about a unit, oldest first."""
        done = self.guest.run("journalctl", "-u", unit, "-o", "json", "--no-pager")
        return [json.loads(line) for line in done.stdout.splitlines()]
