"""How what a restore has prepared takes the place of what is there, which is kept aside."""

import os
import pwd
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from agent.backup.make import ASIDE, sync_folder
from agent.credentials import SOURCE_FOLDER

USER = "axond"
"""Whom the package makes; the agent runs as that user."""

Owner: TypeAlias = tuple[int, int] | None
"""User and group of the agent; None where only we ourselves can own files."""


@dataclass(slots=True)
class Restored:
    """What was done."""

    device: str
    state_dir: Path
    files: list[str] = field(default_factory=list)
    """Files and folders that are as in the backup now."""
    aside: list[str] = field(default_factory=list)
    """Where what was there before is kept."""
    results: int = 0
    """That came back with the outbox, and wait to be delivered."""
    notes: list[str] = field(default_factory=list)


def replace_config(staged: Path, config: Path, owner: Owner, restored: Restored) -> None:
    """Takes the files that are ``staged`` into place."""
    drop_ins = config.name + ".d"
    (staged / drop_ins).mkdir(exist_ok=True)
    (staged / drop_ins).chmod(0o755)
    for path in (staged / drop_ins, *(staged / drop_ins).iterdir(), staged / config.name):
        give(path, owner and (os.geteuid(), owner[1]))
    # The drop-ins first: the last of them may say whose name this is.
    if any((staged / drop_ins).iterdir()) or (config.parent / drop_ins).exists():
        _swap_folder(staged / drop_ins, config.parent / drop_ins, restored)
    _swap_file(staged / config.name, config, restored)
    secrets = staged / "secrets"
    for path in sorted(secrets.rglob("*")):
        target = config.parent / path.relative_to(secrets)
        # In that folder systemd reads them for the agent, elsewhere the agent must.
        reader = None if SOURCE_FOLDER in (target, *target.parents) else owner
        if path.is_dir():
            if not target.exists():
                target.mkdir(mode=0o700)
                give(target, reader)
            continue
        path.chmod(0o600)
        give(path, reader)
        _swap_file(path, target, restored)
    sync_folder(config.parent)


def replace_state(stage: Path, owner: Owner, restored: Restored) -> None:
    """The same below the state_dir, whose lock is held."""
    for path in stage.rglob("*"):
        path.chmod(0o750 if path.is_dir() else 0o640)
        give(path, owner)
    for path in sorted(stage.iterdir()):
        target = restored.state_dir / path.name
        if path.is_dir():
            _swap_folder(path, target, restored)
            continue
        _swap_file(path, target, restored)
    sync_folder(restored.state_dir)


def _swap_file(new: Path, target: Path, restored: Restored) -> None:
    """At every moment ``target`` is the old file or the new one."""
    if target.exists():
        aside = _aside(target)
        try:
            aside.hardlink_to(target)
        except OSError:  # a file system without links
            # Never through a name that others could have made a link meanwhile.
            copy = Path(shutil.copy2(target, new.with_name(aside.name), follow_symlinks=False))
            copy.replace(aside)
        restored.aside.append(str(aside))
    new.replace(target)
    restored.files.append(str(target))


def _swap_folder(new: Path, target: Path, restored: Restored) -> None:
    if target.exists():
        aside = _aside(target)
        target.rename(aside)
        restored.aside.append(str(aside))
    new.rename(target)
    restored.files.append(str(target))


def _aside(target: Path) -> Path:
    number = 1
    while os.path.lexists(aside := target.with_name(f"{target.name}{ASIDE}{number}")):
        number += 1
    return aside


def write(path: Path, content: bytes, mode: int) -> None:
    """A file of the configuration that is being prepared."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o600 | mode & 0o644)


def owner_of(state_dir: Path) -> Owner:
    """Whose the state is, or will be."""
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError):
        status = state_dir.stat()
        return status.st_uid, status.st_gid
    with suppress(KeyError):
        user = pwd.getpwnam(USER)
        return user.pw_uid, user.pw_gid
    return None


def give(path: Path, owner: Owner) -> None:
    """Makes it theirs, if we are the one who can."""
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)
