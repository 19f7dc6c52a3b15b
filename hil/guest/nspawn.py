"""A booted Debian with a systemd of its own, in a container: where units, packages and the journal are tried for real.

    with Guest.booted(folder) as guest:
        guest.copy(package, "/root/axond.deb")
        guest.run("dpkg", "-i", "/root/axond.deb")

Each guest starts from a fresh copy of the same root within a second, has a network of its own that leads nowhere, and
leaves nothing behind. Memory limits and device rules are not enforced in it.
"""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hil.guest.root import GuestError, cached_root

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = ("systemd", "unified", "memory", "cpu", "pids", "devices")
"""Of those that the machine has. With the single hierarchy of today's systems it is none of these but the top."""
PROGRAMS = ("systemd-nspawn", "nsenter", "unshare", "setpriv", "script", "mount")
BOOT_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
POLL_S = 0.01
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OVERLAY = "mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {root}"


@cache
def available() -> str | None:
    """None where guests can be booted, else why not."""
    if os.geteuid() != 0:
        return "booting a guest needs root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (apt install systemd-container util-linux)"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("lower", "upper", "work", "root"):
            (Path(folder) / name).mkdir()
        overlay = _overlay(Path(folder), Path(folder) / "lower")
        tried = subprocess.run(["unshare", "--mount", "sh", "-c", overlay], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"overlay mounts are not allowed here: {tried.stderr.strip()}"
    try:
        for path in _make_cgroups(f"axond-{os.getpid()}-probe"):
            path.rmdir()
    except OSError as error:
        return f"cgroups cannot be made here: {error}"
    return None


class Guest:
    """One booted guest. ``root`` is its file system, seen from here."""

    def __init__(self, folder: Path, binds: Mapping[Path, str] | None = None) -> None:
        """``folder`` keeps what the guest writes; a guest that is booted on it again finds it there.

        ``binds``: files or folders of this machine -> where the guest sees them, and cannot change them.
        """
        self._folder = folder
        self._binds = dict(binds or {})
        self._cgroups: list[Path] = []
        self._console: subprocess.Popen[bytes] | None = None
        self._init = 0

    @classmethod
    @contextmanager
    def booted(cls, folder: Path, binds: Mapping[Path, str] | None = None) -> Iterator["Guest"]:
        """A guest that runs until the end of the block. Raises GuestError."""
        guest = cls(folder, binds)
        try:
            guest.boot()
            yield guest
        finally:
            guest.end()

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self._init}/root")

    @property
    def console(self) -> str:
        """What the guest said on its console since it was booted last."""
        log = self._folder / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def boot(self) -> None:
        """Returns when systemd has started all there is. Raises GuestError."""
        if reason := available():
            raise GuestError(reason)
        for name in ("upper", "work", "root"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        name = f"axond-{os.getpid()}-{self._folder.stat().st_ino}"
        self._cgroups = _make_cgroups(name)
        enter = [f"echo $$ >{shlex.quote(str(path))}/cgroup.procs" for path in self._cgroups]
        nspawn = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--private-network"]
        nspawn += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", "-M", name[-60:]]
        nspawn += ["-D", str(self._folder / "root")]
        nspawn += [f"--bind-ro={host}:{inside}" for host, inside in self._binds.items()]
        steps = [*enter, _overlay(self._folder, cached_root()), f"exec {shlex.join(nspawn)}"]
        # The mount is in a namespace that ends with the guest. systemd wants a console, which script gives it.
        command = ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "slave"]
        command += ["script", "-qefc", " && ".join(steps), str(self._folder / "console.log")]
        self._console = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + BOOT_TIMEOUT_S
        self._init = self._wait_init(deadline_s)
        while self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip() not in _UP:
            self._wait(deadline_s, "did not finish booting")

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 60.0, text_in: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command inside, as root, to its end. GuestError with its words if it fails and ``check``."""
        try:
            done = subprocess.run(
                self.inside(*command), capture_output=True, text=True, input=text_in, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise GuestError(f"{shlex.join(command)}: not done within {timeout_s:g} s") from error
        if check and done.returncode:
            said = (done.stdout + done.stderr).strip()[-2000:]
            raise GuestError(f"{shlex.join(command)}: exit code {done.returncode}: {said}")
        return done

    def inside(self, *command: str) -> list[str]:
        """The command line, for this machine, that runs ``command`` inside: for ``subprocess.Popen``."""
        enter = ["nsenter", "-t", str(self._init), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        return [*enter, "env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8", "TERM=dumb", "HOME=/root", *command]

    def outside(self, pid: int) -> int:
        """The process that is ``pid`` inside, as this machine counts. GuestError if there is none."""
        for path in Path("/proc").glob("[0-9]*/status"):
            for line in _read(path).splitlines():
                numbers = line.split()[1:] if line.startswith("NSpid:") else []
                if numbers[1:] == [str(pid)] and _namespace(int(numbers[0])) == _namespace(self._init):
                    return int(numbers[0])
        raise GuestError(f"the guest has no process {pid}")

    def copy(self, source: Path, target: str) -> None:
        """A file or a whole folder of this machine to ``target`` inside, where folders are made as needed."""
        # By name inside the guest: an absolute link in its root leads to its files, not to ours.
        self.run("mkdir", "-p", str(Path(target).parent))
        with subprocess.Popen(
            ["tar", "-C", str(source.parent), "-cf", "-", source.name], stdout=subprocess.PIPE
        ) as packed:
            unpack = ["tar", "-C", str(Path(target).parent), "-xf", "-", "--no-same-owner"]
            unpack += ["--transform", f"s,^{source.name},{Path(target).name},rSh"]
            done = subprocess.run(
                self.inside(*unpack), stdin=packed.stdout, capture_output=True, text=True, check=False
            )
        if done.returncode or packed.returncode:
            raise GuestError(f"{source} cannot be copied to {target} in the guest: {done.stderr.strip()}")

    def write(self, target: str, text: str) -> None:
        """A text file inside."""
        self.run("mkdir", "-p", str(Path(target).parent))
        self.run("tee", target, text_in=text)

    def end(self, *, power_off: bool = False) -> None:
        """The guest is gone: as when its plug is pulled, or after a clean shutdown. Its folder stays; idempotent."""
        if self._console is not None:
            if self._init:
                # SIGRTMIN+4 is how systemd is told to power off. Without its first process a container ends at once.
                _signal(self._init, signal.SIGRTMIN + 4 if power_off else signal.SIGKILL)
            else:
                self._console.terminate()
            try:
                self._console.wait(END_TIMEOUT_S * (6 if power_off else 1))
            except subprocess.TimeoutExpired:
                self._console.kill()
                self._console.wait()
            self._console, self._init = None, 0
        for path in self._cgroups:
            _remove_cgroup(path)
        self._cgroups = []

    def _wait_init(self, deadline_s: float) -> int:
        """The process 1 of the guest: the child of systemd-nspawn that is in another PID namespace."""
        if self._console is None:
            raise GuestError("the guest was not started")
        while True:
            for child in (c for nspawn in _children(self._console.pid) for c in _children(nspawn)):
                ours = _namespace(child) in (None, _namespace(os.getpid()))
                if not ours and _read(Path(f"/proc/{child}/comm")).strip() == "systemd":
                    return child
            self._wait(deadline_s, "did not start")

    def _wait(self, deadline_s: float, what: str) -> None:
        if self._console is not None and self._console.poll() is not None:
            raise GuestError(f"the guest {what}: {self.console.strip()[-1000:]}")
        if time.monotonic() > deadline_s:
            raise GuestError(f"the guest {what} within {BOOT_TIMEOUT_S:g} s: {self.console.strip()[-1000:]}")
        time.sleep(POLL_S)


_UP = ("running", "degraded")


def _overlay(folder: Path, lower: Path) -> str:
    names = {name: shlex.quote(str(folder / name)) for name in ("upper", "work", "root")}
    return _OVERLAY.format(lower=shlex.quote(str(lower)), **names)


def _make_cgroups(name: str) -> list[Path]:
    """A cgroup of our own in each hierarchy that systemd, and we, use. OSError where that is not allowed."""
    tops = [CGROUPS / each for each in OWN_CGROUPS if (CGROUPS / each / "cgroup.procs").exists()] or [CGROUPS]
    made = []
    for top in tops:
        for path in top.glob("axond-*-*"):
            # Left by somebody who was killed: its guest has ended, the empty groups stay.
            if not Path(f"/proc/{path.name.split('-')[1]}").exists():
                _remove_cgroup(path)
        path = top / name
        path.mkdir(exist_ok=True)
        made.append(path)
    return made


def _remove_cgroup(path: Path) -> None:
    """With those below; the kernel needs a moment to let go of killed processes."""
    deadline_s = time.monotonic() + END_TIMEOUT_S
    for folder, _, _ in os.walk(path, topdown=False):
        while True:
            try:
                Path(folder).rmdir()
            except OSError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(POLL_S)
            else:
                break


def _children(pid: int) -> list[int]:
    return [int(child) for child in _read(Path(f"/proc/{pid}/task/{pid}/children")).split()]


def _namespace(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except FileNotFoundError:
        return None


def _read(path: Path) -> str:
    """A file below /proc; empty once its process is gone."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
