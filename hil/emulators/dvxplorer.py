"""A DVXplorer on an emulated USB port: real libusb and real vendor driver, no hardware and no privileges (umockdev)."""

import os
import select
import shutil
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt

WIDTH, HEIGHT = 640, 480
SERIAL = "DVX00042"
WRAP_US = 0x8000
PIECE_US = WRAP_US // 4
"""So much of the recording is sent in one bulk transfer; the emulated bus carries some 200 of them a second."""
PYTHON = "/usr/bin/python3"
"""Debian's, which has ``gi``."""
ANSWER_S = 20.0


def missing() -> str | None:
    """Why the emulator cannot run here, or None."""
    if shutil.which("umockdev-wrapper") is None:
        return "umockdev is not installed"
    probe = "import gi; gi.require_version('UMockdev', '1.0'); from gi.repository import UMockdev"
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", probe], capture_output=True, check=False).returncode:
        return "python3-gi or gir1.2-umockdev-1.0 is not installed"
    return None


def encode_events(events: npt.NDArray[Any], last_us: int = 0) -> bytes:
    """Words of the camera for events (fields ``t`` in us, ``x``, ``y``, ``on``) in order; ``last_us``: time reached.

    Source: iniVation's DVXplorer data format, as libcaer's and neuromorphic-drivers' parsers read it: 15 bits of
    time, wrap, column, row group, and eight pixels of that group.
    """
    words: list[int] = []
    for t, x, y, on in events[["t", "x", "y", "on"]].tolist():
        words += [0x7001] * (t // WRAP_US - last_us // WRAP_US)
        words += [0x8000 | t % WRAP_US, 0x1000 | x, 0x4000 | y // 8, 0x3000 | (not on) << 8 | 1 << y % 8]
        last_us = t
    return struct.pack(f"<{len(words)}H", *words)


def pieces(events: npt.NDArray[Any], repeats: bool) -> bytes:
    """The recording as ``dvxplorer_usb`` wants it: in bulk transfers, due when their time has passed."""
    last_us = 0
    end_us = (int(events["t"][-1]) // WRAP_US + 1) * WRAP_US
    stored = [struct.pack("<II", end_us if repeats else 0, 0)]
    for index in range(-(-end_us // PIECE_US)):
        part = events[(events["t"] >= index * PIECE_US) & (events["t"] < (index + 1) * PIECE_US)]
        data = encode_events(part, last_us)
        last_us = int(part["t"][-1]) if len(part) else last_us
        if (index + 1) * PIECE_US >= end_us:
            # The next lap starts at time 0 of a new turn of the counter.
            data += struct.pack("<H", 0x7001) * (end_us // WRAP_US - last_us // WRAP_US)
        if data:
            stored.append(struct.pack("<II", min((index + 1) * PIECE_US, end_us), len(data)) + data)
    return b"".join(stored)


class DvxplorerEmulator:
    """Plays ``events`` from the moment a host switches the camera on; once, or for ever. Plugged in at the start."""

    def __init__(self, events: npt.NDArray[Any], folder: Path, *, repeats: bool = False) -> None:
        self._file = folder / "dvxplorer.pieces"
        self._file.write_bytes(pieces(events, repeats))
        self._process: subprocess.Popen[str] | None = None
        self._root = ""

    def __enter__(self) -> "DvxplorerEmulator":
        script = Path(__file__).parent / "umockdev" / "dvxplorer_usb.py"
        self._process = subprocess.Popen(
            [PYTHON, "-I", str(script), str(self._file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
        )
        self._root = self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        try:
            process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None
        shutil.rmtree(self._root, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to see the camera."""
        return {"LD_PRELOAD": "libumockdev-preload.so.0", "UMOCKDEV_DIR": self._root}

    def plug(self) -> None:
        self._tell("plug")

    def unplug(self) -> None:
        self._tell("unplug")

    def _tell(self, command: str) -> None:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the emulator does not run")
        print(command, file=self._process.stdin, flush=True)
        self._answer()

    def _answer(self) -> str:
        if self._process is None or self._process.stdout is None:
            raise RuntimeError("the emulator does not run")
        if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
            raise RuntimeError(f"the emulated camera gave no answer in {ANSWER_S} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the emulated camera ended with status {self._process.wait()}")
        return line.strip()
