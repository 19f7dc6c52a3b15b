"""A process of our own that runs what may crash, hang, fill the memory or hold the GIL.

Arrays go through memory that both sides map (an anonymous memfd: without a name, nothing can be left behind), requests
and answers as JSON lines through a socket pair, one in flight, each with a deadline.
"""

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from math import ceil
from typing import Any

from models.base import BackendUnavailable, BadModel

MAX_ANSWER_BYTES = 1 << 20
TAIL_BYTES = 4096
"""What is kept of the child's output, for the sentence about its end."""
LAST_WORDS_S = 0.1
"""How long a child that has hung up may take to end by itself, and a killed one to be gone."""
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _F_ADD_SEALS, _F_SEAL_SHRINK = 1, 2, 1033, 2
_PIDFD_OPEN = 434
"""Python's own names for these are missing where it was built for older systems, as that of uv was until 2026."""
REAP_S = 5.0
"""A killed process that still is not gone then hangs in the kernel; nobody can do more about it."""


class _Failed(Exception):
    """What the child did, as the end of a sentence."""


class _Ended(_Failed):
    """It hung up."""


class Child:
    """One child process and the memory shared with it. One thread uses it at a time."""

    def __init__(self, command: Sequence[str], shared_bytes: int, name: str = "backend") -> None:
        """``command`` runs a program that calls ``child_serve.serve``; ``name`` stands in error sentences."""
        self._command = list(command)
        self._shared_bytes = shared_bytes
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._memory: mmap.mmap | None = None
        self._running = False
        self._closing = contextlib.ExitStack()

    @property
    def buffer(self) -> memoryview:
        """The shared memory, zeros at first. Views of it keep it alive beyond ``close``. Raises BackendUnavailable."""
        if self._memory is None:
            raise BackendUnavailable(f"the process of {self._name} does not run")
        return memoryview(self._memory)

    @property
    def pid(self) -> int | None:
        """Also the id of its process group and session; None when it does not run."""
        return self._process.pid if self._process else None

    def start(self, deadline_s: float) -> None:
        """Start the process and wait until it is set up; after ``close`` or a failure it may be started again.

        Raises BackendUnavailable, or BadModel if it says so.
        """
        self.close()
        try:
            self._spawn()
        except OSError as error:
            self.close()
            raise BackendUnavailable(
                f"the process of {self._name} cannot be started ({error.strerror}: {self._command[0]})"
            ) from error
        self._guarded(None, deadline_s)

    def call(self, request: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        """The answer to ``request``. If none comes within ``deadline_s`` seconds the child's process group is killed.

        Raises BackendUnavailable (crash, hang, exit, or the child's own ``error``) or BadModel (its ``bad_model``).
        """
        if not self._running:
            raise BackendUnavailable(f"the process of {self._name} does not run")
        return self._guarded(json.dumps(request).encode() + b"\n", deadline_s)

    def close(self) -> None:
        """Kill the process group and reap it. Idempotent, never raises."""
        self._kill(REAP_S)
        self._closing.close()
        self._memory = None
        self._process = None

    def _spawn(self) -> None:
        memory_fd = _call_system("memfd_create", b"axond", _MFD_CLOEXEC | _MFD_ALLOW_SEALING)
        with contextlib.ExitStack() as theirs:
            theirs.callback(os.close, memory_fd)
            os.ftruncate(memory_fd, max(1, self._shared_bytes))
            # Memory that the child could shrink would be a SIGBUS here.
            fcntl.fcntl(memory_fd, _F_ADD_SEALS, _F_SEAL_SHRINK)
            self._memory = mmap.mmap(memory_fd, max(1, self._shared_bytes))
            self._talk, their_talk = socket.socketpair()
            self._closing.callback(self._talk.close)
            theirs.callback(their_talk.close)
            # Nobody ever writes to it: the child sees it close when this process ends, however it ends.
            their_life, our_life = os.pipe()
            self._closing.callback(os.close, our_life)
            theirs.callback(os.close, their_life)
            self._output, their_output = os.pipe()
            self._closing.callback(os.close, self._output)
            theirs.callback(os.close, their_output)
            os.set_blocking(self._output, False)
            fds = (their_talk.fileno(), memory_fd, their_life)
            self._process = subprocess.Popen(
                [*self._command, *map(str, fds)],
                stdin=subprocess.DEVNULL,
                stdout=their_output,
                stderr=their_output,
                pass_fds=fds,
                start_new_session=True,
            )
        self._exited = _call_system("syscall", _PIDFD_OPEN, self._process.pid, 0)
        self._closing.callback(os.close, self._exited)
        self._tail = b""
        self._poll = select.poll()
        for source in (self._talk, self._output, self._exited):
            self._poll.register(source, select.POLLIN)
        self._running = True

    def _guarded(self, line: bytes | None, deadline_s: float) -> dict[str, Any]:
        """Exchange; whatever ends it other than an answer ends the child."""
        answer: dict[str, Any] | None = None
        try:
            answer = self._exchange(line, time.monotonic() + deadline_s)
        except _Ended as ended:
            self._wait_exit()
            self._kill(LAST_WORDS_S)
            raise BackendUnavailable(self._sentence(self._exit_words())) from ended
        except _Failed as failure:
            raise BackendUnavailable(self._sentence(str(failure))) from failure
        finally:
            if answer is None:
                self._kill(LAST_WORDS_S)
        if "bad_model" in answer:
            raise BadModel(str(answer["bad_model"]))
        if "error" in answer:
            raise BackendUnavailable(str(answer["error"]))
        return answer

    def _exchange(self, line: bytes | None, until_s: float) -> dict[str, Any]:
        received = b""
        begun_s = time.monotonic()
        try:
            if line is not None:
                self._talk.settimeout(max(until_s - begun_s, 0.001))
                self._talk.sendall(line)
            while not received.endswith(b"\n"):
                left_s = until_s - time.monotonic()
                ready = [fd for fd, _ in self._poll.poll(ceil(left_s * 1000))] if left_s > 0 else []
                if not ready:
                    raise _Failed(f"gave no answer within {until_s - begun_s:.2f} s")
                if self._output in ready:
                    self._listen()
                if self._talk.fileno() in ready:
                    received += self._receive()
                    if len(received) > MAX_ANSWER_BYTES:
                        raise _Failed("answers without end")
                elif self._exited in ready:  # grandchildren may hold its end of the socket
                    raise _Ended
            answer = json.loads(received)
        except TimeoutError as error:
            raise _Failed("takes no request") from error
        except OSError as error:  # reset by peer, broken pipe
            raise _Ended from error
        except ValueError as error:
            raise _Failed("answers what is not JSON") from error
        if not isinstance(answer, dict):
            raise _Failed("answers what is not a JSON object")
        return answer

    def _receive(self) -> bytes:
        part = self._talk.recv(65536)
        if not part:
            raise _Ended
        return part

    def _listen(self) -> None:
        """Take what the child wrote to its output, so that it never waits for a reader; keep the end."""
        try:
            part = os.read(self._output, 65536)
        except BlockingIOError:
            return
        self._tail = (self._tail + part)[-TAIL_BYTES:]
        if not part:
            with contextlib.suppress(KeyError):  # once is enough
                self._poll.unregister(self._output)

    def _wait_exit(self) -> None:
        """Give it the time to end by itself, for its exit code."""
        exited = select.poll()
        exited.register(self._exited, select.POLLIN)
        exited.poll(round(LAST_WORDS_S * 1000))
        self._listen()

    def _exit_words(self) -> str:
        code = self._process.returncode if self._process else None
        if code is None:
            return "hung up"
        return f"ended with exit code {code}" if code >= 0 else f"was ended by {_signal_name(-code)}"

    def _sentence(self, failure: str) -> str:
        lines = self._tail.decode("utf-8", "replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"the process of {self._name} {failure}" + (f": {said[:300]}" if said else "")

    def _kill(self, wait_s: float) -> None:
        """SIGKILL to the whole group; then wait that long for it to be gone."""
        self._running = False
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):  # not reaped yet: the number is still this group's
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return
        # As the first process of a container we inherit the killed grandchildren.
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-process.pid, 0)


def _call_system(name: str, *arguments: int | bytes) -> int:
    """The descriptor that a function of the C library answers. Raises OSError."""
    descriptor: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return name + (" (out of memory, or killed)" if number == signal.SIGKILL else "")
