"""USB identities for terminals of emulated sensors: what sysfs and /dev show of a serial port at a USB socket.

Seen by processes that run under umockdev's preload library; needs no hardware and no privileges.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from hil.emulators.dvxplorer import ANSWER_S, PYTHON

PRELOAD = "libumockdev-preload.so.0"
ANSWERED = "terminal"
"""The node below /dev whose ioctls are answered; all others lead there."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a USB device says of itself."""

    vid: int
    pid: int
    serial: str
    product: str

    @property
    def usb_id(self) -> str:
        return f"{self.vid:04x}:{self.pid:04x}:{self.serial}"

    @property
    def by_id(self) -> Path:
        """The name that udev gives it, which stays."""
        return Path(f"/dev/serial/by-id/usb-{self.product}_{self.serial}-if00")


class UsbSockets:
    """A machine's sockets: terminals go in and out under any number."""

    def __enter__(self) -> "UsbSockets":
        script = Path(__file__).parent / "umockdev" / "usb_terminal.py"
        self._process = subprocess.Popen(
            [shutil.which("umockdev-wrapper") or "umockdev-wrapper", PYTHON, "-I", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._process.stdout is None:
            raise RuntimeError("the testbed has no output")
        self._root = Path(self._process.stdout.readline().strip())
        for folder in ("dev/serial/by-id", "ioctl/dev/serial/by-id", "sys/class/tty", "sys/bus/usb/devices"):
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=ANSWER_S)
        shutil.rmtree(self._root, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to see them."""
        return {"LD_PRELOAD": PRELOAD, "UMOCKDEV_DIR": str(self._root)}

    def plug(self, identity: Identity, terminal: Path, number: int) -> None:
        """``terminal`` is now ``/dev/ttyACM<number>``."""
        name = f"ttyACM{number}"
        device = self._device(number)
        interface = device / f"1-{number}:1.0"
        (interface / "tty" / name).mkdir(parents=True)
        facts = {"idVendor": f"{identity.vid:04x}", "idProduct": f"{identity.pid:04x}", "bNumInterfaces": "1"}
        for key, value in {**facts, "serial": identity.serial, "product": identity.product}.items():
            (device / key).write_text(f"{value}\n")
        (interface / "subsystem").symlink_to("/sys/bus/usb")
        (interface / "tty" / name / "device").symlink_to("../..")
        (self._root / "sys/class/tty" / name).symlink_to(f"../../devices/usb1/1-{number}/1-{number}:1.0/tty/{name}")
        for node, target in ((Path("/dev") / name, terminal.resolve()), (identity.by_id, f"../../{name}")):
            self._below(node).symlink_to(target)
            self._below(Path("/ioctl") / node.relative_to("/")).symlink_to(self._root / "ioctl/dev" / ANSWERED)

    def unplug(self, identity: Identity, number: int) -> None:
        name = f"ttyACM{number}"
        for node in (identity.by_id, Path("/dev") / name):
            self._below(node).unlink()
            self._below(Path("/ioctl") / node.relative_to("/")).unlink()
        (self._root / "sys/class/tty" / name).unlink()
        shutil.rmtree(self._device(number))

    def _device(self, number: int) -> Path:
        return self._root / "sys/devices/usb1" / f"1-{number}"

    def _below(self, path: Path) -> Path:
        return self._root / path.relative_to("/")
