import errno
import fcntl
import os
import pty
import resource
import signal
import subprocess
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from serial.tools.list_ports_common import ListPortInfo

from drivers.base import Disconnected, Unavailable
from drivers.lib.serial_link import SerialLink, _why_not, find_port

MANY = 2048


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """The sensor's end of a pty as a descriptor, and the path of ours."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


def usb_port(device: str, vid: int, pid: int, serial: str | None) -> ListPortInfo:
    port = ListPortInfo(device)
    port.vid, port.pid, port.serial_number, port.product = vid, pid, serial, "USB Serial"
    return port


def test_bytes_come_with_the_time_at_which_they_were_read(terminal: tuple[int, str]) -> None:
    master, path = terminal
    link = SerialLink(path, 115200)
    link.open()
    os.write(master, b"\x11\x13\r\n\x00\xff")
    before = time.monotonic_ns()
    assert link.read(5)[0] == b"\x11\x13\r\n\x00\xff"
    received, at_ns = link.read(0.05)
    assert received == b""
    assert at_ns - before >= 50_000_000
    link.close()


def test_what_was_there_before_open_is_dropped(terminal: tuple[int, str]) -> None:
    master, path = terminal
    os.write(master, b"old")
    link = SerialLink(path, 9600)
    link.open()
    os.write(master, b"new")
    assert link.read(5)[0] == b"new"
    link.close()


def test_the_process_that_has_the_port_is_named(terminal: tuple[int, str]) -> None:
    link = SerialLink(terminal[1], 9600)
    command = ["flock", "--no-fork", terminal[1], "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"x")
        other.stdin.flush()
        assert other.stdout.read(1) == b"x"
        with pytest.raises(Unavailable, match=rf"is held by another process, cat \({other.pid}\); stop that process"):
            link.open()
        other.stdin.close()
    link.open()
    link.close()


def test_two_sensors_on_one_port_are_told_so(terminal: tuple[int, str]) -> None:
    first, second = SerialLink(terminal[1], 9600), SerialLink(terminal[1], 9600)
    first.open()
    with pytest.raises(Unavailable, match=r"is held by another sensor of this process, .*; give each sensor a port"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_who_takes_the_bytes_away_is_named(terminal: tuple[int, str]) -> None:
    master, path = terminal
    with subprocess.Popen(
        ["cat"], stdin=(theirs := os.open(path, os.O_RDWR | os.O_NOCTTY)), stdout=subprocess.DEVNULL
    ) as other:
        try:
            link = SerialLink(path, 9600)
            link.open()
            # An end of file in a line is what a reader sees who comes too late for the bytes: ready, and nothing there.
            settings = termios.tcgetattr(theirs)
            settings[3] |= termios.ICANON
            other.send_signal(signal.SIGSTOP)
            os.waitpid(other.pid, os.WUNTRACED)
            termios.tcsetattr(theirs, termios.TCSANOW, settings)
            os.write(master, b"\x04")
            with pytest.raises(Disconnected, match=rf"is read by another process, cat \({other.pid}\); stop that"):
                link.read(5)
            link.close()
        finally:
            os.close(theirs)
            other.kill()


def test_descriptors_beyond_those_of_select_are_read_and_written(terminal: tuple[int, str]) -> None:
    master, path = terminal
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < MANY:
        pytest.skip(f"no more than {limits[1]} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(MANY, limits[0]), limits[1]))
    used = [os.open(os.devnull, os.O_RDONLY)]
    while used[-1] < 1024:
        used.append(os.dup(used[0]))
    try:
        link = SerialLink(path, 9600)
        link.open()
        assert link._descriptor() >= 1024
        os.write(master, b"up")
        assert link.read(5)[0] == b"up"
        link.write(b"down")
        assert os.read(master, 10) == b"down"
        link.close()
    finally:
        for descriptor in used:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_programs_that_do_not_lock_are_kept_out_too(terminal: tuple[int, str]) -> None:
    link = SerialLink(terminal[1], 9600)
    tiocgexcl = 0x80045440
    probe = os.open(terminal[1], os.O_RDWR | os.O_NOCTTY)
    link.open()
    assert fcntl.ioctl(probe, tiocgexcl, b"\0" * 4) == b"\1\0\0\0"
    link.close()
    assert fcntl.ioctl(probe, tiocgexcl, b"\0" * 4) == b"\0" * 4
    os.close(probe)


def test_unplugged_is_disconnected_and_closing_is_quiet() -> None:
    master, slave = pty.openpty()
    link = SerialLink(os.ttyname(slave), 9600)
    link.open()
    os.close(slave)
    os.close(master)
    with pytest.raises(Disconnected, match="went away"):
        link.read(5)
    link.close()
    link.close()
    with pytest.raises(Disconnected, match="is not open"):
        link.read(0)


def test_a_missing_port_lists_what_is_there() -> None:
    with pytest.raises(Unavailable, match=r"/dev/serial/by-id/nothing does not exist; (ports that are here|no serial)"):
        SerialLink("/dev/serial/by-id/nothing", 9600).open()


@pytest.mark.parametrize("what", ["folder", "file", "device"])
def test_what_is_no_terminal_is_refused(tmp_path: Path, what: str) -> None:
    path = Path(os.devnull) if what == "device" else tmp_path / "port"
    if what != "device":
        path.mkdir() if what == "folder" else path.write_text("text")
    with pytest.raises(Unavailable, match=f"{path} is not a serial port; see what is there with: axond sensors list"):
        SerialLink(str(path), 9600).open()


def test_no_descriptor_is_left_over_open_and_close(terminal: tuple[int, str], tmp_path: Path) -> None:
    link, absent = SerialLink(terminal[1], 9600), SerialLink(str(tmp_path), 9600)
    link.open()
    link.close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        link.open()
        link.open()
        link.close()
        with pytest.raises(Unavailable):
            absent.open()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_usb_id_finds_its_port() -> None:
    ports = [
        ListPortInfo("/dev/ttyS0"),
        usb_port("/dev/ttyUSB0", 0x1A86, 0x7523, None),
        usb_port("/dev/ttyUSB1", 0x0403, 0x6001, "A1"),
        usb_port("/dev/ttyUSB2", 0x0403, 0x6001, "B2"),
    ]
    assert find_port("1a86:7523", ports) == "/dev/ttyUSB0"
    assert find_port("0403:6001:B2", ports) == "/dev/ttyUSB2"
    with pytest.raises(Unavailable, match=r"2 serial ports have the USB id 0403:6001 \(/dev/ttyUSB1, /dev/ttyUSB2\)"):
        find_port("0403:6001", ports)
    with pytest.raises(
        Unavailable, match=r"no serial port has the USB id 10C4:EA60; ports that are here: /dev/ttyS0, "
    ):
        find_port("10C4:EA60", ports)


def test_no_permission_names_the_group(tmp_path: Path) -> None:
    port = tmp_path / "ttyUSB0"
    port.touch()
    port.chmod(0o660)
    denied = PermissionError(errno.EACCES, "Permission denied")
    group = port.group()
    assert f"belongs to the group {group}: add the user to it (usermod -aG {group} USER)" in _why_not(str(port), denied)
    port.chmod(0o600)
    assert "add a udev rule" in _why_not(str(port), denied)


def test_a_termios_error_is_explained_like_an_os_error() -> None:
    assert "not a serial port" in _why_not("/dev/x", termios.error(errno.ENOTTY, "Inappropriate ioctl for device"))


def test_commands_reach_the_device_until_it_goes_away(terminal: tuple[int, str]) -> None:
    master, path = terminal
    link = SerialLink(path, 9600)
    with pytest.raises(Disconnected, match="is not open"):
        link.write(b"\x55")
    link.open()
    link.write(b"\x55\x0d\x11")
    assert os.read(master, 10) == b"\x55\x0d\x11"
    link.close()
    with pytest.raises(Disconnected, match="is not open"):
        link.write(b"\x55")
