"""A real PostgreSQL for tests: in a folder of its own, reached by a socket in it, killed and restarted at will."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

_BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)), None)
POSTGRES = _BIN.parent if _BIN else None
START_S = 30.0


def missing() -> str | None:
    """Why there can be no PostgreSQL here, or None."""
    if POSTGRES is None:
        return "postgresql is not installed"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    return None


class Postgres:
    """One server. It refuses to run as root, so root runs it as the package's own user."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="axond-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        self._user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._user:
            owner = pwd.getpwnam("postgres")
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        initdb = self._program("initdb", "-D", self._data, "-U", "axond", "-A", "trust", "--no-sync", "-E", "UTF8")
        subprocess.run(initdb, check=True, capture_output=True, cwd=self._folder, **self._user)  # type: ignore[call-overload]

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _program(self, name: str, *arguments: str) -> list[str]:
        return [str((POSTGRES or Path()) / name), *arguments]

    def start(self) -> "Postgres":
        """Returns once it answers."""
        # Without fsync: the machine's power is not what tests cut.
        serve = self._program("postgres", "-F", "-D", self._data, "-k", str(self._folder), "-c", "listen_addresses=")
        with (self._folder / "log").open("ab") as sink:
            self._process = subprocess.Popen(serve, stdout=sink, stderr=sink, cwd=self._folder, **self._user)  # type: ignore[call-overload]
        end_s = time.monotonic() + START_S
        ready = self._program("pg_isready", "-q", "-h", str(self._folder))
        while subprocess.run(ready, check=False).returncode:
            if self._process is None or self._process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"PostgreSQL did not start: {(self._folder / 'log').read_text()[-2000:]}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
        return self

    def create(self) -> str:
        """Makes an empty database and returns its URL."""
        name = f"hub{next(self._names)}"
        subprocess.run(
            self._program(
                "psql", "-q", "-h", str(self._folder), "-U", "axond", "-c", f"CREATE DATABASE {name}", "postgres"
            ),
            check=True,
            capture_output=True,
        )
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://axond@/{name}?host={self._folder}"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Its connections end at once, and what was not committed is rolled back."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(START_S)

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder)
