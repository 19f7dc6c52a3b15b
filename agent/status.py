"""A snapshot of the agent as JSON, given to whoever connects to the socket ``axond.sock`` in the state folder."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

SOCKET_NAME = "axond.sock"
ACCEPT_TIMEOUT_S = 0.5
TALK_TIMEOUT_S = 2.0


class StatusUnavailable(Exception):
    """No agent answers: one sentence."""


class StatusServer:
    """Worker that answers each connection with one snapshot."""

    critical = False
    name = "status"

    def __init__(self, state_dir: Path, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._path = state_dir / SOCKET_NAME
        self._snapshot = snapshot

    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            with _inside(self._path) as short:
                server.bind(short)
            self._path.chmod(0o660)
            server.listen(4)
            server.settimeout(ACCEPT_TIMEOUT_S)
            try:
                while not stop.is_set():
                    beat()
                    try:
                        client, _ = server.accept()
                    except TimeoutError:
                        continue
                    with client:
                        self._answer(client)
            finally:
                self._path.unlink(missing_ok=True)

    def _answer(self, client: socket.socket) -> None:
        client.settimeout(TALK_TIMEOUT_S)
        try:
            client.sendall(json.dumps(self._snapshot()).encode())
        except OSError:  # whoever asked went away
            return


def ask(state_dir: Path) -> dict[str, Any]:
    """The snapshot of the agent that runs on ``state_dir``. Raises StatusUnavailable."""
    path = state_dir / SOCKET_NAME
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(TALK_TIMEOUT_S)
            with _inside(path) as short:
                client.connect(short)
            parts = []
            while part := client.recv(65536):
                parts.append(part)
        snapshot: dict[str, Any] = json.loads(b"".join(parts))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise StatusUnavailable(f"no agent runs on {state_dir}; start one with axond run") from error
    except PermissionError as error:
        raise StatusUnavailable(
            f"{path}: permission denied; ask as the user that the agent runs as, or as root"
        ) from error
    except (OSError, ValueError) as error:
        raise StatusUnavailable(
            f"{path}: the agent gives no answer ({error}); is it hanging or just stopping?"
        ) from error
    return snapshot


@contextmanager
def _inside(path: Path) -> Iterator[str]:
    """A short name of ``path``: socket addresses end at 107 bytes, folders need not."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
