"""A process that is killed, frozen and started again at will; nothing of it is left behind, however the rig ends."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.cli.command import CommandError

STOP_S = 15.0
POLL_S = 0.02
TAIL_CHARACTERS = 600


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float) -> float:
    """Poll until true; returns how long that took in seconds. Raises CommandError that names ``what``."""
    begin_s = time.monotonic()
    while not condition():
        if time.monotonic() - begin_s > timeout_s:
            raise CommandError(f"not within {timeout_s:g} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - begin_s


def axond(*arguments: str) -> list[str]:
    """The command line of an axond process of this environment."""
    return [sys.executable, "-m", "agent", *arguments]


class Part:
    """One process of an installation, with the output of all its lives in ``<folder>/<name>.log``."""

    def __init__(
        self, name: str, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """``environment``: beside our own."""
        self._environment = {**os.environ, **(environment or {})}
        self.name = name
        self.log = folder / f"{name}.log"
        self.kills = 0
        self.command = [*map(str, command)]
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Raises CommandError while it does not run."""
        if self._child is None:
            raise CommandError(f"{self.name} does not run")
        return self._child.pid

    @property
    def running(self) -> bool:
        """False before the start, after the end, and when it ended by itself."""
        return self._child is not None and self._child.poll() is None

    @property
    def gave_up(self) -> bool:
        """Whether it ended, and nobody had asked for that."""
        return self._child is not None and self._child.poll() is not None

    def start(self) -> None:
        """Start it anew. Raises CommandError while it runs."""
        if self.running:
            raise CommandError(f"{self.name} runs already")
        setpriv = shutil.which("setpriv")
        # Nobody is left behind, even if we are killed with -9 (prctl PR_SET_PDEATHSIG).
        guard = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*guard, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
            )

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        child, self._child = self._child, None
        if child is not None:
            self.kills += 1
            child.kill()
            child.wait()

    def freeze(self) -> None:
        """It keeps its connections and files, and does nothing."""
        if self._child is not None:
            self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; the exit code, 0 where nothing ran. Raises CommandError when it does not end in time."""
        child, self._child = self._child, None
        if child is None:
            return 0
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.send_signal(signal.SIGTERM)
        try:
            return child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise CommandError(f"{self.name} did not stop within {STOP_S:g} s after SIGTERM: {self.tail()}") from None

    def tail(self) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-TAIL_CHARACTERS:] if self.log.exists() else ""
