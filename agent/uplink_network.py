"""Hears from the kernel that an address or a route has appeared: no back-off outlasts an outage of the network."""

import logging
import select
import socket
import struct
from threading import Event as Flag
from time import monotonic
from typing import Final

log = logging.getLogger(__name__)

# From linux/rtnetlink.h and linux/netlink.h.
_NETLINK_ROUTE: Final = 0
_RTM_NEWADDR: Final = 20
_RTM_NEWROUTE: Final = 24
_GROUPS: Final = 0x10 | 0x40 | 0x100 | 0x400  # IPv4 and IPv6: addresses, routes
_HEADER: Final = struct.Struct("=IHHII")

_TICK_S = 0.25
_SETTLE_S = 0.25
"""Addresses and routes appear in bursts; an attempt before the last of them is one attempt too early."""


class NetworkWatch:
    """One thread's. Where the kernel tells nothing (not Linux, or forbidden), waiting is just waiting."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Begins to listen."""
        self.close()
        family = getattr(socket, "AF_NETLINK", None)
        if family is None:
            return
        try:
            self._socket = socket.socket(family, socket.SOCK_RAW, _NETLINK_ROUTE)
            self._socket.bind((0, _GROUPS))
            self._socket.setblocking(False)
        except OSError as error:
            log.debug("changes of the network are not told (%s); the back-off is always waited out", error)
            self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def forget(self) -> None:
        """What happened until now is known."""
        self._changed()

    def rest(self, wait_s: float, stop: Flag) -> bool:
        """Waits a little, at most ``wait_s``; True if an address or route has appeared since ``forget``.

        Returns early, so that the caller can beat: it calls again until its time is over.
        """
        wait_s = max(0.0, min(wait_s, _TICK_S))
        if self._socket is None:
            stop.wait(wait_s)
            return False
        select.select([self._socket], [], [], wait_s)
        if not self._changed():
            return False
        end_s = monotonic() + _SETTLE_S
        while (left_s := end_s - monotonic()) > 0 and not stop.is_set():
            select.select([self._socket], [], [], left_s)
            self._changed()
        return True

    def _changed(self) -> bool:
        """Reads all that the kernel has said."""
        changed = False
        while self._socket is not None:
            try:
                changed = _appeared(self._socket.recv(65536)) or changed
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: so much changed that the kernel threw some of it away
                changed = True
        return changed


def _appeared(data: bytes) -> bool:
    """Whether one of the netlink messages tells of a new address or route."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if kind in (_RTM_NEWADDR, _RTM_NEWROUTE):
            return True
        if length < _HEADER.size:
            return False
        at += (length + 3) & ~3
    return False
