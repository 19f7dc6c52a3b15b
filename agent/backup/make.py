"""Makes a backup, beside a running agent or without one. Changes nothing but the file that it writes."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import wire
from agent.backup import outbox
from agent.backup.archive import (
    CONFIG,
    DROP_INS,
    HEAD,
    SECRETS,
    STATE,
    BackupError,
    Head,
    Told,
    Writer,
    members,
    writing,
)
from agent.backup.scratch import PREFIX, scratch
from agent.backup.verify import verify
from agent.config import DeviceTable
from agent.config_files import merge, read_all, validated
from agent.credentials import SOURCE_PREFIX
from agent.outbox_group import now
from agent.version import agent_version
from agent.wire import SystemClock

OUTBOX = "outbox.db"
ASIDE = ".before-restore-"
"""In the names of what a restore has replaced."""
CREDENTIALS = "credentials"


@dataclass(slots=True)
class Installation:
    """What a configuration and its drop-ins say of where an agent keeps things; nothing else in them need be right."""

    files: list[Path]
    document: dict[str, Any]
    device: DeviceTable

    @classmethod
    def read(cls, path: Path) -> "Installation":
        """Raises ConfigError."""
        files = read_all(path)
        document: dict[str, Any] = {}
        for _, part in files:
            document = merge(document, part)
        device = validated(files, "device", DeviceTable, _table(document, "device"))
        return cls([file for file, _ in files], document, device)

    @property
    def named(self) -> str | None:
        """The device's id, if the configuration says it; else it is the host's name."""
        return self.device.id if "id" in _table(self.document, "device") else None

    def secrets(self) -> list[Path]:
        """Files that its keys ``..._file`` name, and whatever lies in its folder ``credentials``."""
        found = [Path(str(value)) for value in _files_named(self.document)]
        folder = self.files[0].absolute().parent / CREDENTIALS
        with suppress(FileNotFoundError):
            found += [path for path in folder.iterdir() if path.is_file() and ASIDE not in path.name]
        return sorted(set(found))


@dataclass(slots=True)
class Made:
    """What is in a backup."""

    path: Path
    head: Head
    files: int = 0
    bytes: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    """Path -> why."""


def make(config: Path, target: Path, *, secrets: bool, told: Callable[[int, int], None]) -> Made:
    """Back up the installation of ``config`` into ``target``, whole or not at all, for its owner's eyes only.

    ``told``: gets bytes done and bytes in all. Raises BackupError and ConfigError.
    """
    there = Installation.read(config)
    target = target.absolute()
    state_dir = there.device.state_dir
    _check_target(target, state_dir)
    try:
        with scratch(target.parent) as folder:
            return _make(there, target, folder, state_dir, secrets=secrets, told=told)
    except OSError as error:
        where = error.filename or target
        why = "; run it with sudo" if isinstance(error, PermissionError) else ""
        raise BackupError(f"{where}: {error.strerror or error}{why}; nothing was written") from error


def _make(
    there: Installation,
    target: Path,
    folder: Path,
    state_dir: Path,
    *,
    secrets: bool,
    told: Callable[[int, int], None],
) -> Made:
    copied, results = folder / OUTBOX, None
    left_out: dict[str, str] = {}
    kept = dict(_state_files(state_dir, left_out))
    size = sum(path.stat().st_size for path in kept.values() if path.exists())
    db = state_dir / OUTBOX
    size += 2 * db.stat().st_size if db.exists() else 0
    advance = _adding(told, size)
    if outbox.is_half_rebuilt(db):
        raise BackupError(f"{db} is being rebuilt, since it was damaged: start the agent, and back up again")
    if db.exists():
        results = outbox.copy(db, copied, advance, "start the agent, which saves what can be read, and back up again")
    head = Head(
        device=there.device.id,
        region=there.device.region,
        agent=agent_version(),
        created=wire.iso_time(now(SystemClock())[0]),
        state_dir=str(state_dir.absolute()),
        config=str(there.files[0].absolute()),
        secrets=secrets,
        results=results,
    )
    made = Made(target, head, left_out=left_out)
    fresh = folder / "archive"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        with writing(file, advance) as writer:
            _write(writer, there, kept, made, secrets=secrets)
            if results is not None:
                writer.add_file(STATE + OUTBOX, copied)
                made.files += 1
            writer.finish()
        file.flush()
        os.fsync(file.fileno())
        made.bytes = file.tell()
    try:
        verify(fresh)
    except BackupError as error:
        why = str(error).replace(str(fresh), str(target))
        raise BackupError(f"no restore would take this, so nothing was written: {why}") from error
    fresh.replace(target)
    sync_folder(target.parent)
    return made


def _write(writer: Writer, there: Installation, kept: dict[str, Path], made: Made, *, secrets: bool) -> None:
    main, *drop_ins = there.files
    writer.add(HEAD, made.head.document())
    writer.add_file(CONFIG, main)
    for path in drop_ins:
        writer.add_file(DROP_INS + path.name, path)
    made.files += len(there.files)
    taken: set[str] = set()
    for path in there.secrets():
        inside = _inside(path, main.parent)
        if str(path).startswith("%d/"):
            loaded = main.parent / CREDENTIALS / path.name.removeprefix(SOURCE_PREFIX)
            if not loaded.is_file():
                made.left_out[str(path)] = "a credential of the systemd unit: its file is what LoadCredential= names"
        elif not secrets:
            made.left_out[str(path)] = "it may be a secret; --with-secrets takes it in"
        elif inside is None:
            made.left_out[str(path)] = f"it is not a file below {main.parent}; keep it safe in another way"
        elif inside not in taken:
            writer.add_file(SECRETS + inside, path)
            taken.add(inside)
            made.files += 1
    for name, path in kept.items():
        try:
            writer.add_file(STATE + name, path)
            made.files += 1
        except FileNotFoundError:  # the agent replaced or removed it just now
            made.left_out[str(path)] = "it went away while the backup was made"
    made.left_out |= _elsewhere(there)


def _elsewhere(there: Installation) -> dict[str, str]:
    """Models and their like that pipelines name, and that are not below the state_dir -> why they are left out."""
    found: dict[str, str] = {}
    pipelines = _table(there.document, "pipelines")
    for name in pipelines:
        pipeline = _table(pipelines, name)
        model, classes = pipeline.get("model"), _table(pipeline, "locate").get("classes")
        for path in (model if "/" in str(model) else None, classes):
            if path and not Path(str(path)).resolve().is_relative_to(there.device.state_dir.resolve()):
                found[str(path)] = f"pipeline {name} uses it, and it is not below the state_dir"
    return found


def _state_files(state_dir: Path, left_out: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """What the agent keeps beside its outbox: models, streams' states and what else is a plain file."""
    for folder, folders, files in os.walk(state_dir, onerror=_unless_absent):
        at = Path(folder)
        top = at == state_dir
        for path in (at / name for name in (*folders, *files) if (at / name).is_symlink()):
            left_out[str(path)] = "it is a link; back up what it leads to in another way"
        folders[:] = sorted(name for name in folders if not (top and (ASIDE in name or name.startswith(PREFIX))))
        for name in sorted(files):
            path = at / name
            transient = name.endswith((".new", ".lock")) or (top and (name.startswith(OUTBOX) or ASIDE in name))
            if not transient and path.is_file() and not path.is_symlink():
                yield str(path.relative_to(state_dir)), path


def _unless_absent(error: OSError) -> None:
    """A folder that may not be read is no backup without it."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _check_target(target: Path, state_dir: Path) -> None:
    """BackupError for a place that takes no file, has one that is no backup, or would be in the next backup."""
    if not target.parent.is_dir():
        raise BackupError(f"{target.parent} is no folder; make it first, or name another")
    if target.parent.resolve().is_relative_to(state_dir.resolve()):
        raise BackupError(f"{target} is in the state_dir, all of which is backed up; name a place elsewhere")
    if target.is_dir():
        raise BackupError(f"{target} is a folder; name a file in it")
    if target.exists():
        try:
            next(members(target), None)
        except BackupError as error:
            raise BackupError(
                f"{target} is there and is no backup, so it is not replaced; name another file"
            ) from error


def _adding(told: Callable[[int, int], None], total: int) -> Told:
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        told(min(done, total), total)

    return add


def _inside(path: Path, folder: Path) -> str | None:
    """``path`` from ``folder`` on; None if it is elsewhere or no file."""
    try:
        # A link is taken in as the file that its name gives.
        return str((path.parent.resolve() / path.name).relative_to(folder.resolve())) if path.is_file() else None
    except ValueError:
        return None


def _files_named(table: dict[str, Any]) -> Iterator[object]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _files_named(value)
        elif key.endswith("_file"):
            yield value


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name, {})
    return table if isinstance(table, dict) else {}


def sync_folder(folder: Path) -> None:
    """Makes the renames in it durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
