"""The USB side of the emulated DVXplorer: answers usbfs ioctls of processes that run under umockdev's preload library.

Run by a Python that has ``gi`` and UMockdev-1.0 (Debian: umockdev, gir1.2-umockdev-1.0, python3-gi), with one
argument: a file of pieces, each ``<u4 due_us, u4 length`` and that many bytes for one bulk transfer; the first piece
has no bytes, its due_us is the time after which all repeats (0: never). They start when the host switches the
camera on. Prints the testbed's folder, then obeys the lines ``plug`` and ``unplug`` and says ``done`` to each;
ends with its standard input. Register numbers: iniVation's vendor request 0xBF, as libcaer uses it.
"""

import errno
import struct
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import gi

gi.require_version("UMockdev", "1.0")
from gi.repository import UMockdev  # noqa: E402 - only after the version is required

NODE = "/dev/bus/usb/001/002"
SYSFS = "/devices/pci0000:00/0000:00:14.0/usb1/1-1"
SERIAL = "DVX00042"
LANGUAGES = b"\x04\x03\x09\x04"

GET_CAPABILITIES = 0x8004551A
SUBMIT_URB = 0x8038550A
DISCARD_URB = 0x550B
REAP_URB = 0x4008550C
REAP_URB_NO_DELAY = 0x4008550D
NO_DATA = {0x8004550F, 0x80045510, 0x80045505, 0x80045515, 0x80045503, 0x5514}
"""Claim, release, set configuration, clear halt, reset endpoint, reset: nothing to do."""
REAP_AFTER_DISCONNECT = 0x10
CONTROL = 2
BUFFER_AT, STATUS_AT, ACTUAL_AT = 16, 4, 28
URB = struct.Struct("<BBxxiIxxxxQii")
"""type, endpoint, status, flags, buffer, buffer_length, actual_length."""
SETTLE_S = 0.05
"""The vendor driver mixes its buffers up when the first transfers complete while it still submits others. On a real bus
that takes it microseconds, here milliseconds: the stream begins when no more are submitted for so long."""
HOLD_S = 0.001
"""The node always looks ready, so the host asks all the time; so long may an answer "nothing yet" take."""

VERSIONS = {(6, 0): 18, (6, 3): 104, (6, 5): 30, (6, 6): 1000, (6, 7): 4, (1, 0): 640, (1, 1): 480}
"""Logic version, clocks in MHz and their deviation in permille, logic patch, columns, rows; other registers read 0."""
DVS_RUN = (1, 3)

DEVICE_DESCRIPTOR = struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x0200, 0xFF, 0, 0, 64, 0x152A, 0x8419, 0x0009, 1, 2, 3, 1)
ENDPOINTS = struct.pack("<BBBBHB", 7, 5, 0x82, 2, 512, 0)
INTERFACE = struct.pack("<BBBBBBBBB", 9, 4, 0, 0, 1, 0xFF, 0, 0, 0) + ENDPOINTS
CONFIGURATION = struct.pack("<BBHBBBBB", 9, 2, 9 + len(INTERFACE), 1, 1, 0, 0x80, 250) + INTERFACE
STRINGS = {1: "iniVation", 2: "DVXplorer", 3: SERIAL}


class Camera:
    """Registers, submitted transfers and the stream of one camera; ioctls come from a thread of umockdev's."""

    def __init__(self, pieces: list[tuple[int, bytes]], period_us: int) -> None:
        self._pieces = pieces
        self._period_us = period_us
        self._registers = dict(VERSIONS)
        self._waiting: deque[Any] = deque()
        self._finished: deque[Any] = deque()
        self._running = False
        self._start_s = 0.0
        self._index = 0
        self._gone = False
        self._lock = threading.Lock()

    def unplug(self) -> None:
        with self._lock:
            self._gone = True

    def handle(self, _base: Any, client: Any) -> bool:
        request = client.get_request()
        with self._lock:
            result, error = self._answer(request & 0xFFFFFFFF, client)
        client.complete(result, error)
        return True

    def _answer(self, request: int, client: Any) -> tuple[int, int]:
        if request in (REAP_URB, REAP_URB_NO_DELAY):
            return self._reap(client)
        if request == DISCARD_URB:
            return self._discard(client)
        if self._gone:
            return -1, errno.ENODEV
        if request == GET_CAPABILITIES:
            # The first call of a process that opens the node: what an earlier one submitted ended with it.
            self._waiting.clear()
            self._finished.clear()
            client.get_arg().resolve(0, 4).update(0, struct.pack("<I", REAP_AFTER_DISCONNECT))
            return 0, 0
        if request == SUBMIT_URB:
            return self._submit(client)
        return (0, 0) if request in NO_DATA else (-1, errno.ENOTTY)

    def _submit(self, client: Any) -> tuple[int, int]:
        urb = client.get_arg().resolve(0, 56)
        kind, endpoint, _, _, _, length, _ = URB.unpack_from(bytes(urb.retrieve()))
        if kind == CONTROL:
            self._control(urb, urb.resolve(BUFFER_AT, length))
        elif endpoint == 0x82:
            self._waiting.append(urb)
            if not self._index:
                self._start_s = time.monotonic() + SETTLE_S
        else:
            return -1, errno.EINVAL
        return 0, 0

    def _control(self, urb: Any, buffer: Any) -> None:
        sent = bytes(buffer.retrieve())
        request_type, request, value, index, length = struct.unpack_from("<BBHHH", sent)
        if request_type & 0x80:
            reply = self._get(request, value, index)
            if reply is None:
                self._finish(urb, -errno.EPIPE, 0)
                return
            buffer.update(8, reply[:length])
            self._finish(urb, 0, len(reply[:length]))
            return
        if request == 0xBF:
            self._set((value, index), int.from_bytes(sent[8:12], "big"))
        self._finish(urb, 0, length)

    def _get(self, request: int, value: int, index: int) -> bytes | None:
        if request == 0xBF:
            return self._registers.get((value, index), 0).to_bytes(4, "big")
        if request == 6 and value >> 8 == 3:
            if value & 0xFF == 0:
                return LANGUAGES
            text = STRINGS[value & 0xFF].encode("utf-16-le")
            return bytes([len(text) + 2, 3]) + text
        return None

    def _set(self, register: tuple[int, int], value: int) -> None:
        self._registers[register] = value
        if register == DVS_RUN:
            self._running = bool(value)
            self._index = 0

    def _finish(self, urb: Any, status: int, actual: int) -> None:
        urb.update(STATUS_AT, struct.pack("<i", status))
        urb.update(ACTUAL_AT, struct.pack("<i", actual))
        self._finished.append(urb)

    def _discard(self, client: Any) -> tuple[int, int]:
        address = struct.unpack("<Q", bytes(client.get_arg().retrieve()))[0]
        for urb in self._waiting:
            if urb.client_addr == address:
                self._waiting.remove(urb)
                self._finish(urb, -errno.ENOENT, 0)
                return 0, 0
        return -1, errno.EINVAL

    def _reap(self, client: Any) -> tuple[int, int]:
        if self._gone:
            while self._waiting:
                self._finish(self._waiting.popleft(), -errno.ESHUTDOWN, 0)
        elif not self._finished:
            self._stream()
        if not self._finished:
            return -1, errno.ENODEV if self._gone else errno.EAGAIN
        client.get_arg().resolve(0, 8).set_ptr(0, self._finished.popleft())
        return 0, 0

    def _stream(self) -> None:
        """Complete a bulk transfer if its piece is due; else make the host wait a little."""
        if self._running and self._waiting:
            lap, index = divmod(self._index, len(self._pieces))
            due_us, data = self._pieces[index]
            left_s = self._start_s + (due_us + lap * self._period_us) / 1e6 - time.monotonic()
            if left_s <= 0 and (not lap or self._period_us):
                urb = self._waiting.popleft()
                # Only as much of the host's memory as is written travels between the processes.
                urb.resolve(BUFFER_AT, len(data)).update(0, data)
                self._finish(urb, 0, len(data))
                self._index += 1
                return
        threading.Event().wait(HOLD_S)


def read_pieces(path: Path) -> tuple[list[tuple[int, bytes]], int]:
    stored = path.read_bytes()
    pieces = []
    at = 0
    while at < len(stored):
        due_us, length = struct.unpack_from("<II", stored, at)
        pieces.append((due_us, stored[at + 8 : at + 8 + length]))
        at += 8 + length
    return pieces[1:], pieces[0][0]


class Port:
    """The testbed's one USB port."""

    def __init__(self, pieces: list[tuple[int, bytes]], period_us: int) -> None:
        self.testbed = UMockdev.Testbed.new()
        self._pieces = pieces
        self._period_us = period_us
        self._camera: Camera | None = None
        self._handler: Any = None

    def plug(self) -> None:
        attributes = {
            "busnum": "1",
            "devnum": "2",
            "speed": "5000",
            "idVendor": "152a",
            "idProduct": "8419",
            "bcdDevice": "0009",
            "bConfigurationValue": "1",
            "bNumConfigurations": "1",
            "serial": SERIAL,
        }
        lines = [
            f"P: {SYSFS}",
            f"N: {NODE.removeprefix('/dev/')}",
            "E: SUBSYSTEM=usb",
            "E: DEVTYPE=usb_device",
            f"E: DEVNAME={NODE}",
            "E: BUSNUM=001",
            "E: DEVNUM=002",
            *(f"A: {name}={value}\\n" for name, value in attributes.items()),
            f"H: descriptors={(DEVICE_DESCRIPTOR + CONFIGURATION).hex()}",
        ]
        self._camera = Camera(self._pieces, self._period_us)
        self._handler = UMockdev.IoctlBase()
        self._handler.connect("handle-ioctl", self._camera.handle)
        self.testbed.add_from_string("\n".join(lines) + "\n")
        self.testbed.attach_ioctl(NODE, self._handler)

    def unplug(self) -> None:
        if self._camera is not None:
            self._camera.unplug()
            self._camera = None
            self.testbed.detach_ioctl(NODE)
            self.testbed.remove_device(f"/sys{SYSFS}")


def main() -> None:
    port = Port(*read_pieces(Path(sys.argv[1])))
    port.plug()
    print(port.testbed.get_root_dir(), flush=True)
    for line in sys.stdin:
        {"plug": port.plug, "unplug": port.unplug}[line.strip()]()
        print("done", flush=True)


if __name__ == "__main__":
    main()
