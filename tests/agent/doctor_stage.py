"""A machine in a folder that is healthy until a fault is seeded: configuration, ports, and a tree of kernel files."""

import os
import pty
import shutil
import tempfile
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.doctor.checks import CHECKS
from agent.doctor.configuration import set_up
from agent.doctor.examine import examine
from agent.doctor.finding import Finding
from agent.doctor.scene import User
from agent.outbox import Outbox
from agent.outbox_store import OutboxLimits
from tests.conftest import Running, eventually

UNIT = """[Service]
ExecStart=/usr/bin/axond run
WatchdogSec=30
RestartPreventExitStatus=78
NoNewPrivileges=yes
ProtectSystem=strict
"""
USB = "sys/devices/usb1/1-1"
TREE = {
    "usr/lib/systemd/system/axond.service": UNIT,
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12"\n',
    "sys/class/rtc/rtc0/since_epoch": "1790000000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "45000\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "80000\n",
    "sys/class/hwmon/hwmon0/in0_lcrit_alarm": "0\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
    "sys/block/mmcblk0/device/life_time": "0x01 0x02\n",
    "sys/block/mmcblk0/device/pre_eol_info": "0x01\n",
    "sys/bus/usb/devices/1-0:1.0/1-0-port1/over_current_count": "0\n",
    f"{USB}/idVendor": "1a86\n",
    f"{USB}/idProduct": "7523\n",
    f"{USB}/serial": "A1B2C3D4\n",
    f"{USB}/power/control": "on\n",
    f"{USB}/1-1:1.0/ttyUSB0/tty/ttyUSB0/dev": "188:0\n",
    "proc/asound/cards": " 1 [ArrayUAC10     ]: USB-Audio - ReSpeaker 4 Mic Array\n",
    "proc/asound/pcm": "01-00: USB Audio : USB Audio : capture 1\n",
    "proc/asound/card1/stream0": "USB Audio\n\nCapture:\n  Status: Stop\n  Altset 1\n    Rates: 16000, 48000\n",
    "proc/1/comm": "systemd\n",
}  # fmt: skip


class Stage:
    """``tables`` are the lines of the configuration by table; ``write`` makes the file of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.config = folder / "axond.toml"
        self.state = folder / "state"
        self.stack = ExitStack()
        self.runner: User | None = None
        self.things: dict[str, Any] = {}
        """What a fault has made and its remedy ends."""
        self.tables: dict[str, str] = {"device": f'id = "stage"\nstate_dir = "{self.state}"'}
        self.state.mkdir()
        for place, text in TREE.items():
            self.put(place, text)
        tty_link = self.root / "sys/class/tty/ttyUSB0"
        tty_link.mkdir(parents=True)
        (tty_link / "device").symlink_to(self.root / USB / "1-1:1.0/ttyUSB0")
        (tty_link / "dev").write_text("188:0\n")
        self.write()

    def put(self, place: str, text: str) -> None:
        """A file below the root."""
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def table(self, name: str, text: str) -> None:
        """Sets or replaces a table of the configuration."""
        self.tables[name] = text
        self.write()

    def write(self) -> None:
        self.config.write_text("".join(f"[{name}]\n{text}\n" for name, text in self.tables.items()))

    def port(self, name: str = "imu") -> Path:
        """A serial port that nobody speaks on."""
        master, slave = pty.openpty()
        tty.setraw(slave)
        self.stack.callback(os.close, master)
        self.stack.callback(os.close, slave)
        link = self.folder / name
        link.symlink_to(os.ttyname(slave))
        return link

    def usb_port(self) -> Path:
        """A file that stands for /dev/ttyUSB0; sysfs has a device behind it."""
        self.put("dev/ttyUSB0", "")
        return self.root / "dev/ttyUSB0"

    def imu(self, port: Path, name: str = "imu0", more: str = "") -> None:
        self.table(f"sensors.{name}", f'driver = "imu.witmotion"\nport = "{port}"\nrate_hz = 50\n{more}')

    def fill(self, rows: int = 2000, size_bytes: int = 40, stream: str = "kw", text: str = "") -> None:
        """Results of a real outbox."""
        outbox = Outbox(self.state / "outbox.db", boot="b1", limits=OutboxLimits(32 << 20, keep_free_bytes=0))
        run = Running(outbox)
        assert outbox.opened.wait(10)
        for number in range(rows):
            outbox.put(stream, {"text": text or os.urandom(size_bytes).hex(), "number": number})
        eventually(lambda: not outbox.unwritten, "stored")
        run.stop()

    def real_proc(self) -> None:
        """Processes are those of this machine."""
        shutil.rmtree(self.root / "proc")
        (self.root / "proc").symlink_to("/proc")

    def look(self, topic: str) -> list[Finding]:
        """What one check finds."""
        scene = set_up(self.config, self.root)
        if self.runner is not None:
            scene = replace(scene, runner=self.runner)
        return examine(scene, [check for check in CHECKS if check.topic == topic])

    def ids(self, topic: str) -> set[str]:
        return {finding.id for finding in self.look(topic)}


@contextmanager
def staged() -> Iterator[Stage]:
    """In a folder that other users can reach: what they may do is asked of the kernel."""
    with tempfile.TemporaryDirectory(prefix="axond-doctor-") as folder:
        Path(folder).chmod(0o755)
        stage = Stage(Path(folder))
        with stage.stack:
            yield stage


@dataclass(frozen=True)
class Fault:
    """One fault: how it comes, how it is called, and that the remedy takes it away."""

    what: str
    topic: str
    id: str
    place: str
    """What the finding must name; ``{folder}`` is the stage's."""
    seed: Callable[[Stage], None]
    mend: Callable[[Stage], None] | None = None

    def __str__(self) -> str:
        return self.what


def check(stage: Stage, fault: Fault) -> Finding:
    """The fault is not there before, is found where it is, has a remedy, and is gone after that."""
    assert not bad(stage, fault)
    fault.seed(stage)
    found = bad(stage, fault)
    assert found, f"{fault.what}: found were {[f.told() for f in stage.look(fault.topic)]}"
    told = found[0].told()
    place = fault.place.format(folder=stage.folder)
    assert place in told["seen"] or place in told["where"], told
    assert told["remedy"], told
    whole = " ".join((told["seen"], told["remedy"], *told["commands"]))
    assert "{" not in whole.replace("ATTR{power/control}", ""), told
    if fault.mend is not None:
        fault.mend(stage)
        assert not bad(stage, fault)
    return found[0]


def bad(stage: Stage, fault: Fault) -> list[Finding]:
    """Findings of the fault; a step that went well has the same id."""
    return [found for found in stage.look(fault.topic) if found.id == fault.id and found.level != "ok"]
