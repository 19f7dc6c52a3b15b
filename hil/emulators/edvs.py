"""An eDVS on a pseudo-terminal: plays recorded events at their own pace, or at another one, and obeys commands."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hil.emulators.case import Case
from hil.emulators.serial_port import SerialEmulator

Time = Literal["none", "delta", "16", "24", "32"]
TIMES: dict[str, tuple[Time, ...]] = {
    "edvs4337": ("none", "delta", "16", "24", "32"),
    "edvs128": ("none", "16", "24", "32"),
}
BANNERS = {
    "edvs4337": b"\n\nEDVS-4337, V1.0\n",
    "edvs128": b"\n\nEDVS128_LPC2106, V2.4\n",
}
TIME_BYTES: dict[str, int] = {"none": 0, "16": 2, "24": 3, "32": 4}
DELTA_GROUPS = 4
SLICE_HZ = 250
"""The camera sends what has gathered so often."""
LONGEST_COMMAND = 64
EVENTS_PER_S = 300_000
"""Four bytes each: all that 12 Mbaud carry."""


def encode_events(
    t_us: npt.NDArray[np.int64],
    x: npt.NDArray[np.uint8],
    y: npt.NDArray[np.uint8],
    on: npt.NDArray[np.uint8],
    time: Time,
    last_us: int = 0,
) -> bytes:
    """(n,) events on the line; ``last_us``: time of the event before them, for ``delta``."""
    address = np.stack([y | 0x80, x | (on << np.uint8(7))], axis=1).astype(np.uint8)
    if time != "delta":
        count = TIME_BYTES[time]
        field = t_us.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - count :]
        return bytes(np.concatenate([address, field], axis=1))
    steps = np.diff(t_us, prepend=last_us)
    shifts = 7 * np.arange(DELTA_GROUPS - 1, -1, -1)
    groups = ((steps[:, None] >> shifts) & 0x7F).astype(np.uint8)
    needed = (steps[:, None] >> shifts) > 0
    needed[:, -1] = True
    groups[:, -1] |= 0x80
    sent = np.concatenate([np.ones((len(steps), 2), np.bool_), needed], axis=1)
    wire: bytes = np.concatenate([address, groups], axis=1)[sent].tobytes()
    return wire


class EdvsEmulator(SerialEmulator):
    """Silent until ``E+``. A row of the emulator is what happened in the last 4 ms; the recording repeats for ever.

    An event with the time t (us) of the camera's clock happens at ``measured_at_ns(0)`` + t.
    """

    listens = True
    held_bytes = 1280 * 1024
    """It obeys RTS and CTS, and before it has to, Linux buffers as much of a real port; of a pseudo-terminal 20 KB."""

    def __init__(
        self,
        t_us: npt.NDArray[np.int64],
        x: npt.NDArray[np.uint8],
        y: npt.NDArray[np.uint8],
        on: npt.NDArray[np.uint8],
        link: Path,
        *,
        model: Literal["edvs4337", "edvs128"] = "edvs4337",
        echo: bool = False,
        speed: float = 1.0,
        baud: int = 12_000_000,
    ) -> None:
        """``t_us``: ascending. ``speed``: times the pace of the recording. ``echo``: replies cannot be stopped."""
        super().__init__(link, SLICE_HZ, baud, 1)
        self._t_us = (t_us / speed).astype(np.int64)
        self._x, self._y, self._on = x, y, on
        self._loop_us = int(self._t_us[-1]) + 1
        self._model: str = model
        self._echo = echo
        self._heard = b""
        self._streaming = False
        self._last_us: int | None = None
        self.time: Time = "none"
        self.biases: dict[int, int] = {}
        self.sent_events = 0
        """Events given to the line so far, whatever the line did to them."""

    def played(self, first_us: int, end_us: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Times and indices in the recording of the events in ``first_us .. end_us - 1`` of the camera's clock."""
        times, indices = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for loop in range(first_us // self._loop_us, (end_us - 1) // self._loop_us + 1):
            start_us = loop * self._loop_us
            begin, end = np.searchsorted(self._t_us, [first_us - start_us, end_us - start_us])
            times.append(self._t_us[begin:end] + start_us)
            indices.append(np.arange(begin, end))
        return np.concatenate(times), np.concatenate(indices)

    def encode(self, first: int, count: int) -> list[bytes]:
        return [self._slice(row) for row in range(first, first + count)]

    def answer(self, request: bytes) -> bytes:
        *lines, self._heard = (self._heard + request)[-LONGEST_COMMAND * 8 :].split(b"\n")
        return b"".join(self._obey(line) for line in lines)

    def _slice(self, row: int) -> bytes:
        if not self._streaming or row == 0:
            return b""
        step_us = 1_000_000 // SLICE_HZ
        t_us, index = self.played((row - 1) * step_us, row * step_us)
        self.sent_events += len(index)
        if not len(t_us):
            return b""
        # The first step after a start is none.
        last_us = int(t_us[0]) if self._last_us is None else self._last_us
        self._last_us = int(t_us[-1])
        return encode_events(t_us, self._x[index], self._y[index], self._on[index], self.time, last_us)

    def _obey(self, line: bytes) -> bytes:
        if line == b"R":
            self._streaming, self.time = False, "none"
            self.biases = {}
            return BANNERS[self._model]
        if line in (b"E+", b"E-"):
            self._streaming, self._last_us = line == b"E+", None
        elif line[:2] == b"!E" and line[2:].isdigit():
            self.time = TIMES[self._model][int(line[2:])]
        elif line[:2] == b"!B" and b"=" in line:
            number, value = line[2:].split(b"=")
            self.biases[int(number)] = int(value)
        return (line if self._model == "edvs128" else b"-" + line) + b"\n" if self._echo and line else b""


def scene() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Times in us, x, y and polarity of a second of events, as many as the line carries."""
    rng = np.random.default_rng(0)
    x, y, on = (rng.integers(0, most, EVENTS_PER_S).astype(np.uint8) for most in (128, 128, 2))
    return np.sort(rng.integers(0, 1_000_000, EVENTS_PER_S)), x, y, on


CASES = (
    Case(
        "event_camera.edvs",
        {"baud": 12_000_000},
        lambda link: EdvsEmulator(*scene(), link),
        start=(b"R\n", b"!U0\n!E2\n", b"E+\n"),
    ),
)
