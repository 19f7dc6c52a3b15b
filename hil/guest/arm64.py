"""Debian 12 for arm64 as a whole emulated machine: a kernel of its own, systemd, disks, and a time of its own.

    results = act(folder, {"axond.deb": package}, "dpkg -i /root/inputs/axond.deb; axond version >version")

Its clocks count instructions, one a nanosecond: to its sensors it is a processor of a thousand million instructions a
second, however slow or busy this machine is. A minute inside takes several outside, and nothing in it comes too late
because of that; only a wait for its disk may seem long to it (half a minute at boot, where this machine has no core to
spare). How long something takes inside still says little of a real processor, which is neither so even nor so slow at
arithmetic.
"""

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hil.guest.machine import Board, Machine, make_image
from hil.guest.root import CUSTOMIZE, PACKAGES, GuestError, Recipe, cached_root

KERNEL = "linux-image-cloud-arm64"
"""Debian's kernel that reads a root on NVMe without help of an initrd."""
FETCH_KERNEL = (
    'cd "$1/boot" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"'
    f" && apt-get -qq download $(apt-cache depends {KERNEL} | sed -n 's/ *Depends: //p')"
    " && dpkg-deb --fsys-tarfile ./linux-image-*.deb | tar -xO --wildcards './boot/vmlinuz-*' >vmlinuz"
    " && rm ./linux-image-*.deb"
)
RECIPE = Recipe((*PACKAGES, "espeak-ng"), (*CUSTOMIZE, FETCH_KERNEL), "arm64")
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "unshare": "util-linux",
    "mke2fs": "e2fsprogs",
    "qemu-system-aarch64": "qemu-system-arm",
}
"""What is needed, and the Debian package that has it."""
FORMATS = Path("/proc/sys/fs/binfmt_misc")
ENTRY = "qemu-aarch64"
FORMAT = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
ANSWER_BYTES = 256 << 20
UNIT = """[Unit]
After=multi-user.target
[Service]
Environment=HOME=/root LANG=C.UTF-8
ExecStart=/bin/sh /root/act.sh
StandardOutput=journal+console
StandardError=journal+console
"""
ACT = """mkdir -p /root/results && cd /root/results
sh -eux /root/script.sh
echo $? >exit
tar -cf /dev/nvme0n2 .
systemctl poweroff
"""


def available() -> str | None:
    """None where an arm64 machine can be made and emulated, else why not."""
    if os.geteuid() != 0:
        return "a root for arm64 needs root"
    missing = {package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    if platform.machine() != "aarch64" and not FORMAT.exists():
        missing.add("qemu-user-static")
    return f"not all programs are installed: apt install {' '.join(sorted(missing))}" if missing else None


def act(folder: Path, inputs: Mapping[str, Path], script: str, timeout_s: float) -> Path:
    """What ``script`` (sh, which ends at its first error) wrote into its working folder, run by root at its systemd.

    ``inputs``: files of ours by their names in /root/inputs. The machine is made from a fresh root and ends after that;
    ``folder / "console.log"`` is what it said. Raises GuestError.
    """
    if (reason := available()) is not None:
        raise GuestError(reason)
    root, upper, results = _root(), folder / "upper", folder / "results"
    given, units = upper / "root" / "inputs", upper / "etc" / "systemd" / "system"
    for path in (given, units / "multi-user.target.wants", folder / "work", folder / "root", results):
        path.mkdir(parents=True)
    for name, source in inputs.items():
        shutil.copy(source, given / name)
    (units / "multi-user.target.wants" / "act.service").symlink_to("../act.service")
    for path, text in (
        (units / "act.service", UNIT),
        (upper / "root" / "act.sh", ACT),
        (upper / "root" / "script.sh", script),
    ):
        path.write_text(text)
    image, answer = folder / "disk.img", folder / "answer.img"
    make_image(folder, image, root)
    with answer.open("wb") as file:
        file.truncate(ANSWER_BYTES)
    try:
        with Machine(image, folder, board(root), answer) as machine:
            machine.wait_off(timeout_s)
            console = machine.console.strip()
        _do("tar", "-xf", str(answer), "-C", str(results), "--no-same-owner")
    finally:
        image.unlink()
        answer.unlink()
    ended = results / "exit"
    if not ended.exists() or ended.read_text().strip() != "0":
        raise GuestError(f"the arm64 machine did not do all it was asked: {console[-2000:]}")
    return results


def board(root: Path) -> Board:
    """One core of a Raspberry Pi 4's kind."""
    return Board(
        program="qemu-system-aarch64",
        options=(
            *("-machine", "virt", "-cpu", "cortex-a72", "-m", "2048", "-accel", "tcg,thread=single"),
            *("-icount", "shift=0,sleep=off", "-rtc", "clock=vm", "-device", "nvme,id=nvme,serial=axond"),
        ),
        disk=("-drive", "{drive},if=none,id=disk{n}", "-device", "nvme-ns,drive=disk{n},bus=nvme,nsid={n}"),
        kernel=root / "boot" / "vmlinuz",
        initrd=None,
        says="root=/dev/nvme0n1 rw console=ttyAMA0 quiet systemd.show_status=0",
    )


def _root() -> Path:
    """Made in minutes and kept."""
    with _emulation():
        return cached_root(RECIPE)


@contextmanager
def _emulation() -> Iterator[None]:
    """The kernel hands arm64 programs to qemu until the end of the block, and longer where it did so before.

    Only packages that are unpacked and configured into a root are run that way.
    """
    if platform.machine() == "aarch64" or (FORMATS / ENTRY).exists():
        yield
        return
    mounted = (FORMATS / "register").exists()
    if not mounted:
        _do("mount", "-t", "binfmt_misc", "binfmt_misc", str(FORMATS))
    try:
        if not (FORMATS / ENTRY).exists():
            (FORMATS / "register").write_text(FORMAT.read_text().strip())
        yield
    finally:
        if (FORMATS / ENTRY).exists():
            (FORMATS / ENTRY).write_text("-1")
        if not mounted:
            _do("umount", str(FORMATS))


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)
    if done.returncode:
        raise GuestError(f"{shlex.join(command[:4])} failed: {done.stderr.strip()[-400:]}")
