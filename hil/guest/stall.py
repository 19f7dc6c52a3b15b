"""One thread of a process stands still, as in a system call that never returns; the others go on.

    python -m hil.guest.stall PID THREAD    prints "stalled" when it stands, and holds it until it dies or we do

``THREAD`` is its name as ``top -H`` shows it. A tracer is the one way to stop a single thread: SIGSTOP stops them all.
"""

import ctypes
import os
import sys
import time
from pathlib import Path

PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_CONT = 7
WALL = 0x40000000
"""``__WALL`` of waitpid(2): threads count as well."""
FIND_S = 10.0
SETTLE_S = 0.05


def stall(pid: int, name: str) -> int:
    """Stops the thread and returns its id. Raises OSError, LookupError.

    It is stopped in a system call, where Python has let go of its lock: whoever holds that would stop all.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    deadline_s = time.monotonic() + FIND_S
    thread = _find(pid, name)
    _ptrace(libc, PTRACE_SEIZE, thread)
    while True:
        while not _waits(pid, thread):
            if time.monotonic() > deadline_s:
                raise LookupError(f"thread {name} of process {pid} is never at rest")
            time.sleep(SETTLE_S)
        _ptrace(libc, PTRACE_INTERRUPT, thread)
        os.waitpid(thread, WALL)
        if _in_call(pid, thread):
            return thread
        _ptrace(libc, PTRACE_CONT, thread)


def hold(thread: int) -> None:
    """Returns when the thread has died, which its tracer must take note of."""
    while True:
        _, status = os.waitpid(thread, WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return


def _find(pid: int, name: str) -> int:
    for path in Path(f"/proc/{pid}/task").glob("*/comm"):
        if path.read_text().strip() == name[:15]:
            return int(path.parent.name)
    raise LookupError(f"process {pid} has no thread {name}")


def _waits(pid: int, thread: int) -> bool:
    state = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]
    return state in "SD"


def _in_call(pid: int, thread: int) -> bool:
    """Whether the stopped thread is in a system call: /proc says its number, or -1."""
    return not Path(f"/proc/{pid}/task/{thread}/syscall").read_text().startswith("-1")


def _ptrace(libc: ctypes.CDLL, request: int, thread: int) -> None:
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(thread), None, None) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"thread {thread} cannot be traced: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        stalled = stall(int(sys.argv[1]), sys.argv[2])
    except (LookupError, OSError) as error:
        sys.exit(str(error))
    print("stalled", flush=True)
    hold(stalled)
