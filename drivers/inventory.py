"""What is plugged in: serial ports, capture devices of ALSA, event cameras on USB. Reads files, opens no device."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from grp import getgrgid
from pathlib import Path

from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

STABLE = ("serial/by-id", "axond", "serial/by-path")
"""Folders below /dev with names that stay."""
NO_SERIALS = ("0", "0001", "00000000", "0123456789")
"""What makers put into every chip where a serial number belongs; the udev rules have the same list."""
EVENT_CAMERAS = (
    (0x152A, 0x8400, 0x841F, "iniVation"),
    (0x04B4, 0x00F4, 0x00F5, "Prophesee EVK3 or EVK4"),
    (0x31F7, 0x0003, 0x0004, "CenturyArks SilkyEvCam"),
    (0x1409, 0x8E00, 0x8E00, "IDS uEye XCP-E"),
)
"""USB vendor, first and last product, maker: what neuromorphic-drivers speaks to, and the DVS128."""


@dataclass(frozen=True, slots=True)
class SerialPort:
    device: str
    stable: str | None
    """A path that stays when devices are plugged in another order; None where udev made none."""
    usb_id: str | None
    """``vid:pid[:serial]``."""
    product: str
    holder: str | None
    """Process that has it, as far as this user may see."""
    access: str
    """``ok``, or who would have it."""


@dataclass(frozen=True, slots=True)
class CaptureDevice:
    device: str
    """As ``audio.alsa`` takes it."""
    product: str
    holder: str | None


@dataclass(frozen=True, slots=True)
class EventCamera:
    usb_id: str
    product: str
    access: str


def serial_ports(dev: Path = Path("/dev"), proc: Path = Path("/proc")) -> list[SerialPort]:
    """Every serial port that has a device behind it."""
    return [_port(info, dev, proc) for info in sorted(list_ports.comports(), key=lambda info: str(info.device))]


def _port(info: ListPortInfo, dev: Path, proc: Path) -> SerialPort:
    usb_id = None
    if info.vid is not None:
        usb_id = f"{info.vid:04x}:{info.pid:04x}" + (f":{info.serial_number}" if info.serial_number else "")
    path = Path(info.device)
    product = info.product or (info.description if info.description != "n/a" else "") or ""
    stable = stable_name(path, dev, unique=info.serial_number not in (None, "", *NO_SERIALS))
    return SerialPort(info.device, stable, usb_id, product, holder(path, proc), access(path))


def stable_name(path: Path, dev: Path = Path("/dev"), *, unique: bool = True) -> str | None:
    """A link to ``path`` that stays; by-id names only where the device is ``unique``, which needs a serial number."""
    target = path.resolve()
    for folder in STABLE if unique else STABLE[1:]:
        links = sorted((dev / folder).glob("*"))
        for link in links:
            if link.resolve() == target:
                return str(link)
    return None


def access(path: Path) -> str:
    """``ok``, or what this user lacks."""
    if os.access(path, os.R_OK | os.W_OK):
        return "ok"
    try:
        group = getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        return "no"
    return f"no: group {group}"


def holder(path: Path, proc: Path = Path("/proc")) -> str | None:
    """``name (pid)`` of a process that has the device open, or locked; None where none can be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    pid = _locker(status, proc)
    # A port that we have locked ourselves may be open elsewhere too.
    for folder in proc.glob("[0-9]*") if pid in (None, os.getpid()) else ():
        if int(folder.name) != os.getpid() and _has_open(folder / "fd", status):
            pid = int(folder.name)
            break
    return None if pid is None else _named(pid, proc)


def _locker(status: os.stat_result, proc: Path) -> int | None:
    """Who holds a lock on this file: that is told of other users' processes as well."""
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in _lines(proc / "locks"):
        fields = line.split()
        # Processes outside of our container are told as 0.
        if len(fields) > 5 and fields[5] == place and fields[4].isdigit() and int(fields[4]):
            return int(fields[4])
    return None


def _has_open(descriptors: Path, status: os.stat_result) -> bool:
    try:
        names = list(descriptors.iterdir())
    except OSError:
        return False
    for name in names:
        try:
            other = name.stat()
        except OSError:
            continue
        if (other.st_rdev, other.st_ino, other.st_dev) == (status.st_rdev, status.st_ino, status.st_dev):
            return True
    return False


def _named(pid: int, proc: Path) -> str:
    name = "".join(_lines(proc / str(pid) / "comm")[:1])
    return f"{name or 'process'} ({pid})"


def capture_devices(proc: Path = Path("/proc")) -> list[CaptureDevice]:
    """Every sound device that records, by the name of its card, which stays, and not by its number."""
    return list(_capture_devices(proc))


def _capture_devices(proc: Path) -> Iterator[CaptureDevice]:
    cards = {}
    for line in _lines(proc / "asound/cards"):
        if match := re.match(r"\s*(\d+) \[(\S+)\s*\]: \S+ - (.*)", line):
            cards[int(match[1])] = match[2], match[3].strip()
    for line in _lines(proc / "asound/pcm"):
        match = re.match(r"(\d+)-(\d+): (.*)", line)
        if match is None or "capture" not in match[3] or int(match[1]) not in cards:
            continue
        card, number = int(match[1]), int(match[2])
        name, product = cards[card]
        owner = None
        for status in _lines(proc / f"asound/card{card}/pcm{number}c/sub0/status"):
            if status.startswith("owner_pid"):
                owner = _named(int(status.partition(":")[2]), proc)
        yield CaptureDevice(f"hw:CARD={name},DEV={number}", product, owner)


def event_cameras(sys: Path = Path("/sys"), dev: Path = Path("/dev")) -> list[EventCamera]:
    """USB devices that are known to be event cameras; a serial one (eDVS) is found among the serial ports."""
    return list(_event_cameras(sys, dev))


def _event_cameras(sys: Path, dev: Path) -> Iterator[EventCamera]:
    for folder in sorted((sys / "bus/usb/devices").glob("*")):
        facts = {key: "".join(_lines(folder / key)[:1]) for key in ("idVendor", "idProduct", "serial", "product")}
        if not facts["idVendor"] or not facts["idProduct"]:
            continue
        vid, pid = int(facts["idVendor"], 16), int(facts["idProduct"], 16)
        for vendor, first, last, maker in EVENT_CAMERAS:
            if vid == vendor and first <= pid <= last:
                usb_id = ":".join(filter(None, (f"{vid:04x}", f"{pid:04x}", facts["serial"])))
                place = [int("".join(_lines(folder / key)[:1]) or 0) for key in ("busnum", "devnum")]
                node = dev / f"bus/usb/{place[0]:03}/{place[1]:03}"
                yield EventCamera(usb_id, facts["product"] or maker, access(node))


def _lines(path: Path) -> list[str]:
    """Of a file of the kernel; none where it is not there or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
