"""The state of a stream on disk, so that a restart goes on where the program stopped."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import BadModel
from models.bundle import Bundle
from models.network import write_npz
from models.untrusted import read_npz

INTERVAL_S = 10.0
"""What is lost when the program is killed is at most the state's memory of so long."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Arrays = dict[str, npt.NDArray[np.generic]]


class Checkpoint:
    """One stream's file. Its pipeline's thread calls it; the writing is done beside that thread."""

    def __init__(self, path: Path, bundle: Bundle) -> None:
        """``path``: where it is kept; its folder is made when there is something to write."""
        self._path = path
        self._whose = np.frombuffer(f"{bundle.digest} {_boot_id()}".encode(), np.uint8)
        self._log = logging.getLogger(__name__)
        self._writing: Thread | None = None
        self._due_s = time.monotonic() + INTERVAL_S
        self._failed = False

    def load(self) -> Arrays | None:
        """What was kept of this very bundle in this boot; None if there is nothing (any more)."""
        try:
            arrays: dict[str, npt.NDArray[Any]] = read_npz(self._path.read_bytes(), str(self._path))
        except FileNotFoundError:
            return None
        except (OSError, BadModel) as error:
            self._log.warning("the kept state of a stream cannot be read, it starts from rest: %s", error)
            return None
        whose = arrays.pop("whose", np.zeros(0, np.uint8))
        return arrays if np.array_equal(whose, self._whose) else None

    def offer(self, take: Callable[[], Arrays]) -> None:
        """Write what ``take`` gives, where the last time is long enough ago and the disk is not still busy with it."""
        if time.monotonic() < self._due_s or (self._writing and self._writing.is_alive()):
            return
        self._due_s = time.monotonic() + INTERVAL_S
        arrays = {name: array.copy() for name, array in take().items()}
        self._writing = Thread(target=self._write, args=(arrays,), name=f"checkpoint {self._path.stem}")
        self._writing.start()

    def finish(self, arrays: Arrays) -> None:
        """Write the last state, and be done when it is on disk."""
        if self._writing:
            self._writing.join()
        self._write(arrays)

    def _write(self, arrays: Arrays) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                file.write(write_npz({**arrays, "whose": self._whose}))
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(self._path)
        except OSError as error:
            if not self._failed:
                self._log.warning("the state of a stream cannot be kept (%s); a restart will begin from rest", error)
            self._failed = True
        else:
            self._failed = False


def _boot_id() -> str:
    """Capture times are of one boot: those of another cannot be compared."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
