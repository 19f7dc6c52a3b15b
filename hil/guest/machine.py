"""A whole emulated PC with the same Debian: what a container does not have, USB with hot-plug and rules for devices.

Everything runs 15 to 30 times slower than on a machine: look at what happens here, never at how long it takes. Nobody
talks to it; a unit in it acts and writes to its console.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from hil.guest.nspawn import Guest, available
from hil.guest.root import GuestError, cached_root

BOOT, MODULES = Path("/boot"), Path("/lib/modules")
DRIVERS = ("drivers/usb", "drivers/input", "sound")
"""Of this machine's Debian kernel, which the guest boots."""
IMAGE_BYTES = 2 << 30
MEMORY_MIB = 1024
PLUG_S = 30.0
POLL_S = 0.1


def bootable() -> str | None:
    """None where a PC can be emulated, else why not."""
    if (reason := available()) is not None:
        return reason
    missing = [name for name in ("qemu-system-x86_64", "mke2fs", "depmod") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (apt install qemu-system-x86 e2fsprogs kmod)"
    if _kernel() is None:
        return "no Debian kernel with its modules is here to boot (apt install linux-image-amd64)"
    return None


def _kernel() -> str | None:
    """The name of a kernel of which all parts are here."""
    names = [path.name.removeprefix("vmlinuz-") for path in sorted(BOOT.glob("vmlinuz-*"), reverse=True)]
    whole = [name for name in names if (BOOT / f"initrd.img-{name}").exists() and (MODULES / name).is_dir()]
    return whole[0] if whole else None


def give_drivers(guest: Guest) -> None:
    """Puts the drivers of sensors into a running guest, for the kernel that the machine will boot."""
    kernel = _kernel()
    if kernel is None:
        raise GuestError("no Debian kernel is here")
    source = MODULES / kernel
    for part in DRIVERS:
        guest.copy(source / "kernel" / part, f"{source}/kernel/{part}")
    for path in source.glob("modules.*"):
        guest.copy(path, str(path))
    subprocess.run(["depmod", "-b", str(guest.root), kernel], check=True, capture_output=True)
    guest.write("/etc/fstab", "")


def make_image(folder: Path, image: Path) -> None:
    """The file system of the guest that ended in ``folder``, as a disk."""
    names = {name: str(folder / name) for name in ("upper", "work", "root")}
    options = f"lowerdir={cached_root()},upperdir={names['upper']},workdir={names['work']}"
    steps = 'mount -t overlay overlay -o "$1" "$2" && truncate -s "$3" "$4" && mke2fs -q -t ext4 -d "$2" "$4"'
    command = ["unshare", "--mount", "sh", "-c", steps, "sh", options, names["root"], str(IMAGE_BYTES), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError(f"no image of {folder}: {done.stderr.strip()}")


class Machine:
    """One emulated PC while the context is open; what it writes to its disk is forgotten."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image = image
        self._console = folder / "console.log"
        self._port = folder / "usb.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Machine":
        kernel = _kernel()
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(os.cpu_count() or 1)]
        command += ["-m", str(MEMORY_MIB), "-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"]
        command += ["-kernel", str(BOOT / f"vmlinuz-{kernel}"), "-initrd", str(BOOT / f"initrd.img-{kernel}")]
        command += ["-append", "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 no_timer_check"]
        command += ["-drive", f"file={self._image},if=virtio,format=raw,snapshot=on,cache=unsafe"]
        command += ["-serial", f"file:{self._console}", "-device", "qemu-xhci"]
        command += ["-chardev", f"socket,id=usb,path={self._port},server=on,wait=off"]
        command += ["-device", "usb-serial,chardev=usb"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def plugged(self) -> Iterator[socket.socket]:
        """A USB serial converter is plugged in while the block runs; what is sent comes out of it as bytes."""
        deadline_s = time.monotonic() + PLUG_S
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
            while wire.connect_ex(str(self._port)):
                if time.monotonic() > deadline_s:
                    raise GuestError("the emulated PC did not start")
                time.sleep(POLL_S)
            yield wire

    @property
    def console(self) -> str:
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    @property
    def is_on(self) -> bool:
        return self._process is not None and self._process.poll() is None
