"""Writes a configuration whole or not at all, after it was found right. The old one is kept as ``.bak-N``."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent.backup.make import CREDENTIALS, Installation, sync_folder
from agent.backup.scratch import scratch
from agent.config import DeviceTable
from agent.config_files import read_all
from agent.credentials import SOURCE_FOLDER, SOURCE_PREFIX
from agent.errors import ConfigError
from agent.setup.text import Answers, render

PASSWORD = "mqtt-password"
BACKUP = ".bak-"
KEPT = 5
"""Of the configurations that were replaced, the newest."""


class SetupError(Exception):
    """Why nothing was written: one sentence."""


def says_something(path: Path) -> bool:
    """Whether there is a configuration that somebody would miss: more than a device's name, or not readable."""
    if not path.exists():
        return False
    try:
        (_, document), *_ = read_all(path)
    except ConfigError:
        return True
    return not document.keys() <= {"device", "log"}


def identity(path: Path) -> Installation | None:
    """Of the configuration that is there, as far as it can be read."""
    try:
        return Installation.read(path) if path.exists() else None
    except ConfigError:
        return None


def save(path: Path, answers: Answers, password: str | None, check: Callable[[Path], object]) -> Path | None:
    """Check, then write, ``path`` and the password's file beside it; where the old configuration is kept.

    ``check`` raises ConfigError. Raises SetupError, and then nothing has changed.
    """
    path = path.absolute()
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch(folder) as made:
            final = answers
            if password is not None and answers.broker is not None:
                secret = made / PASSWORD
                _write(secret, password.encode(), 0o600)
                final = _with_password_file(answers, _named(folder / CREDENTIALS))
                answers = _with_password_file(answers, secret)
            _try(made / path.name, path, answers, check)
            _write(made / "final.toml", render(final).encode(), 0o644)
            if path.exists():
                _write(made / "old.toml", path.read_bytes(), path.stat().st_mode & 0o777)
            if password is not None and answers.broker is not None:
                _put_secret(made / PASSWORD, folder / CREDENTIALS)
            return _take_place(made / "final.toml", path)
    except OSError as error:
        why = "; run it with sudo, or name another place with --config" if error.errno in (1, 13, 30) else ""
        raise SetupError(f"{error.filename or path}: {error.strerror}{why}; nothing was written") from error


def _try(tried: Path, path: Path, answers: Answers, check: Callable[[Path], object]) -> None:
    """With the drop-ins that will be read with it."""
    _write(tried, render(answers).encode(), 0o600)
    drop_ins = path.with_name(path.name + ".d")
    if drop_ins.is_dir():
        tried.with_name(tried.name + ".d").symlink_to(drop_ins)
    try:
        check(tried)
        _check_device(Installation.read(tried).device, answers, drop_ins)
    except ConfigError as error:
        told = str(error).replace(str(tried), str(path))
        raise SetupError(f"this would not be right, so nothing was written: {told}") from error


def _check_device(device: DeviceTable, answers: Answers, drop_ins: Path) -> None:
    """Raises SetupError if a drop-in, which wins, makes another device of this than what will be told."""
    wanted = {"id": answers.device, "region": answers.region, "state_dir": answers.state_dir}
    for key, value in wanted.items():
        if (said := getattr(device, key)) != value:
            raise SetupError(
                f"a file in {drop_ins} says device.{key} = {str(said)!r}, which would hold in place of {str(value)!r}: "
                "change it there; nothing was written"
            )


def _with_password_file(answers: Answers, file: Path) -> Answers:
    if answers.broker is None:
        return answers
    return replace(answers, broker=replace(answers.broker, password_file=file))


def _named(folder: Path) -> Path:
    """How the configuration names the password: where systemd loads it for the agent, by the credential's name."""
    return Path(f"%d/{SOURCE_PREFIX}{PASSWORD}") if folder == SOURCE_FOLDER else folder / PASSWORD


def _put_secret(secret: Path, folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    secret.replace(folder / PASSWORD)
    sync_folder(folder)


def _take_place(fresh: Path, path: Path) -> Path | None:
    old = fresh.with_name("old.toml")
    kept = _keep(old, path) if old.exists() else None
    fresh.replace(path)
    sync_folder(path.parent)
    return kept


def _keep(old: Path, path: Path) -> Path:
    """Puts a copy of ``path`` beside it under a number of its own, unless the newest there is the same."""
    there = backups(path)
    if there and there[-1].read_bytes() == old.read_bytes():
        return there[-1]
    kept = next_backup(path)
    old.replace(kept)
    for spare in [*there, kept][:-KEPT]:
        spare.unlink()
    return kept


def backups(path: Path) -> list[Path]:
    """What ``save`` has kept of earlier configurations, oldest first."""
    start = path.name + BACKUP
    found = [each for each in path.parent.iterdir() if each.name.startswith(start) and each.is_file()]
    numbered = {int(number): each for each in found if (number := each.name.removeprefix(start)).isdecimal()}
    return [numbered[number] for number in sorted(numbered)]


def next_backup(path: Path) -> Path:
    """Where ``save`` will keep the configuration that it replaces."""
    newest = backups(path)[-1:]
    number = int(newest[0].name.rpartition("-")[2]) + 1 if newest else 1
    return path.with_name(f"{path.name}{BACKUP}{number}")


def _write(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
