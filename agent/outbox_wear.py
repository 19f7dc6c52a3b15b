"""How much the outbox writes to the flash."""

import time
from pathlib import Path

_THREAD_IO = Path("/proc/thread-self/io")


class WearMeter:
    """Bytes that the calling thread sent to the storage layer, as the kernel counts them (``write_bytes`` in proc(5)).

    That is every page of the WAL and of the file, as often as it was written, without the journal of the file system
    and the flash's own housekeeping. Nothing is counted on a file system in memory, or where the kernel does not tell.
    """

    def __init__(self) -> None:
        self._written_bytes = _written_bytes()
        self._at_s = time.monotonic()

    def since_last(self) -> tuple[int, float]:
        """Bytes and seconds since the last call (or the start); one thread makes all calls."""
        written_bytes, now_s = _written_bytes(), time.monotonic()
        passed = max(0, written_bytes - self._written_bytes), now_s - self._at_s
        self._written_bytes, self._at_s = written_bytes, now_s
        return passed


def _written_bytes() -> int:
    try:
        lines = _THREAD_IO.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes:")), 0)
