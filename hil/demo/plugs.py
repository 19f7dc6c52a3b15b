"""Somebody who pulls the demo's plugs: the camera for a while, the microphone for a while, and again."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from hil.emulators.serial_port import SerialEmulator

WHOLE_S = 20.0
GONE_S = 12.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time (CLOCK_MONOTONIC) in which the same sensors were there."""

    gone: str
    """The sensor that was unplugged; empty for none."""
    start_ns: int
    stop_ns: int


class Plugs:
    """Unplugs each of the sensors in turn, with pauses in which all are there."""

    def __init__(self, sensors: Mapping[str, SerialEmulator]) -> None:
        """``sensors``: none of them: nothing is ever unplugged."""
        self._sensors = sensors
        self._turns = [turn for name in sensors for turn in (("", WHOLE_S), (name, GONE_S))]
        self._turn = 0
        self._start_ns = time.monotonic_ns()
        self.phases: list[Phase] = []

    def step(self) -> None:
        """Change what is due by now."""
        if not self._turns:
            return
        gone, length_s = self._turns[self._turn % len(self._turns)]
        if time.monotonic_ns() - self._start_ns < length_s * 1e9:
            return
        self._close(gone)
        if gone:
            self._sensors[gone].plug()
        self._turn += 1
        following, _ = self._turns[self._turn % len(self._turns)]
        if following:
            self._sensors[following].unplug()

    def finish(self) -> list[Phase]:
        """All phases, when the show is over."""
        if self._turns:
            self._close(self._turns[self._turn % len(self._turns)][0])
        return self.phases

    def _close(self, gone: str) -> None:
        now_ns = time.monotonic_ns()
        self.phases.append(Phase(gone, self._start_ns, now_ns))
        self._start_ns = now_ns
