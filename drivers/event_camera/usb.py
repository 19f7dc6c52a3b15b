"""USB event cameras of iniVation and Prophesee through ``neuromorphic-drivers``, in a supervised process of their own.

The vendor library aborts its process when its USB stack breaks, and its native calls may hang: the child process takes
that, and the agent sees ``Disconnected``.
"""

import fcntl
import json
import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Literal, NoReturn

import numpy as np
import numpy.typing as npt
from pydantic import Field

from drivers.base import Disconnected, Driver, DriverConfig, DriverError, Misconfigured, Unavailable
from drivers.event_camera import usb_process
from drivers.extras import how_to_install
from drivers.lib.clock import NS_PER_S, DeviceClock
from drivers.packet import EVENT, Packet, SensorInfo

NS_PER_TICK = 1000
OPEN_S = 15.0
"""Starting Python and setting up a Prophesee sensor takes a few seconds."""
HANG_NS = 2 * NS_PER_S
"""The child says something five times a second."""
END_S = 2.0
"""So long the child may take to switch the camera off before it is killed."""
PIPE_BYTES = 1 << 20
"""A second of a million events per second waits in the library's own ring, not here."""
RULES = "run neuromorphic-drivers-install-udev-rules as root, then plug the camera in again"


class UsbConfig(DriverConfig):
    device: Literal["dvxplorer", "davis346", "evk3_hd", "evk4"]
    serial: str | None = Field(default=None, min_length=1)
    """None: the first camera of that type."""
    packet_ms: int = Field(default=10, ge=1, le=1000)


@dataclass(frozen=True, slots=True)
class Message:
    kind: int
    lost: int
    overruns: int
    at_ns: int
    data: bytearray


class Child:
    """One run of ``usb_process``: starts it, reads its messages, notices its end and its silence, ends it."""

    def __init__(self, cfg: UsbConfig, where: str) -> None:
        self._where = where
        self._fd, write_fd = os.pipe()
        try:
            with suppress(OSError):
                # An unprivileged user may have no room for it; the usual 64 KiB work, too.
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            os.set_blocking(self._fd, False)
            self._process = subprocess.Popen(
                usb_process.command(write_fd, cfg.device, cfg.serial, cfg.packet_ms),
                stdin=subprocess.DEVNULL,
                # The library prints there; what it says when it aborts goes to our own stderr.
                stdout=subprocess.DEVNULL,
                pass_fds=(write_fd,),
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._fd)
            raise Unavailable(f"{where}: its process cannot be started ({error.strerror or error})") from error
        finally:
            os.close(write_fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._heard_ns = time.monotonic_ns()
        self._buffer = bytearray(usb_process.HEADER.size)
        self._filled = 0
        self._header: tuple[int, int, int, int, int] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def receive(self, deadline_ns: int, patience_ns: int) -> Message | None:
        """The next message, None at the deadline. Raises Disconnected when the child ended or is silent for long."""
        while True:
            while self._filled < len(self._buffer):
                left_ns = max(0, deadline_ns - time.monotonic_ns())
                if not self._poll.poll(-(-left_ns // 1_000_000)):
                    if time.monotonic_ns() - self._heard_ns >= patience_ns:
                        self._fail(f"gave no sign for {patience_ns // NS_PER_S} s")
                    if time.monotonic_ns() >= deadline_ns:
                        return None
                    continue
                count = os.readv(self._fd, [memoryview(self._buffer)[self._filled :]])
                if count == 0:
                    self._fail(f"ended {self._end()}")
                self._heard_ns = time.monotonic_ns()
                self._filled += count
            data, self._filled = self._buffer, 0
            if self._header is None:
                self._header = usb_process.HEADER.unpack(data)
                self._buffer = bytearray(self._header[1])
                continue
            kind, _, lost, overruns, at_ns = self._header
            self._header, self._buffer = None, bytearray(usb_process.HEADER.size)
            return Message(kind, lost, overruns, at_ns, data)

    def close(self) -> None:
        """Ends the process, by force if it does not obey, and waits for its end."""
        self._process.terminate()
        self._process_gone(END_S)
        self._process.kill()
        # What a process in an uninterruptible system call does not notice yet, it will when the call ends.
        self._process_gone(END_S)
        os.close(self._fd)

    def _process_gone(self, timeout: float) -> bool:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _end(self) -> str:
        if not self._process_gone(END_S):
            return "its stream"
        status = self._process.returncode
        return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"

    def _fail(self, what: str) -> NoReturn:
        raise Disconnected(f"{self._where}: the process that reads the camera {what}; it is started anew")


class UsbCamera(Driver[UsbConfig]):
    """Packets of about ``packet_ms``. Of USB transfers that the library dropped, ``lost`` is an estimate.

    It is the number of dropped transfers times the mean number of events per transfer. x and y count from the top left.
    The thread that calls ``open`` must live as long as the camera is open: the child ends with it.
    """

    Config: ClassVar[type[DriverConfig]] = UsbConfig

    def __init__(self, name: str, cfg: UsbConfig) -> None:
        super().__init__(name, cfg)
        self._where = f"{cfg.device} {cfg.serial or '(any serial number)'}"
        self._child: Child | None = None
        self._clock = DeviceClock(NS_PER_S / NS_PER_TICK)
        self._size = (0, 0)
        self._last_ns = 0
        self._lost = 0
        self._seq = 0

    def info(self) -> SensorInfo:
        return SensorInfo("event_camera", ("x", "y", "on"), ("px", "px", "1"), (1.0, 1.0, 1.0), NS_PER_S / NS_PER_TICK)

    def open(self) -> None:
        """Start the child, wait until it has the camera. Raises Unavailable, or Misconfigured without the library."""
        self.close()
        self._child = Child(self.cfg, self._where)
        try:
            self._begin(self._child)
        except DriverError:
            self.close()
            raise

    def read(self, timeout: float) -> Packet | None:
        if self._child is None:
            raise Disconnected(f"{self._where}: is not open")
        deadline_ns = time.monotonic_ns() + int(timeout * NS_PER_S)
        while True:
            message = self._child.receive(deadline_ns, HANG_NS)
            if message is None:
                return None
            if message.kind == usb_process.REFUSED:
                raise Disconnected(f"{self._where}: the camera went away ({message.data.decode()})")
            if message.kind == usb_process.EVENTS:
                packet = self._packet(message)
                if packet is not None:
                    return packet

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _begin(self, child: Child) -> None:
        deadline_ns = time.monotonic_ns() + int(OPEN_S * NS_PER_S)
        message = child.receive(deadline_ns, 2 * int(OPEN_S * NS_PER_S))
        if message is None:
            raise Unavailable(f"{self._where}: the camera cannot be set up within {OPEN_S:g} s; plug it in again")
        text = message.data.decode()
        if message.kind == usb_process.UNUSABLE:
            raise Misconfigured(
                f"event_camera.usb needs the package neuromorphic-drivers: {text}: {how_to_install('events')}"
            )
        if message.kind == usb_process.REFUSED:
            raise Unavailable(f"{self._where}: {_advice(text)}")
        facts = json.loads(text)
        self._size = facts["width"], facts["height"]
        self._where = f"{self.cfg.device} {facts['serial']}"
        self._clock.reset()
        self._lost = self._last_ns = self._seq = 0

    def _packet(self, message: Message) -> Packet | None:
        self.counters.overruns += message.overruns
        self.counters.lost += message.lost
        self._lost += message.lost
        data: npt.NDArray[np.void] = np.frombuffer(message.data, EVENT)
        width, height = self._size
        if data["x"].max() >= width or data["y"].max() >= height:
            inside = (data["x"] < width) & (data["y"] < height)
            data = data[inside]
            self.counters.out_of_range += len(inside) - len(data)
            if not len(data):
                return None
        data["t_ns"] = self._place(data["t_ns"].astype(np.int64), message.at_ns)
        packet = Packet(self.name, self._seq, int(data["t_ns"][0]), 0, data, self._lost)
        self._lost = 0
        self._seq += 1
        return packet

    def _place(self, t_us: npt.NDArray[np.int64], at_ns: int) -> npt.NDArray[np.int64]:
        """The newest event has just arrived; the others lie before it by the camera's clock."""
        end_ns = int(self._clock.update(t_us[-1:], np.array([at_ns]))[0])
        back_ns = (t_us[-1] - t_us) * NS_PER_TICK
        t_ns = end_ns - back_ns - np.rint(back_ns * self._clock.drift).astype(np.int64)
        t_ns = np.maximum(np.maximum.accumulate(t_ns), self._last_ns)
        self._last_ns = int(t_ns[-1])
        return t_ns


def _advice(text: str) -> str:
    lower = text.lower()
    if "access" in lower or "permission" in lower or "denied" in lower:
        return f"no permission for the camera ({text}); {RULES}"
    if "busy" in lower or "already used" in lower:
        return f"another process uses the camera ({text}); stop it"
    return f"no such camera on USB ({text}); check cable, type and serial number"


DRIVER = UsbCamera
