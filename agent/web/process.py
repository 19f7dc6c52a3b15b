"""What the kernel tells of this process and of the child processes that run its backends (``/proc``, proc(5))."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, or summed over several."""

    cpu_s: float = 0.0
    pss_bytes: int = 0
    threads: int = 0
    descriptors: int = 0


def usage(pid: int) -> Usage:
    """Of one process: only its CPU time until it is waited for, if it has ended, and then nothing."""
    folder = _PROC / str(pid)
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return Usage()
    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    try:
        rollup = (folder / "smaps_rollup").read_text()
        descriptors = sum(1 for _ in (folder / "fd").iterdir())
    except OSError:
        return Usage(cpu_s)
    pss_kib = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return Usage(cpu_s, pss_kib * 1024, int(fields[17]), descriptors)


def waited_for_cpu_s() -> float:
    """Of children of this process that are no more: without it, what all children took would fall as one ends."""
    times = os.times()
    return times.children_user + times.children_system


def children(pid: int) -> list[int]:
    """The child processes of ``pid`` and theirs; none where the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    try:
        for path in (_PROC / str(pid) / "task").glob("*/children"):
            with suppress(OSError):  # that thread has just ended
                found += map(int, path.read_text().split())
    except OSError:
        return []
    return found + [child for one in found for child in children(one)]


def total(pids: list[int]) -> Usage:
    """The sum over several processes."""
    parts = [usage(pid) for pid in pids]
    return Usage(
        sum(part.cpu_s for part in parts),
        sum(part.pss_bytes for part in parts),
        sum(part.threads for part in parts),
        sum(part.descriptors for part in parts),
    )


def start_time_s() -> int:
    """When this process started, in seconds since 1970 as the clock says now: it moves when the clock is set."""
    fields = (_PROC / "self" / "stat").read_text().rpartition(")")[2].split()
    lines = (_PROC / "stat").read_text().splitlines()
    boot_s = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    return boot_s + int(fields[19]) // os.sysconf("SC_CLK_TCK")
