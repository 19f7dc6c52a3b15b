"""Folders in which something is prepared beside its place, and which do not outlive whoever was killed while at it.

Each holds a file that its maker keeps locked. The kernel lets go of the lock with the maker, however that ended; so
what can be locked belongs to nobody any more.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".axond-scratch-"
LOCK = "lock"
INSIDE = "made"
_NAME = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}")


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """An empty folder of this user alone, on the file system of ``parent``, removed at the end of the block.

    First removes what others of this user have left in ``parent``. Raises OSError.
    """
    clean(parent)
    folder, lock = _made(parent)
    try:
        inside = folder / INSIDE
        inside.mkdir(mode=0o700)
        try:
            yield inside
        finally:
            _take_down(folder)
    finally:
        os.close(lock)


def clean(parent: Path) -> None:
    """Removes the scratch folders in ``parent`` whose makers are dead; what is not surely such a one stays."""
    try:
        found = sorted(path for path in parent.iterdir() if _NAME.fullmatch(path.name))
    except OSError:  # not there yet, or not ours to look at
        return
    for folder in found:
        # Others may be at it at the same time, and root's are not ours.
        with suppress(OSError):
            _remove(folder)


def _remove(folder: Path) -> None:
    """BlockingIOError while its maker lives; OSError if it is no scratch folder of this user."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        folder.rmdir()  # its maker died, or will notice, before the lock was made; never removes a file
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _take_down(folder)
    finally:
        os.close(lock)


def _take_down(folder: Path) -> None:
    """The lock's file goes last: without it nobody could tell whose a rest is."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder / INSIDE)
    with suppress(FileNotFoundError):
        (folder / LOCK).unlink()
        folder.rmdir()


def _made(parent: Path) -> tuple[Path, int]:
    """A new folder and its locked file."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # somebody cleaned just now
            continue
        with suppress(OSError):  # a file system without locks: then nobody takes it for left behind
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)  # somebody cleaned before it was locked
