"""Runs the checks: each on a thread of its own, with a deadline, so that none keeps the others from being told."""

import time
from collections.abc import Sequence
from threading import Thread

from agent.doctor.finding import LEVELS, Check, Finding, Word
from agent.doctor.scene import Scene


class _Run:
    def __init__(self, check: Check, scene: Scene) -> None:
        self.check = check
        self.found: list[Finding] = []
        self._scene = scene
        self._thread = Thread(target=self._look, name=f"doctor-{check.topic}", daemon=True)
        self._thread.start()
        self._end_s = time.monotonic() + check.deadline_s

    def result(self) -> list[Finding]:
        """Waits until the check ends or its deadline is over."""
        self._thread.join(max(0.0, self._end_s - time.monotonic()))
        found = list(self.found)
        if self._thread.is_alive():
            found.append(
                Finding(
                    f"{self.check.topic}.deadline",
                    "warning",
                    "looking took more than {seconds:g} s and was given up; what is above was found before",
                    remedy="a device or file system that does not answer looks like this: see the kernel's log",
                    commands=("sudo dmesg --level=err,warn | tail -n 30",),
                    facts={"seconds": self.check.deadline_s},
                )
            )
        return found

    def _look(self) -> None:
        try:
            for finding in self.check.look(self._scene):
                finding.told()  # facts that do not fit, of an agent of another version say, show here
                self.found.append(finding)
        except Exception as error:  # noqa: BLE001 - the boundary of a thread: whatever it is, it is told as a finding
            self.found.append(
                Finding(
                    f"{self.check.topic}.raised",
                    "warning",
                    "this could not be looked at: {kind}: {sentence}",
                    remedy="please report this with a support bundle",
                    commands=("axond doctor --bundle axond-support.tar.gz",),
                    facts={"kind": Word(type(error).__name__), "sentence": str(error)},
                )
            )


def examine(scene: Scene, checks: Sequence[Check]) -> list[Finding]:
    """What all checks find, problems first, else in the order of the checks."""
    runs = [_Run(check, scene) for check in checks]
    found = [finding for run in runs for finding in run.result()]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
