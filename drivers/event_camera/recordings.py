"""Event recordings of five camera makers' formats, told apart by their first bytes, as blocks of events in file order.

EVT2, EVT2.1, EVT3, DAT, ES and AEDAT4 are decoded by ``faery``; the headerless 5-byte format (N-MNIST ``.bin``, SLAYER
``.bs2``: x, y, then polarity in the top bit of 24 bits of microseconds, big-endian) is decoded here.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from drivers.base import Misconfigured

Size: TypeAlias = tuple[int, int]
Events: TypeAlias = npt.NDArray[Any]
"""(n,) of t (u8, us), x (u2), y (u2), polarity (one byte), packed; not shared with anyone."""
FIVE_BYTES = np.dtype([("x", "u1"), ("y", "u1"), ("rest", "u1", 3)])
BLOCK_BYTES = 5 * (1 << 16)
PACKED = np.dtype([("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "u1")])
HEADER_BYTES = 1 << 16
TRIAL = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from faery.extension import aedat
with aedat.Decoder(sys.argv[2]) as file:
    for _ in file:
        pass
"""
TRIAL_S = 10.0
TRIAL_BYTES_PER_S = 5e6
WORD_BYTES = {"evt2": 4, "evt2.1": 8, "evt3": 2}


@dataclass(frozen=True, slots=True)
class Recording:
    path: Path
    format: str
    size: Size
    """Width and height; every event lies within: faery checks that, too."""
    decode: Callable[[], Iterator[Events]]
    """Starts at the first event; raises Misconfigured where the file cannot be decoded."""


def open_recording(path: Path, size: Size | None) -> Recording:
    """Look at the header. ``size``: for files that do not tell theirs. Raises Misconfigured for what cannot be played.

    y counts as in the file: from the top, in ES files from the bottom.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
        length = path.stat().st_size
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be opened ({error.strerror or error})") from error
    if path.suffix in (".bin", ".bs2"):
        return _five_bytes(path, size, length)
    try:
        from faery.extension import aedat, dat, es, evt
    except ImportError as error:
        raise Misconfigured(f"{path}: needs the package faery ({error}); pip install 'axond[events]'") from error
    try:
        if head.startswith(b"#!AER-DAT4.0\r\n"):
            _try_in_child(path, length)
            return _aedat4(path, size, aedat)
        if head.startswith(b"Event Stream"):
            return _es(path, size, es)
        if head.startswith(b"% "):
            return _prophesee(path, size, head, length, evt, dat)
    except RuntimeError as error:
        raise _undecodable(path, error) from error
    if head.startswith(b"#!AER-DAT"):
        raise Misconfigured(
            f"{path}: is {head[2:12].decode('ascii', 'replace')}, only AER-DAT4.0 can be played; convert it"
        )
    raise Misconfigured(
        f"{path}: begins like no event recording; expected EVT, DAT, ES, AEDAT4, or a .bin or .bs2 of 5 bytes an event"
    )


def _aedat4(path: Path, size: Size | None, aedat: Any) -> Recording:
    with aedat.Decoder(path) as file:
        tracks = [track for track in file.tracks() if track.data_type == "events"]
    if not tracks:
        raise Misconfigured(f"{path}: has no stream of events")
    wanted = tracks[0].id

    def decode() -> Iterator[Events]:
        with aedat.Decoder(path) as file:
            yield from (packet for track, packet in file if track.id == wanted)

    return _recording(path, "aedat4", _agreed(path, tracks[0].dimensions, size), decode)


def _es(path: Path, size: Size | None, es: Any) -> Recording:
    with es.Decoder(path, 0) as file:
        kind, own = file.event_type, file.dimensions
    if kind != "dvs":
        raise Misconfigured(f"{path}: holds {kind} events, expected those of a DVS; convert it")

    def decode() -> Iterator[Events]:
        with es.Decoder(path, 0) as file:
            yield from file

    return _recording(path, "es", _agreed(path, own, size), decode)


def _prophesee(path: Path, size: Size | None, head: bytes, length: int, evt: Any, dat: Any) -> Recording:
    text, data_at = _header_lines(head)
    both = _agreed(path, _size_in(text), size)
    version = re.search(r"^% (?:evt (?P<a>[\d.]+)|format EVT(?P<b>[\d.]+))", text, re.MULTILINE)
    if version:
        name = "evt" + (version["a"] or version["b"]).removesuffix(".0")
        if name not in WORD_BYTES:
            raise Misconfigured(f"{path}: is {name.upper()}, expected one of {', '.join(WORD_BYTES).upper()}")
        _check_whole(path, length, data_at, WORD_BYTES[name])

        def decode() -> Iterator[Events]:
            with evt.Decoder(path, both, name) as file:
                yield from (packet["events"] for packet in file if "events" in packet)

        return _recording(path, name, both, decode)
    if not re.search(r"^% (version \d|data file)", text, re.MULTILINE | re.IGNORECASE):
        raise Misconfigured(f"{path}: its header names neither an EVT nor a DAT version")
    _check_whole(path, length, data_at + 2, 8)
    with dat.Decoder(path, both, "dat2") as file:
        if file.event_type == "trigger":
            raise Misconfigured(f"{path}: holds trigger events, expected change detection events")

    def decode_dat() -> Iterator[Events]:
        with dat.Decoder(path, both, "dat2") as file:
            for events in file:
                events["payload"] = events["payload"] != 0
                yield events

    return _recording(path, "dat", both, decode_dat)


def _five_bytes(path: Path, size: Size | None, length: int) -> Recording:
    both = _agreed(path, None, size)
    _check_whole(path, length, 0, FIVE_BYTES.itemsize)

    def decode() -> Iterator[Events]:
        at = 0
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                raw: Any = np.frombuffer(block, FIVE_BYTES)
                outside = (raw["x"] >= both[0]) | (raw["y"] >= both[1])
                if outside.any():
                    raise Misconfigured(
                        f"{path}: event {at + int(np.argmax(outside))} lies outside of {both[0]} x {both[1]} pixels; "
                        "set geometry to the camera's"
                    )
                at += len(raw)
                events: Any = np.empty(len(raw), PACKED)
                high, middle, low = raw["rest"].astype(np.uint64).T
                events["t"] = (high & np.uint64(0x7F)) << np.uint64(16) | middle << np.uint64(8) | low
                events["x"], events["y"], events["on"] = raw["x"], raw["y"], high >> np.uint64(7)
                yield events

    return _recording(path, "5 bytes", both, decode)


def _recording(path: Path, name: str, size: Size, decode: Callable[[], Iterator[Events]]) -> Recording:
    def checked() -> Iterator[Events]:
        at = 0
        try:
            for events in decode():
                yield events
                at += len(events)
        except (RuntimeError, OSError) as error:
            raise _undecodable(path, error, f" behind event {at}") from error

    return Recording(path, name, size, checked)


def _agreed(path: Path, own: Size | None, size: Size | None) -> Size:
    chosen = own or size
    if chosen is None:
        raise Misconfigured(f"{path}: does not tell the camera's size; set geometry = [width, height]")
    if size is not None and tuple(chosen) != tuple(size):
        raise Misconfigured(
            f"{path}: is {chosen[0]} x {chosen[1]} pixels, geometry is {size[0]} x {size[1]}; remove geometry"
        )
    return chosen


def _header_lines(head: bytes) -> tuple[str, int]:
    """The lines that begin with ``% ``, and where they end."""
    at = 0
    while head.startswith(b"% ", at):
        end = head.find(b"\n", at)
        if end < 0:
            break
        line, at = head[at:end], end + 1
        if line.strip() == b"% end":
            break
    return head[:at].decode("latin-1"), at


def _size_in(text: str) -> Size | None:
    if found := re.search(r"^% geometry (\d+)x(\d+)", text, re.MULTILINE | re.IGNORECASE):
        return int(found[1]), int(found[2])
    width = re.search(r"\bwidth[ =](\d+)", text, re.IGNORECASE)
    height = re.search(r"\bheight[ =](\d+)", text, re.IGNORECASE)
    return (int(width[1]), int(height[1])) if width and height else None


def _check_whole(path: Path, length: int, data_at: int, record_bytes: int) -> None:
    rest = (length - data_at) % record_bytes
    if length < data_at or rest:
        raise Misconfigured(
            f"{path}: cut short at byte {length}, within a record of {record_bytes} bytes; copy the file again"
        )


def _try_in_child(path: Path, length: int) -> None:
    """Decode an AEDAT4 once in a process of its own: on some broken ones faery 0.7 aborts its process."""
    limit_s = TRIAL_S + length / TRIAL_BYTES_PER_S
    try:
        command = [sys.executable, "-c", TRIAL, json.dumps(sys.path), str(path)]
        done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise Misconfigured(f"{path}: cannot be decoded within {limit_s:.0f} s; copy or convert it again") from error
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        said = next((line for line in reversed(lines) if ": " in line), "no reason given")
        raise Misconfigured(f"{path}: is no intact AEDAT4 file ({said.strip()}); copy or convert it again")


def _undecodable(path: Path, error: Exception, where: str = "") -> Misconfigured:
    return Misconfigured(f"{path}: cannot be decoded{where} ({' '.join(str(error).split())})")
