"""What the doctor looks at: a machine, a configuration, perhaps a running agent, and the user that it runs as."""

import grp
import os
import pwd
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config import Config
from agent.doctor.finding import Finding
from agent.status import SOCKET_NAME, StatusUnavailable, ask

UNIT = "axond.service"
UNIT_FOLDERS = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system",
                "lib/systemd/system")  # fmt: skip
TEST_S = 5.0


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who opens files."""

    name: str
    uid: int
    groups: frozenset[int]

    @property
    def is_me(self) -> bool:
        return self.uid == os.geteuid()

    def may(self, path: Path, wanted: str = "rw") -> bool:
        """Whether the user may do all of ``wanted`` (of ``rwx``) with a file that is there.

        The kernel is asked, for another user by a process of that user if we are root; else the mode decides.
        """
        modes = {"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}
        if self.is_me:
            return os.access(path, sum(modes[letter] for letter in wanted))
        if os.geteuid() == 0:
            parts = [part for letter in wanted for part in ("-a", f"-{letter}", str(path))][1:]
            done = subprocess.run(
                ["test", *parts], user=self.uid, group=min(self.groups, default=self.uid),
                extra_groups=sorted(self.groups), cwd="/", timeout=TEST_S, check=False, capture_output=True,
            )  # fmt: skip
            return done.returncode == 0
        status = path.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in self.groups else 0
        return self.uid == 0 or all(status.st_mode >> shift & modes[letter] for letter in wanted)


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a check may look at. ``root`` is ``/`` but in tests."""

    path: Path
    """The configuration's file; it need not exist."""
    settings: Config
    """As much of the configuration as is right; defaults for the rest."""
    document: dict[str, Any] = field(default_factory=dict)
    """The configuration as it stands in the files, right or wrong."""
    wrong: tuple[Finding, ...] = ()
    """What is wrong with the configuration."""
    status: dict[str, Any] | None = None
    """What the running agent says; None if none runs."""
    mute: str | None = None
    """An agent may run, but gives no answer: why."""
    runner: User = field(default_factory=lambda: user_of(os.geteuid()))
    """Who runs axond here, or would."""
    root: Path = Path("/")

    @property
    def in_use(self) -> bool:
        """An agent runs, or may run: what it has is left alone."""
        return self.status is not None or self.mute is not None

    @property
    def state_dir(self) -> Path:
        return self.settings.device.state_dir

    @property
    def outbox(self) -> Path:
        return self.state_dir / "outbox.db"

    def lines(self, place: str) -> list[str]:
        """Of a file below the root; none where it is not there or may not be read."""
        return lines_of(self.root / place)

    def line(self, place: str) -> str:
        """The first line, without blanks around it; empty where there is none."""
        return first_line(self.root / place)


def there(path: Path) -> bool:
    """Whether it exists; False too where this user may not look, and for what can be no path."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def lines_of(path: Path) -> list[str]:
    """None where the file is not there or may not be read."""
    try:
        return path.read_text("utf-8", "replace").replace("\0", "").splitlines()
    except OSError:
        return []


def first_line(path: Path) -> str:
    """Without blanks around it; empty where the file is not there or may not be read."""
    return next(iter(lines_of(path)), "").strip()


def number(text: str, base: int = 10) -> int | None:
    """What a file of the kernel says, if it is a number."""
    try:
        return int(text, base)
    except ValueError:
        return None


def asked(state_dir: Path) -> tuple[dict[str, Any] | None, str | None]:
    """The running agent's snapshot; or why there is none although an agent may run."""
    try:
        return ask(state_dir), None
    except StatusUnavailable as error:
        return None, str(error) if there(state_dir / SOCKET_NAME) or "permission denied" in str(error) else None


def runner(state_dir: Path, root: Path, *, running: bool) -> User:
    """Who runs axond here: the owner of the running agent's socket, else the unit's user, else who asks."""
    if running:
        with suppress(OSError):  # it has ended since it answered
            return user_of((state_dir / SOCKET_NAME).stat().st_uid)
    for name in (unit_value(root, "User"), "axond" if unit_file(root) else None):
        if name is not None:
            try:
                uid = int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
                return user_of(uid, _unit_groups(root))
            except KeyError:
                continue
    return user_of(os.geteuid())


def user_of(uid: int, extra_groups: Sequence[str] = ()) -> User:
    """A user with its groups; ``extra_groups`` are names or numbers that a unit adds."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(str(uid), uid, frozenset(os.getgroups() if uid == os.geteuid() else ()))
    groups = os.getgroups() if uid == os.geteuid() else os.getgrouplist(entry.pw_name, entry.pw_gid)
    added = [group.gr_gid for group in grp.getgrall() if {group.gr_name, str(group.gr_gid)} & set(extra_groups)]
    return User(entry.pw_name, uid, frozenset((*groups, *added)))


def unit_file(root: Path) -> Path | None:
    """Where the unit of axond is installed."""
    return next((file for folder in UNIT_FOLDERS if (file := root / folder / UNIT).is_file()), None)


def unit_files(root: Path) -> list[Path]:
    """The unit and its drop-ins, in the order in which they are read."""
    file = unit_file(root)
    if file is None:
        return []
    folders = [root / folder / f"{UNIT}.d" for folder in reversed(UNIT_FOLDERS)]
    return [file, *(part for folder in folders for part in sorted(folder.glob("*.conf")))]


def unit_value(root: Path, key: str) -> str | None:
    """What the unit says last for a key, drop-ins included."""
    said = _unit_values(root, key)
    return said[-1] if said else None


def _unit_values(root: Path, key: str) -> list[str]:
    parts = [line.partition("=") for file in unit_files(root) for line in lines_of(file)]
    return [value.strip() for name, _, value in parts if name.strip() == key]


def _unit_groups(root: Path) -> list[str]:
    """Each line adds to those before; an empty one takes them away."""
    groups: list[str] = []
    for value in _unit_values(root, "SupplementaryGroups"):
        groups = [*groups, *value.split()] if value else []
    return groups
