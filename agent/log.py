"""Structured logs: text on a terminal, the journal's native protocol under systemd, JSON lines elsewhere."""

import json
import logging
import os
import socket
import struct
import sys
import time
from typing import Literal

LogFormat = Literal["auto", "text", "json", "journal"]

JOURNAL_SOCKET = "/run/systemd/journal/socket"
_SYSLOG = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class JournalHandler(logging.Handler):
    """Datagrams in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), so no library is needed."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_SYSLOG.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": "axond",
            "AXOND_LOGGER": record.name,
            "AXOND_THREAD": record.threadName or "",
        }
        data = b""
        for name, value in fields.items():
            raw = value.encode("utf-8", "replace")
            if b"\n" in raw:
                data += name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
            else:
                data += name.encode() + b"=" + raw + b"\n"
        try:
            self._socket.sendto(data, self._path)
        except OSError:  # no journal, or it is restarting
            sys.stderr.write(f"{record.levelname} {self.format(record)}\n")

    def close(self) -> None:
        self._socket.close()
        super().close()


def _stderr_is_journal() -> bool:
    """As systemd.exec(5) says: the variable may be inherited by a process whose output goes elsewhere."""
    status = os.fstat(2)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def set_up(level: str, kind: LogFormat) -> None:
    """Send the logs of the whole process where they belong, replacing earlier handlers."""
    if kind == "auto":
        kind = "journal" if _stderr_is_journal() else "text" if sys.stderr.isatty() else "json"
    handler: logging.Handler = JournalHandler() if kind == "journal" else logging.StreamHandler()
    if kind == "json":
        handler.setFormatter(_JsonLines())
    elif kind == "text":
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
