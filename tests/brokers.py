"""A real mosquitto for tests: on a free port, in a folder of its own, killed and restarted at will."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
START_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail_of(path: Path) -> str:
    return path.read_text("utf-8", "replace")[-2000:] if path.exists() else ""


class Service:
    """One process of somebody else's program, killed, frozen and stopped at will."""

    _process: "subprocess.Popen[bytes] | None" = None

    def kill(self) -> None:
        """As a power cut does it."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As an administrator does it; also what a test ends with."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """It hangs: its connections stay open and nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
            process.wait(20)


class Mosquitto(Service):
    """One broker process without persistence: ``kill`` loses all that it holds."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, *, users: dict[str, str] | None = None, acl: str = "", extra: str = "") -> None:
        """``extra`` are more lines of configuration, for example limits; ``acl`` is the text of an ACL file."""
        self.port = free_port()
        self.log = folder / "mosquitto.log"
        self._config = folder / "mosquitto.conf"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", "log_dest stderr", "log_type all", extra]
        if os.geteuid() == 0:
            lines.append("user root")
        if users is None:
            lines.append("allow_anonymous true")
        else:
            passwords = folder / "passwords"
            passwords.touch()
            for name, password in users.items():
                subprocess.run(["mosquitto_passwd", "-b", passwords, name, password], check=True, capture_output=True)
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        if acl:
            (folder / "acl").write_text(acl, "utf-8")
            lines.append(f"acl_file {folder / 'acl'}")
        self._config.write_text("\n".join(lines) + "\n", "utf-8")

    def start(self) -> "Mosquitto":
        """Returns once it accepts connections."""
        if MOSQUITTO is None:
            raise RuntimeError("mosquitto is not installed")
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen([MOSQUITTO, "-c", self._config], stdout=sink, stderr=sink)
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=0.2):
                return self
            if self._process.poll() is not None:
                break
        self.kill()
        raise RuntimeError(f"mosquitto did not start: {tail_of(self.log)}")
