"""What the kernel tells of a running process: memory, CPU time, context switches, descriptors, threads (``/proc``)."""

import os
from contextlib import suppress
from pathlib import Path

from agent.cli.command import CommandError

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def pss_mib(pid: int) -> float:
    """Proportional set size (``/proc/PID/smaps_rollup``). Raises CommandError."""
    return _rollup_mib(pid, "Pss")


def anonymous_mib(pid: int) -> float:
    """What is the process's own: heaps and stacks. Libraries are not in it, whoever else maps them meanwhile."""
    return _rollup_mib(pid, "Anonymous")


def _rollup_mib(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise CommandError(f"/proc/{pid}/smaps_rollup has no {name} line; is this Linux 4.14 or later?")


def cpu_s(pid: int) -> float:
    """User and system time of a process so far (``/proc/PID/stat``, in ticks of 10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def context_switches(pid: int) -> int:
    """Voluntary and involuntary, of all threads that live now."""
    return wakeups(pid) + _thread_counts(pid, "nonvoluntary_ctxt_switches:")


def wakeups(pid: int) -> int:
    """How often threads that live now gave up the core by themselves: each time but the last something woke them."""
    return _thread_counts(pid, "voluntary_ctxt_switches:")


def _thread_counts(pid: int, name: str) -> int:
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            lines = status.read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # that thread has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(name))
    return total


def waited_s(pid: int) -> float:
    """For how long threads that live now were ready and had no core, summed (``schedstat``)."""
    waited_ns = 0
    for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # that thread has just ended
            waited_ns += int(schedstat.read_text().split()[1])
    return waited_ns / 1e9


def descriptors(pid: int) -> int:
    """Open file descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """Threads of the kernel's count, so those of native libraries as well."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def rss_mib(pid: int) -> float:
    """What PSS would be if nobody else mapped the same files."""
    return _rollup_mib(pid, "Rss")
