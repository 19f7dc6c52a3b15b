"""The process in which the vendor library runs: a broken USB stack aborts it, never the agent.

It writes messages to a pipe: ``HEADER`` and ``length`` bytes. It imports nothing of axond but this file, and ends by
itself when its parent is gone.
"""

import ctypes
import json
import os
import signal
import struct
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

HEADER = struct.Struct("<BxxxIIIq")
"""kind, bytes that follow, events lost before them, overruns before them, CLOCK_MONOTONIC ns of their arrival."""
READY, EVENTS, ALIVE, REFUSED, UNUSABLE = range(1, 6)
"""Opened (JSON follows) / events follow / nothing to say / the camera cannot be had or is gone (text follows) /
the library is missing (text follows)."""
WIRE = np.dtype([("t_us", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")])
"""One event, in time order; the layout is that of drivers.packet.EVENT with the camera's own time."""
MODULES = {
    "dvxplorer": "inivation_dvxplorer",
    "davis346": "inivation_davis346",
    "evk3_hd": "prophesee_evk3_hd",
    "evk4": "prophesee_evk4",
}
MAX_EVENTS = 1 << 16
"""So many in a message; keeps it below 1 MiB."""
ALIVE_NS = 200_000_000
PR_SET_PDEATHSIG = 1
START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main(sys.argv[2:])"


def command(fd: int, device: str, serial: str | None, packet_ms: int) -> list[str]:
    """Starts this module in a fresh interpreter that finds packages where this one does."""
    start = START.format(module=__name__)
    own = [str(fd), str(os.getpid()), str(packet_ms), device]
    return [sys.executable, "-c", start, json.dumps(sys.path), *own, *([] if serial is None else [serial])]


def main(arguments: list[str]) -> None:
    """Streams until SIGTERM, until the pipe's reader is gone, or until the camera fails."""
    fd, parent, packet_ms = (int(text) for text in arguments[:3])
    device, serial = arguments[3], arguments[4] if len(arguments) > 4 else None
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    try:
        _stream(fd, device, serial, packet_ms)
    except ImportError as error:
        _send(fd, UNUSABLE, str(error).encode())
    except RuntimeError as error:
        # The only class of error that the library raises; an unplugged camera is one, too.
        _send(fd, REFUSED, " ".join(str(error).split()).encode())
    except BrokenPipeError:
        return


def _stream(fd: int, device: str, serial: str | None, packet_ms: int) -> None:
    import neuromorphic_drivers as vendor

    configuration = getattr(vendor, MODULES[device]).Configuration()
    with vendor.open(configuration=configuration, serial=serial, iterator_timeout=packet_ms / 1e3) as camera:
        properties = camera.properties()
        facts = {"serial": camera.serial(), "width": int(properties.width), "height": int(properties.height)}
        _send(fd, READY, json.dumps(facts).encode())
        gathered = Gathered(fd, packet_ms)
        for status, packet in camera:
            gathered.add(status, packet)


class Gathered:
    """Events that wait for their message, and what was lost before them."""

    def __init__(self, fd: int, packet_ms: int) -> None:
        self._fd = fd
        self._packet_ns = packet_ms * 1_000_000
        self._parts: list[npt.NDArray[Any]] = []
        self._count = 0
        self._first_ns = self._sent_ns = time.monotonic_ns()
        self._overruns = 0
        self._lost = 0
        self._dropped = 0
        self._usb_packets = 0
        self._events = 0

    def add(self, status: Any, packet: Any) -> None:
        """The library's next answer; sends what has gathered when it is time."""
        now_ns = time.monotonic_ns()
        if packet is not None and packet.polarity_events is not None and len(packet.polarity_events):
            if not self._parts:
                self._first_ns = now_ns
            self._parts.append(packet.polarity_events.astype(WIRE, copy=False))
            self._count += len(packet.polarity_events)
        if status.ring is not None:
            self._count_losses(status.ring, packet)
        if self._parts and (now_ns - self._first_ns >= self._packet_ns or self._count >= MAX_EVENTS):
            self._send_events(now_ns)
        elif now_ns - self._sent_ns >= ALIVE_NS:
            _send(self._fd, ALIVE, b"")
            self._sent_ns = now_ns

    def _count_losses(self, ring: Any, packet: Any) -> None:
        self._usb_packets += ring.raw_packets
        dropped = ring.dropped_packets - self._dropped
        self._dropped = ring.dropped_packets
        if dropped > 0:
            self._lost += -(-dropped * max(1, self._events + self._count) // max(1, self._usb_packets))
        indices = None if packet is None else packet.polarity_events_overflow_indices
        self._overruns += 0 if indices is None else len(indices)

    def _send_events(self, now_ns: int) -> None:
        events = b"".join(part.tobytes() for part in self._parts)
        step = MAX_EVENTS * WIRE.itemsize
        for start in range(0, len(events), step):
            _send(self._fd, EVENTS, events[start : start + step], self._lost, self._overruns, now_ns)
            self._lost = self._overruns = 0
        self._events += self._count
        self._parts, self._count, self._sent_ns = [], 0, now_ns


def _send(fd: int, kind: int, data: bytes, lost: int = 0, overruns: int = 0, at_ns: int = 0) -> None:
    left = memoryview(HEADER.pack(kind, len(data), lost, overruns, at_ns) + data)
    while left:
        left = left[os.write(fd, left) :]
