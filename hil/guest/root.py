"""The roots that guests start from: Debian 12 with systemd, made once by mmdebstrap and kept in the cache."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "udev", "procps", "iproute2", "e2fsprogs", "ca-certificates", "python3",
    "libstdc++6", "libasound2", "mosquitto", "mosquitto-clients", "socat",
)  # fmt: skip
"""A small device as people install it; ``socat`` and mosquitto play what is around it."""
CUSTOMIZE = (
    # What would run by itself and only makes a test slower or its journal longer.
    'chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer console-getty.service',
    'chroot "$1" systemctl disable mosquitto.service',
    'echo axond-guest >"$1/etc/hostname"',
    'mkdir -p "$1/var/log/journal"',
)
DEBIAN_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
MAKE_TIMEOUT_S = 1800.0


class GuestError(Exception):
    """The rig cannot do what was asked: one sentence."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a root is made of."""

    packages: tuple[str, ...] = PACKAGES
    customize: tuple[str, ...] = CUSTOMIZE
    """Shell commands that finish it; ``$1`` is the root."""
    architecture: str = ""
    """As Debian names it; empty for this machine's. Another one is for who can run its programs here."""

    def folder(self) -> str:
        """The name under which it is kept: another recipe, another root."""
        digest = hashlib.sha256(repr((SUITE, self.packages, self.customize)).encode()).hexdigest()[:12]
        return "-".join(part for part in ("guest", SUITE, self.architecture, digest) if part)


def cached_root(recipe: Recipe | None = None) -> Path:
    """The unpacked root, never to be written to; made at first use (half a minute, needs the Debian archive).

    Raises GuestError. Several processes may ask at once.
    """
    recipe = recipe or Recipe()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "axond"
    root = cache / recipe.folder()
    if root.exists():
        return root
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "guest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _make(root, recipe)
    return root


def _make(root: Path, recipe: Recipe) -> None:
    if shutil.which("mmdebstrap") is None:
        raise GuestError("mmdebstrap is not installed (apt install mmdebstrap)")
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="guest-") as folder:
        made = Path(folder) / "root"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(recipe.packages)}"]
        command += [f"--architectures={recipe.architecture}"] if recipe.architecture else []
        command += ["--aptopt=APT::Install-Recommends false"]
        command += [f"--customize-hook={hook}" for hook in recipe.customize]
        command += [SUITE, str(made), *_mirror()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise GuestError(f"mmdebstrap did not make a root within {MAKE_TIMEOUT_S:g} s") from error
        if done.returncode:
            raise GuestError(f"mmdebstrap cannot make a root: {done.stderr.strip()[-400:]}")
        made.rename(root)


def _mirror() -> list[str]:
    """The machine's own sources, where they are of that suite: no other mirror is asked than apt would ask."""
    fitting = [path for path in DEBIAN_SOURCES if path.is_file() and SUITE in path.read_text(errors="replace")]
    return [str(path) for path in fitting[:1]]
