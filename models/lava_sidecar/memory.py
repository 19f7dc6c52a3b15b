"""Lava without names in ``/dev/shm`` and without orphans, whatever is killed and when.

Lava's channels are segments of ``multiprocessing.shared_memory``: files in /dev/shm that a killed process leaves
behind. All processes of a network are forks of one, so that memory without a name does as well.
"""

import ctypes
import mmap
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from lava.magma.runtime.message_infrastructure import multiprocessing as infrastructure

_PR_SET_PDEATHSIG = 1


class _Segment:
    """As much of ``multiprocessing.shared_memory.SharedMemory`` as Lava's ports use."""

    def __init__(self, size: int) -> None:
        self.buf = memoryview(mmap.mmap(-1, max(1, size)))


class AnonymousMemory:
    """Takes the place of Lava's ``SharedMemoryManager``, and of the server process that it starts."""

    def start(self) -> None:
        """Nothing to start."""

    def shutdown(self) -> None:
        """The kernel frees the memory with the last process that maps it."""

    def create_shared_memory(self, size: int) -> _Segment:
        """Zeros, shared with every later fork."""
        return _Segment(size)


@contextmanager
def contained() -> Iterator[None]:
    """Within, Lava makes its channels in anonymous memory, and every fork dies with this process.

    Behind it, this process ends as soon as one of the forks has: Lava itself would wait for it for ever.
    """
    library = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def die_with_parent() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    os.register_at_fork(after_in_child=die_with_parent)
    infrastructure.SharedMemoryManager = AnonymousMemory
    yield
    forks = len(multiprocessing.active_children())

    def end_with_a_fork(*_: object) -> None:
        if len(multiprocessing.active_children()) < forks:
            os.write(2, b"a process of the Lava network has ended\n")
            os._exit(1)

    signal.signal(signal.SIGCHLD, end_with_a_fork)
