"""A serial port that is opened exclusively, read with arrival times, and explains itself when it cannot be used."""

import errno
import fcntl
import grp
import re
import select
import stat
import termios
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from serial import Serial, SerialException
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from drivers.base import Disconnected, Unavailable

READ_BYTES = 4096
"""The kernel's tty buffer: one read empties it."""
WRITE_TIMEOUT_S = 1
_USB_ID = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?::(.+))?")
_HELD = (errno.EBUSY, errno.EAGAIN)


class SerialLink:
    """One port, 8N1, raw."""

    def __init__(self, port: str, baud: int, rtscts: bool = False) -> None:
        """``port``: a path, best below ``/dev/serial/by-id``, or ``vid:pid[:serial]`` of a USB port in hex.

        ``rtscts``: hardware flow control, for devices that send faster than a busy host reads.
        """
        self.port = port
        self.baud = baud
        self._rtscts = rtscts
        self._serial: Serial | None = None

    def open(self) -> None:
        """Take the port and drop what the kernel had buffered. Raises Unavailable."""
        self.close()
        path = find_port(self.port, list_ports.comports()) if _USB_ID.fullmatch(self.port) else self.port
        try:
            port = Serial(
                path, self.baud, timeout=0, write_timeout=WRITE_TIMEOUT_S, rtscts=self._rtscts, exclusive=True
            )
        except (OSError, termios.error, ValueError) as error:
            raise Unavailable(_why_not(path, error)) from error
        try:
            # flock (pyserial's exclusive) keeps out who also asks; TIOCEXCL keeps out who does not.
            fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
            port.reset_input_buffer()
        except (OSError, termios.error) as error:
            port.close()
            raise Unavailable(_why_not(path, error)) from error
        self._serial = port

    def read(self, timeout: float) -> tuple[bytes, int]:
        """Bytes that are there, at once or within ``timeout`` s, and the CLOCK_MONOTONIC ns at which they were read.

        No bytes: ``(b"", now)``. Raises Disconnected when the port went away or is not open.
        """
        port = self._serial
        if port is None:
            raise Disconnected(f"serial port {self.port} is not open")
        try:
            ready, _, _ = select.select([port.fileno()], [], [], max(timeout, 0.0))
            received: bytes = port.read(READ_BYTES) if ready else b""
        except (OSError, termios.error, SerialException) as error:
            raise Disconnected(f"serial port {self.port} went away ({error}); was the sensor unplugged?") from error
        return received, time.monotonic_ns()

    def write(self, request: bytes) -> None:
        """Send bytes to the device (a command of a few bytes). Raises Disconnected when the port went away."""
        port = self._serial
        if port is None:
            raise Disconnected(f"serial port {self.port} is not open")
        try:
            port.write(request)
        except (OSError, termios.error, SerialException) as error:
            raise Disconnected(f"serial port {self.port} went away ({error}); was the sensor unplugged?") from error

    def close(self) -> None:
        """Give the port back. Idempotent, never raises."""
        port, self._serial = self._serial, None
        if port is None:
            return
        with suppress(OSError, termios.error):
            # On a pty the flag would outlive us for as long as the other end holds it open.
            fcntl.ioctl(port.fileno(), termios.TIOCNXCL)
        with suppress(OSError, termios.error):
            port.close()


def find_port(usb_id: str, ports: Iterable[ListPortInfo]) -> str:
    """Path of the one port with ``vid:pid[:serial]``. Raises Unavailable when none or several match."""
    match = _USB_ID.fullmatch(usb_id)
    if match is None:
        raise Unavailable(f"{usb_id!r} is not of the form vid:pid[:serial] in hex, for example 1a86:7523")
    vid, pid, serial = int(match[1], 16), int(match[2], 16), match[3]
    every = list(ports)
    found = [p.device for p in every if (p.vid, p.pid) == (vid, pid) and serial in (None, p.serial_number)]
    if not found:
        raise Unavailable(f"no serial port has the USB id {usb_id}; {_present(every)}")
    if len(found) > 1:
        raise Unavailable(
            f"{len(found)} serial ports have the USB id {usb_id} ({', '.join(sorted(found))}); "
            "add the serial number (vid:pid:serial) or name the path below /dev/serial/by-path"
        )
    return str(found[0])


def _present(ports: Iterable[ListPortInfo]) -> str:
    names = [p.device if p.vid is None else f"{p.device} ({p.vid:04x}:{p.pid:04x} {p.product})" for p in ports]
    return f"ports that are here: {', '.join(sorted(names))}" if names else "no serial port is here, check the cable"


def _why_not(path: str, error: Exception) -> str:
    """One sentence for people from an error of opening ``path``."""
    # termios.error is not an OSError and carries its number as the first argument.
    number = getattr(error, "errno", None) or (error.args[0] if error.args else None)
    if number == errno.ENOENT:
        return f"serial port {path} does not exist; {_present(list_ports.comports())}"
    if number in (errno.EACCES, errno.EPERM):
        return f"serial port {path} may not be opened by this user; {_permission_hint(Path(path))}"
    if number in _HELD:
        return f"serial port {path} is held by another process (find it with: fuser -v {path}); stop that process"
    if number in (errno.ENOTTY, errno.EINVAL):
        return f"{path} is not a serial port that can be set up ({error})"
    return f"serial port {path} cannot be opened: {error}"


def _permission_hint(path: Path) -> str:
    try:
        status = path.stat()
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return "its owner cannot be read"
    if not status.st_mode & stat.S_IRGRP or not status.st_mode & stat.S_IWGRP:
        return f"its group {group} has no read and write access either: add a udev rule"
    return f"it belongs to the group {group}: add the user to it (usermod -aG {group} USER) and log in again"
