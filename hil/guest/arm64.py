"""Debian 12 for arm64 on this machine: its programs run one by one under qemu's user-mode emulation, with our kernel.

    with emulation(), root(folder) as run:
        run("dpkg", "-i", "/axond.deb")

What this shows is that the arm64 code is there and computes the same. It shows nothing of a kernel, of devices or of
speed: instructions are translated, ten to thirty times slower. systemd does not run.
"""

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hil.guest.root import DEBIAN_SOURCES, SUITE, GuestError

PACKAGES = ("systemd", "udev", "python3", "libstdc++6", "libasound2", "mosquitto", "espeak-ng", "procps")
FORMATS = Path("/proc/sys/fs/binfmt_misc")
ENTRY = "qemu-aarch64"
RECIPE = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "axond" / f"arm64-{SUITE}"
ENVIRONMENT = "PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root"
MAKE_S = 2400.0
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def available() -> str | None:
    """None where arm64 can be emulated, else why not."""
    if os.geteuid() != 0:
        return "a root for arm64 needs root"
    missing = [name for name in ("mmdebstrap", "arch-test", "unshare") if shutil.which(name) is None]
    if not RECIPE.exists() and platform.machine() != "aarch64":
        missing.append("qemu-user-static")
    return f"{', '.join(missing)} not installed: apt install {' '.join(missing)}" if missing else None


@contextmanager
def emulation() -> Iterator[None]:
    """The kernel hands arm64 programs to qemu until the end of the block, and longer where it did so before."""
    if platform.machine() == "aarch64" or (FORMATS / ENTRY).exists():
        yield
        return
    mounted = (FORMATS / "register").exists()
    if not mounted:
        _do("mount", "-t", "binfmt_misc", "binfmt_misc", str(FORMATS))
    try:
        if not (FORMATS / ENTRY).exists():
            (FORMATS / "register").write_text(RECIPE.read_text().strip())
        yield
    finally:
        if (FORMATS / ENTRY).exists():
            (FORMATS / ENTRY).write_text("-1")
        if not mounted:
            _do("umount", str(FORMATS))


@contextmanager
def root(folder: Path) -> Iterator[Run]:
    """A fresh arm64 root, ``folder / "root"`` inside; gives a function that runs a command in it. Raises GuestError.

    ``folder / "shared"`` is /mnt inside. The first one is made in minutes and kept.
    """
    if (reason := available()) is not None:
        raise GuestError(reason)
    if not CACHE.exists():
        _make()
    for name in ("upper", "work", "root", "shared"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    place = shlex.quote(str(folder / "root"))
    layers = f"lowerdir={CACHE},upperdir={folder / 'upper'},workdir={folder / 'work'}"
    mounts = [f"mount -t overlay overlay -o {shlex.quote(layers)} {place}"]
    mounts += [f"mount --rbind /{name} {place}/{name}" for name in ("proc", "sys", "dev")]
    mounts += [f"mount -t tmpfs tmpfs {place}/{name}" for name in ("tmp", "run")]
    mounts += [f"mount --bind {shlex.quote(str(folder / 'shared'))} {place}/mnt"]

    def run(*command: str, timeout_s: float = 600.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command inside to its end, with mounts of its own that end with it."""
        inside = f"exec chroot {place} env -i {ENVIRONMENT} {shlex.join(command)}"
        steps = ["unshare", "--mount", "--propagation", "private", "sh", "-c", " && ".join([*mounts, inside])]
        done = subprocess.run(steps, capture_output=True, text=True, timeout=timeout_s, check=False)
        if check and done.returncode:
            raise GuestError(
                f"{shlex.join(command)}: exit code {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
            )
        return done

    yield run


def _make() -> None:
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    scratch = CACHE.with_name(f"{CACHE.name}.{os.getpid()}")
    sources = [str(path) for path in DEBIAN_SOURCES if path.is_file() and SUITE in path.read_text(errors="replace")][:1]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--architectures=arm64"]
    command += [
        "--aptopt=APT::Install-Recommends false",
        f"--include={','.join(PACKAGES)}",
        SUITE,
        str(scratch),
        *sources,
    ]
    _do(*command, timeout_s=MAKE_S)
    scratch.rename(CACHE)


def _do(*command: str, timeout_s: float = 60.0) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise GuestError(f"{shlex.join(command[:4])} failed: {done.stderr.strip()[-400:]}")
