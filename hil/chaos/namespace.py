"""A cable between the agent and the broker that can be pulled: a network namespace and a pair of virtual interfaces."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from agent.cli.command import CommandError


class Cable:
    """The agent lives at its far end: put ``prefix`` before a command to run it there."""

    def __init__(self, number: int) -> None:
        """``number``: cables with different ones do not meet, as far as 14 bits of it differ."""
        name = self._name = f"axond{number}"[-12:]
        network = f"10.{128 + number // 256 % 64}.{number % 256}"
        self._near = f"{name}h"
        self._guest = f"{network}.2"
        self.host = f"{network}.1"
        """Where the broker is, seen from the namespace."""
        self.prefix = ["ip", "netns", "exec", name]

    def pull(self) -> None:
        """No carrier; addresses and connections stay, as when somebody pulls a plug."""
        _ip("link", "set", self._near, "down")

    def plug(self) -> None:
        _ip("link", "set", self._near, "up")

    def delay(self, delay_ms: int, loss_percent: int) -> None:
        """Every packet to the agent comes late, some never. Raises CommandError where the kernel has no netem."""
        how = ["delay", f"{delay_ms}ms", "loss", f"{loss_percent}%"]
        _run(["tc", "qdisc", "replace", "dev", self._near, "root", "netem", *how])

    def undelay(self) -> None:
        _run(["tc", "qdisc", "del", "dev", self._near, "root"])

    def lay(self) -> None:
        """Make it. Raises CommandError where that is not allowed."""
        name, near = self._name, self._near
        _ip("netns", "add", name)
        _ip("link", "add", near, "type", "veth", "peer", "name", "uplink0", "netns", name)
        _ip("addr", "add", f"{self.host}/24", "dev", near)
        self.plug()
        _ip("-n", name, "addr", "add", f"{self._guest}/24", "dev", "uplink0")
        _ip("-n", name, "link", "set", "uplink0", "up")
        _ip("-n", name, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Deletes the namespace; its interfaces go with it."""
        subprocess.run(["ip", "link", "del", self._near], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self._name], capture_output=True, check=False)


@contextmanager
def cable() -> Iterator[tuple[Cable | None, str]]:
    """A cable, or None and the reason why there is none."""
    made = Cable(os.getpid())
    try:
        try:
            made.lay()
        except CommandError as error:
            yield None, str(error)
        else:
            yield made, ""
    finally:
        made.remove()


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        raise CommandError(f"{command[0]} is not installed (apt install iproute2)")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
