"""Structured logs: text on a terminal, the journal's native protocol under systemd, JSON lines elsewhere.

An event that operators alert on carries an identifier of its own, given as ``extra=event(READY)``: the journal finds it
by ``MESSAGE_ID=`` and explains it with ``journalctl -x`` (``packaging/systemd/axond.catalog``).
"""

import errno
import fcntl
import json
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Mapping
from typing import Literal

LogFormat = Literal["auto", "text", "json", "journal"]

READY = "6ded16e007f642daac9816de4d4ecdce"
HUNG = "a397e8c3b4fd435f89a399775b8b654c"
DAMAGED = "2470cb98043842ec97aeb58b664a262e"
REFUSED = "cb88161b1bc444a2904dcf4477a810a4"

JOURNAL_SOCKET = "/run/systemd/journal/socket"
SEND_BUFFER_BYTES = 8 << 20
"""As libsystemd asks for: a burst of logs waits for the journal there, and not the thread that logs."""
_SYSLOG = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_PARTS = {"capture": "AXOND_SENSOR", "pipeline": "AXOND_PIPELINE"}
"""Threads are named after their workers, ``capture:mic0``: what such a worker says is about that part."""


def event(message_id: str) -> Mapping[str, object]:
    """``extra`` of a log call that is one of the events above."""
    return {"message_id": message_id}


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
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)
        data = b"".join(_field(*field) for field in _fields(record, message).items())
        try:
            self._send(data)
        except OSError:  # no journal, or it is restarting
            sys.stderr.write(f"{record.levelname} {message}\n")

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_file(data)

    def _send_file(self, data: bytes) -> None:
        """What is too long for a datagram goes in a sealed file of memory, as the protocol wants it."""
        file = os.memfd_create("journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        with os.fdopen(file, "wb", buffering=0) as memory:
            while data:
                data = data[memory.write(data) :]
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", memory.fileno()))
            self._socket.sendmsg([], [rights], 0, self._path)

    def close(self) -> None:
        self._socket.close()
        super().close()


def _fields(record: logging.LogRecord, message: str) -> dict[str, str]:
    """systemd.journal-fields(7), and ``AXOND_`` for what only we know."""
    thread = record.threadName or ""
    fields = {
        "MESSAGE": message,
        "PRIORITY": str(_SYSLOG.get(record.levelno, 6)),
        "SYSLOG_IDENTIFIER": "axond",
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
        "AXOND_LOGGER": record.name,
        "AXOND_THREAD": thread,
    }
    kind, _, part = thread.partition(":")
    if part and kind in _PARTS:
        fields[_PARTS[kind]] = part
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, OSError) and error.errno is not None:
        fields["ERRNO"] = str(error.errno)
    message_id = getattr(record, "message_id", None)
    if message_id is not None:
        fields["MESSAGE_ID"] = message_id
    return fields


def _field(name: str, value: str) -> bytes:
    raw = value.encode("utf-8", "replace")
    if b"\n" in raw:
        return name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
    return name.encode() + b"=" + raw + b"\n"


def to_journal() -> bool:
    """Whether our stderr is the journal.

    As systemd.exec(5) says: the variable may be inherited by a process whose output goes elsewhere.
    """
    status = os.fstat(2)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def set_up(level: str, kind: LogFormat) -> None:
    """Send the logs of the whole process where they belong, replacing earlier handlers."""
    if kind == "auto":
        kind = "journal" if to_journal() else "text" if sys.stderr.isatty() else "json"
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
