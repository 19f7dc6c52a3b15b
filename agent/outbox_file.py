"""The outbox's files on the disk: the lock, what they take, and how a rebuilt file takes the place of a damaged one."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import ConfigError

KEPT_ASIDE = 3
"""Damaged files that are kept for people to look at, as long as they take no more than ``ASIDE_SHARE`` of the quota."""
ASIDE_SHARE = 1 / 8

_TRY_AGAIN = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_PARTS = ("", "-wal", "-shm")


class FileInUse(ConfigError):
    """Another process works on this file."""


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Holds the file's lock; ``ConfigError`` if its directory cannot be written or another process holds it.

    A full, failing or read-only disk is no configuration error and comes out as ``OSError``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _TRY_AGAIN:
            raise
        raise ConfigError(
            f"outbox {path} cannot be written: {error.strerror}; give axond a directory of its own"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileInUse(f"outbox {path} is held by another agent process; stop that one first") from None
        yield
    finally:
        os.close(descriptor)


def is_claimed(path: Path) -> bool:
    """Whether somebody works on the file at this moment."""
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # nobody ever did, or we may not look
        return not os.access(path.parent, os.X_OK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def file_bytes(path: Path) -> int:
    """What the file, its WAL and the files that were set aside take on the disk."""
    return sum(map(_size_bytes, (path, path.with_name(path.name + "-wal")))) + aside_bytes(path)


def aside_bytes(path: Path) -> int:
    """What the damaged files take that were kept."""
    return sum(_bytes_of(aside) for aside in set_asides(path))


def set_asides(path: Path) -> list[Path]:
    """The damaged files that were kept, the newest first."""
    prefix = f"{path.name}.corrupt-"
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(prefix)]  # noqa: PTH208 - names only
    except FileNotFoundError:
        return []
    numbers = sorted((int(name[len(prefix) :]) for name in names if name[len(prefix) :].isdecimal()), reverse=True)
    return [path.with_name(f"{prefix}{number}") for number in numbers]


def new_path(path: Path) -> Path:
    """Where a file is rebuilt; unfinished unless it has been ``finish``ed."""
    return path.with_name(path.name + ".new")


def finish(path: Path, max_bytes: int) -> Path | None:
    """The rebuilt file is whole: from here on, also after a power cut, it takes the place of the other one.

    Returns where the other one is kept, or None if that would take too much of the quota.
    """
    _sync(new_path(path))
    new_path(path).rename(ready_path(path))
    _sync(path.parent)
    return take_over(path, max_bytes)


def take_over(path: Path, max_bytes: int) -> Path | None:
    """Does, or does to the end, the exchange that ``finish`` began; does nothing if there is none."""
    ready = ready_path(path)
    if not ready.exists():
        return None
    aside = _set_aside(path)
    ready.rename(path)
    _sync(path.parent)
    _prune(path, max_bytes)
    return aside if aside is not None and aside.exists() else None


def _set_aside(path: Path) -> Path | None:
    newest = next(iter(set_asides(path)), None)
    number = 1 + (int(newest.name.rpartition("-")[2]) if newest else 0)
    aside = path.with_name(f"{path.name}.corrupt-{number}")
    if not path.exists() and newest is not None:
        aside = newest  # its own WAL is still here if the power went just before this line
    for suffix in _PARTS:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside if aside.exists() else None


def _prune(path: Path, max_bytes: int) -> None:
    room_bytes = int(max_bytes * ASIDE_SHARE)
    for number, aside in enumerate(set_asides(path)):
        room_bytes -= _bytes_of(aside)
        if number >= KEPT_ASIDE or room_bytes < 0:
            for suffix in _PARTS:
                aside.with_name(aside.name + suffix).unlink(missing_ok=True)


def ready_path(path: Path) -> Path:
    return path.with_name(path.name + ".ready")


def _bytes_of(aside: Path) -> int:
    return sum(_size_bytes(aside.with_name(aside.name + suffix)) for suffix in _PARTS)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
