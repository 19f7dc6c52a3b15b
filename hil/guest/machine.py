"""A whole emulated machine with the same Debian: a PC, for what a container does not have (USB with hot-plug, rules for
devices), or one with another processor (``hil.guest.arm64``).

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
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from hil.guest.nspawn import Guest, available
from hil.guest.root import GuestError, cached_root

BOOT, MODULES = Path("/boot"), Path("/lib/modules")
DRIVERS = ("drivers/usb", "drivers/input", "sound")
"""Of this machine's Debian kernel, which the guest boots."""
IMAGE_BYTES = 2 << 30
PLUG_S = 30.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Board:
    """What is emulated, in the words of qemu, and what its kernel is told."""

    program: str
    options: tuple[str, ...]
    disk: tuple[str, ...]
    """Of a drive: ``{n}`` is its number from 1, ``{drive}`` what every drive has."""
    kernel: Path
    initrd: Path | None
    """None where the kernel reads its root by itself."""
    says: str
    """The kernel's command line: root and console."""


def pc() -> Board:
    """With this machine's own Debian kernel. Raises GuestError without one."""
    kernel = _kernel()
    if kernel is None:
        raise GuestError("no Debian kernel is here")
    return Board(
        program="qemu-system-x86_64",
        options=("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(os.cpu_count() or 1), "-m", "1024"),
        disk=("-drive", "{drive},if=virtio"),
        kernel=BOOT / f"vmlinuz-{kernel}",
        initrd=BOOT / f"initrd.img-{kernel}",
        says="root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 no_timer_check",
    )


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


def make_image(folder: Path, image: Path, lower: Path | None = None) -> None:
    """The file system of the guest that ended in ``folder``, as a disk; ``lower``: the root that it started from."""
    names = {name: str(folder / name) for name in ("upper", "work", "root")}
    options = f"lowerdir={lower or cached_root()},upperdir={names['upper']},workdir={names['work']}"
    steps = 'mount -t overlay overlay -o "$1" "$2" && truncate -s "$3" "$4" && mke2fs -q -t ext4 -d "$2" "$4"'
    command = ["unshare", "--mount", "sh", "-c", steps, "sh", options, names["root"], str(IMAGE_BYTES), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError(f"no image of {folder}: {done.stderr.strip()}")


class Machine:
    """One emulated machine while the context is open; what it writes to its first disk is forgotten."""

    def __init__(self, image: Path, folder: Path, board: Board | None = None, answer: Path | None = None) -> None:
        """``answer``: its second disk, which keeps what it writes."""
        self._image = image
        self._answer = answer
        self._board = board
        self._console = folder / "console.log"
        self._port = folder / "usb.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Machine":
        board = self._board or pc()
        command = [board.program, *board.options]
        command += ["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"]
        command += ["-kernel", str(board.kernel), "-append", board.says]
        command += ["-initrd", str(board.initrd)] if board.initrd else []
        drives = [f"file={self._image},snapshot=on"] + ([f"file={self._answer}"] if self._answer else [])
        for n, drive in enumerate(drives, 1):
            command += [part.format(n=n, drive=f"{drive},format=raw,cache=unsafe") for part in board.disk]
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
                    raise GuestError("the emulated machine did not start")
                time.sleep(POLL_S)
            yield wire

    def wait_off(self, timeout_s: float) -> None:
        """Until it has powered itself off. Raises GuestError."""
        if self._process is None:
            raise GuestError("the emulated machine was not started")
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise GuestError(
                f"the emulated machine is still on after {timeout_s:g} s: {self.console.strip()[-1000:]}"
            ) from error

    @property
    def console(self) -> str:
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    @property
    def is_on(self) -> bool:
        return self._process is not None and self._process.poll() is None
