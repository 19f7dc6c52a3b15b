"""A wall clock that a test sets and steps, for processes that it starts: see ``shim.c``. The machine's clock stays."""

import shutil
import struct
import subprocess
import time
from pathlib import Path

COMPILER = shutil.which("gcc")
SOURCE = Path(__file__).with_name("shim.c")
FORBIDDEN = 2
_FORMAT = "=qqq"


class ShimClock:
    """One clock; any number of processes may be started with ``environment``."""

    def __init__(self, folder: Path, name: str) -> None:
        """Compiles the shim into ``folder`` unless it is there. ``RuntimeError`` if that fails."""
        if COMPILER is None:
            raise RuntimeError("no gcc: install it to build the shim of the clock")
        self._library = folder / "clock_shim.so"
        self._file = folder / f"{name}.clock"
        if not self._library.exists():
            command = [COMPILER, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
            done = subprocess.run([*command, "-o", self._library, SOURCE], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{SOURCE} does not compile: {done.stderr}")
        self._offset_ns = self._synchronised = 0
        self._max_error_ms = 5.0
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "AXOND_CLOCK_SHIM": str(self._file)}

    @property
    def offset_s(self) -> float:
        """What it is ahead of the machine's clock."""
        return self._offset_ns / 1e9

    def set_to(self, unix_s: float) -> None:
        """As ``date -s``: nobody vouches for it then."""
        self.step(unix_s - self.now_s())

    def now_s(self) -> float:
        """What it says."""
        return time.time() + self.offset_s

    def step(self, by_s: float) -> None:
        """Forwards or backwards; as in the kernel, a clock that is set is not synchronised any more."""
        self._offset_ns += round(by_s * 1e9)
        self._synchronised = 0
        self._write()

    def synchronise(self, offset_s: float = 0.0, max_error_ms: float = 5.0) -> None:
        """As an NTP client does it: ``offset_s`` ahead of the machine's clock, and vouched for."""
        self._offset_ns, self._synchronised, self._max_error_ms = round(offset_s * 1e9), 1, max_error_ms
        self._write()

    def lose(self) -> None:
        """Nobody vouches for it any more; it goes on."""
        self._synchronised = 0
        self._write()

    def forbid(self) -> None:
        """The kernel may not be asked, as in a sandbox that protects the clock."""
        self._synchronised = FORBIDDEN
        self._write()

    def _write(self) -> None:
        data = struct.pack(_FORMAT, self._offset_ns, self._synchronised, round(self._max_error_ms * 1000))
        # In place: a running process has this file mapped.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(data)
