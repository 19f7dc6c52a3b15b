"""Gives memory back that only the start needed."""

import ctypes
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_SMAPS = Path("/proc/self/smaps")
_MAPPING = re.compile(r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<rights>[r-][w-][x-][ps]) \S+ \S+ (?P<inode>\d+)")
_MADV_DONTNEED = 4

_log = logging.getLogger(__name__)


def give_back() -> None:
    """Call when everything is loaded and runs.

    The heap's free pages go back to the kernel. Pages of programs and libraries are taken out of this process: most of
    them ran once, at the start. They stay in the kernel's cache of files, from where a page that runs again comes back
    without the disk, and are the first to go when memory is short.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "malloc_trim"):  # glibc alone has it
        libc.malloc_trim(0)
    try:
        with _SMAPS.open() as smaps:
            areas = list(clean_code(smaps))
    except OSError as error:  # a kernel without it, or a sandbox
        _log.debug("%s cannot be read (%s): code that only the start needed stays in memory", _SMAPS, error.strerror)
        return
    for start, size in areas:
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED):
            _log.debug("the kernel keeps %d bytes at %x in memory", size, start)


def clean_code(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """From the lines of ``/proc/PID/smaps``: start and size of what is mapped from files, cannot be written and never
    was (as relocations are, in memory or swapped out). What is dropped of it comes back from the file, the same."""
    found: tuple[int, int] | None = None
    for line in smaps:
        mapping = _MAPPING.match(line)
        if mapping:
            start, end = int(mapping["start"], 16), int(mapping["end"], 16)
            is_code = mapping["rights"] in ("r-xp", "r--p") and mapping["inode"] != "0"
            found = (start, end - start) if is_code else None
        elif line.startswith("Anonymous:") and line.split()[1] != "0":
            found = None
        elif found and line.startswith("Swap:") and line.split()[1] == "0":
            yield found
