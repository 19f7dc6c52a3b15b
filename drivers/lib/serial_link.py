"""A serial port that is opened exclusively, read with arrival times, and explains itself when it cannot be used."""

import errno
import fcntl
import grp
import os
import re
import select
import stat
import termios
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from serial import Serial
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from drivers.base import Disconnected, Unavailable
from drivers.inventory import holder

READ_BYTES = 4096
"""The kernel's tty buffer: one read empties it, and lets the kernel fill it again with what it holds behind it."""
MOST_READS = 16
WRITE_TIMEOUT_S = 1.0
GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL
DEVICES = "/dev"
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
        self._path = port

    @property
    def place(self) -> str:
        """Where the port appears: its path, or the folder of all devices for a USB id."""
        return DEVICES if _USB_ID.fullmatch(self.port) else self.port

    def open(self) -> None:
        """Take the port and drop what the kernel had buffered. Raises Unavailable."""
        self.close()
        path = find_port(self.port, list_ports.comports()) if _USB_ID.fullmatch(self.port) else self.port
        self._path = path
        try:
            port = Serial(path, self.baud, timeout=0, rtscts=self._rtscts, exclusive=True)
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

        No bytes: ``(b"", now)``. Raises Disconnected when the port went away, is not open, or is read by others too.
        """
        descriptor = self._descriptor()
        try:
            # Not pyserial's read and write: they use select, which fails for descriptors from 1024 on.
            events = _wait(descriptor, select.POLLIN, timeout)
            received = _read(descriptor) if events else b""
        except BlockingIOError:
            return b"", time.monotonic_ns()
        except OSError as error:
            raise self._gone(error.strerror) from error
        if events and not received:
            if _wait(descriptor, select.POLLIN, 0) & GONE:
                raise self._gone("end of file")
            raise Disconnected(f"what arrives on serial port {self.port} is read {_by_whom(self._path)}")
        return received, time.monotonic_ns()

    def rest(self, seconds: float) -> None:
        """Let bytes gather in the kernel for so long; over at once when the port goes away."""
        if seconds > 0:
            _wait(self._descriptor(), 0, seconds)

    def write(self, request: bytes) -> None:
        """Send bytes to the device (a command of a few bytes). Raises Disconnected when the port went away."""
        descriptor = self._descriptor()
        end_s = time.monotonic() + WRITE_TIMEOUT_S
        try:
            while request:
                if not _wait(descriptor, select.POLLOUT, end_s - time.monotonic()):
                    raise self._gone(f"it took no byte in {WRITE_TIMEOUT_S:g} s")
                with suppress(BlockingIOError):
                    request = request[os.write(descriptor, request) :]
        except OSError as error:
            raise self._gone(error.strerror) from error

    def _descriptor(self) -> int:
        if self._serial is None:
            raise Disconnected(f"serial port {self.port} is not open")
        descriptor: int = self._serial.fileno()
        return descriptor

    def _gone(self, how: str | None) -> Disconnected:
        return Disconnected(f"serial port {self.port} went away ({how}); was the sensor unplugged?")

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


def _wait(descriptor: int, event: int, timeout: float) -> int:
    """Events that there are, at once or within ``timeout`` s; 0 when that is over."""
    poll = select.poll()
    poll.register(descriptor, event)
    return next((events for _, events in poll.poll(max(timeout, 0.0) * 1000)), 0)


def _read(descriptor: int) -> bytes:
    """What is there, or much of it. Raises BlockingIOError when there is nothing."""
    received = part = os.read(descriptor, READ_BYTES)
    # A terminal's buffer holds one byte less than its size.
    for _ in range(MOST_READS):
        if len(part) < READ_BYTES - 1:
            break
        try:
            part = os.read(descriptor, READ_BYTES)
        except OSError:
            # What came before is good; the next read meets the same error, if it is one.
            break
        received += part
    return received


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
    # pyserial makes a sentence of termios.error, which is not an OSError and carries its number as first argument.
    cause = error.__context__ if isinstance(error.__context__, termios.error) else error
    number = getattr(cause, "errno", None) or (cause.args[0] if cause.args else None)
    if number == errno.ENOENT:
        return f"serial port {path} does not exist; {_present(list_ports.comports())}"
    if number in (errno.EACCES, errno.EPERM):
        return f"serial port {path} may not be opened by this user; {_permission_hint(Path(path))}"
    if number in _HELD:
        return f"serial port {path} is held {_by_whom(path)}"
    if number in (errno.ENOTTY, errno.EISDIR):
        return f"{path} is not a serial port; see what is there with: axond sensors list"
    if number == errno.EINVAL:
        return f"serial port {path} cannot be set up ({error}); can it do this baud rate?"
    return f"serial port {path} cannot be opened: {error}"


def _by_whom(path: str) -> str:
    """Who has the port, as far as this user may see, and what to do."""
    name = holder(Path(path))
    if name is None:
        return f"by another process (find it with: sudo fuser -v {path}); stop that process"
    if name.endswith(f"({os.getpid()})"):
        return f"by another sensor of this process, {name}; give each sensor a port of its own"
    return f"by another process, {name}; stop that process"


def _permission_hint(path: Path) -> str:
    try:
        status = path.stat()
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return "its owner cannot be read"
    if not status.st_mode & stat.S_IRGRP or not status.st_mode & stat.S_IWGRP:
        return f"its group {group} has no read and write access either: add a udev rule"
    return f"it belongs to the group {group}: add the user to it (usermod -aG {group} USER) and log in again"
