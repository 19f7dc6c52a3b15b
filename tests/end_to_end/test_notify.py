"""What a real ``axond run`` tells systemd, from its start to its end."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

WATCHDOG_S = 0.4
WAIT_S = 30.0


class Manager:
    """Hears what systemd would hear."""

    def __init__(self, heard: socket.socket) -> None:
        self._socket = heard
        self._socket.settimeout(WAIT_S)
        self.messages: list[tuple[float, list[str]]] = []

    def hear_until(self, line: str) -> list[str]:
        """The lines up to a message with one that begins with ``line``."""
        lines: list[str] = []
        while True:
            message = self._socket.recv(4096).decode().split("\n")
            self.messages.append((time.monotonic(), message))
            lines += message
            if any(one.startswith(line) for one in message):
                return lines


@contextmanager
def agent(folder: Path, manager: str) -> Iterator["subprocess.Popen[bytes]"]:
    config = folder / "axond.toml"
    config.write_text(f'[device]\nid = "d"\nstate_dir = "{folder / "state"}"\n[http]\nlisten = []\n')
    environment = {**os.environ, "NOTIFY_SOCKET": manager, "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}
    command = [sys.executable, "-m", "agent", "run", "--config", str(config)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_start_that_waits_for_its_outbox_asks_for_time_and_then_is_ready(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        manager = Manager(heard)
        with agent(tmp_path, str(tmp_path / "notify")) as first:
            assert manager.hear_until("READY=1") == ["READY=1", "STATUS=starting sensors and models"]
            first.send_signal(signal.SIGTERM)
            assert first.wait(WAIT_S) == 0
            manager.hear_until("STOPPING=1")
        with closing(sqlite3.connect(tmp_path / "state" / "outbox.db", isolation_level=None)) as holder:
            holder.execute("PRAGMA locking_mode = EXCLUSIVE")
            holder.execute("BEGIN EXCLUSIVE")
            with agent(tmp_path, str(tmp_path / "notify")) as second:
                assert manager.hear_until("STATUS=") == ["EXTEND_TIMEOUT_USEC=10000000", "STATUS=opening the outbox"]
                holder.close()
                assert "READY=1" in manager.hear_until("READY=1")
                assert "STATUS=ok" in manager.hear_until("STATUS=ok")
                manager.messages.clear()
                for _ in range(10):
                    manager.hear_until("WATCHDOG=1")
                fed_s = [at_s for at_s, lines in manager.messages if "WATCHDOG=1" in lines]
                # At half the time that systemd gives; a busy machine adds to it.
                assert sorted(b - a for a, b in pairwise(fed_s))[4] < WATCHDOG_S
                second.send_signal(signal.SIGTERM)
                assert second.wait(WAIT_S) == 0
                assert any(line.startswith("STATUS=stopping") for line in manager.hear_until("STOPPING=1"))
