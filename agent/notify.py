"""Tell systemd how we are (sd_notify), over a plain socket; silent where nobody asked."""

import os
import socket
import time

FEED_S = 1.0
"""The watchdog is fed this often, or twice within the time that the unit gives, whichever is more."""


def notify(*lines: str) -> None:
    """Send lines such as ``READY=1``, ``STATUS=...`` or ``STOPPING=1`` to ``$NOTIFY_SOCKET``, as one message."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not lines:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto("\n".join(lines).encode(), address)
        except OSError:  # the manager went away: nobody is left to tell
            return


def status(sentence: str) -> str:
    """The line that ``systemctl status`` shows; a status is one line, whatever a driver put into it."""
    return "STATUS=" + " ".join(sentence.split())


def extend_timeout(seconds: float) -> str:
    """The line that gives a start or stop that makes progress so much time from now on."""
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"


def watchdog_s() -> float | None:
    """How long systemd waits for a sign of life of this process (``WatchdogSec=``); None: it does not."""
    whose, usec = os.environ.get("WATCHDOG_PID"), os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or not int(usec) or whose not in (None, str(os.getpid())):
        return None
    return int(usec) / 1e6


def feed_interval_s() -> float:
    """How often to feed the watchdog, if there is one."""
    limit_s = watchdog_s()
    return FEED_S if limit_s is None else min(FEED_S, limit_s / 2)


class Pulse:
    """``beat`` for a program of one worker: ready with the first; the watchdog is fed, but no more than needed."""

    def __init__(self) -> None:
        self._interval_s = feed_interval_s()
        self._ready = False
        self._next_s = 0.0

    def beat(self) -> None:
        now_s = time.monotonic()
        if not self._ready:
            notify("READY=1")
            self._ready = True
        if now_s >= self._next_s:
            notify("WATCHDOG=1")
            self._next_s = now_s + self._interval_s
