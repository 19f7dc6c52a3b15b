"""The agent as the device under test: a real ``axond run`` with sensors and nothing else, asked over its socket."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.cli.command import CommandError
from agent.status import StatusUnavailable, ask
from hil.demo import stage

WAIT_S = 20.0
POLL_S = 0.01


class Dut:
    """One running agent."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.pid = pid
        self._state = folder / "state"
        self._log = folder / "agent.log"

    def status(self) -> dict[str, Any]:
        """What ``axond status --json`` says. Raises CommandError when no agent answers."""
        try:
            return ask(self._state)
        except StatusUnavailable as error:
            raise CommandError(f"{error}; its log ends: {self._log.read_text(errors='replace')[-500:]}") from error

    def wait(self, what: str, condition: Callable[[dict[str, Any]], bool], timeout_s: float = WAIT_S) -> dict[str, Any]:
        """The first status for which ``condition`` holds. Raises CommandError after ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        while not condition(facts := self.status()):
            if time.monotonic() > deadline_s:
                raise CommandError(f"not within {timeout_s:g} s: {what}; the agent says: {facts['health']['summary']}")
            time.sleep(POLL_S)
        return facts

    def wait_started(self) -> None:
        """Until it answers. Raises CommandError when it ended, or does not within ``WAIT_S``."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            try:
                self.status()
            except CommandError:
                if not Path(f"/proc/{self.pid}/exe").exists() or time.monotonic() > deadline_s:
                    raise
            else:
                return
            time.sleep(POLL_S)


@contextmanager
def running(folder: Path, sensors: Mapping[str, Mapping[str, Any]]) -> Iterator[Dut]:
    """An agent with these tables ``[sensors.NAME]``, without pipelines and uplink. Raises CommandError."""
    state = json.dumps(str(folder / "state"))
    lines = ["[device]", 'id = "bench"', f"state_dir = {state}", "[http]", "listen = []", "[log]", 'format = "text"']
    for name, table in sensors.items():
        # JSON's strings, numbers and lists are TOML's as well.
        lines += [f"[sensors.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    config = folder / "axond.toml"
    config.write_text("\n".join(lines) + "\n")
    with stage.process("agent", stage.axond("run", "--config", str(config)), folder) as child:
        agent = Dut(folder, child.pid)
        agent.wait_started()
        yield agent
