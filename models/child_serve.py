"""The child's side of ``models.child``: limits, shared memory and the loop that answers requests.

Standard library only, Python 3.10 and newer: the interpreter of a vendor's own environment runs it too. Such a program
puts the folder *above* ``models`` on its path, never ``models`` itself (its ``select.py`` would hide Python's own).
"""

import contextlib
import fcntl
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Handle = Callable[[dict[str, Any]], dict[str, Any]]

MEMORY_SHARE = 0.5
"""Of the machine's memory: what one process of a child may allocate. More is a MemoryError in it."""


def serve(setup: Callable[[memoryview], Handle]) -> None:
    """Answer the parent's requests until it goes away; does not return.

    The last three arguments of the command line are the descriptors that ``Child`` adds. ``setup`` gets the shared
    memory, does the imports and returns what turns a request into an answer. An answer ``{"error": sentence}`` is a
    BackendUnavailable at the parent, ``{"bad_model": sentence}`` a BadModel. An exception ends the child, and its text
    stands in the parent's BackendUnavailable.
    """
    talk_fd, memory_fd, life_fd = map(int, sys.argv[-3:])
    _die_with_parent(life_fd)
    _limit()
    shared = mmap.mmap(memory_fd, os.fstat(memory_fd).st_size)
    with socket.socket(fileno=talk_fd) as talk, talk.makefile("rb") as requests:
        handle = setup(memoryview(shared))
        talk.sendall(b"{}\n")
        for line in requests:
            talk.sendall(json.dumps(handle(json.loads(line))).encode() + b"\n")
    os.killpg(0, signal.SIGKILL)


def _die_with_parent(life_fd: int) -> None:
    """Let the kernel kill this process group when the parent's end of the pipe ``life_fd`` closes.

    PR_SET_PDEATHSIG would follow the parent's *thread*, not the parent; a thread of ours could not act while a native
    call holds the GIL or the process is stopped, nor for grandchildren.
    """
    fcntl.fcntl(life_fd, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(life_fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life_fd, fcntl.F_SETFL, fcntl.fcntl(life_fd, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([life_fd], [], [], 0)[0]:  # it was gone before we asked
        os.killpg(0, signal.SIGKILL)


def _limit() -> None:
    """If memory runs out, this process goes, not the agent; and nobody waits for its core dump."""
    with contextlib.suppress(OSError):  # /proc need not be mounted in a sandbox
        Path("/proc/self/oom_score_adj").write_text("1000")
    limit = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard == resource.RLIM_INFINITY or hard > limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
