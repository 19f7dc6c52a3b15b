"""Event recordings of five camera makers' formats, told apart by their first bytes, as blocks of events in file order.

EVT3, ES, AEDAT4 and DAT version 1 are decoded by ``faery``, files of words of one size (EVT2, DAT version 2, and the
headerless 5-byte format of N-MNIST ``.bin`` and SLAYER ``.bs2``) by ``words``, EVT2.1 by ``evt21``.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.base import Misconfigured
from drivers.event_camera.aedat4 import MAGIC, check_aedat4
from drivers.event_camera.es import dvs
from drivers.event_camera.evt21 import evt21
from drivers.event_camera.words import FIVE_BYTES, NS_PER_US, Block, Size, dat2, evt2, five_bytes
from drivers.extras import how_to_install
from drivers.packet import EVENT

HEADER_BYTES = 1 << 16
WORD_BYTES = {"evt2": 4, "evt2.1": 8, "evt3": 2}
MAX_US = 1 << 52
"""142 years: a later time is none, and would not fit into nanoseconds."""


@dataclass(frozen=True, slots=True)
class Recording:
    path: Path
    format: str
    size: Size
    """Width and height; every event lies within."""
    decode: Callable[[], Iterator[Block]]
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
        raise Misconfigured(f"{path}: needs the package faery ({error}): {how_to_install('events')}") from error
    try:
        with _Panics(path):
            if head.startswith(MAGIC):
                check_aedat4(path, length)
                return _aedat4(path, size, aedat)
            if head.startswith(b"Event Stream"):
                return _es(path, size, es)
            if head.startswith(b"% "):
                return _prophesee(path, size, head, length, evt, dat)
    except RuntimeError as error:
        raise _undecodable(path, error) from error
    if older := re.match(rb"#!(AER-DAT[\d.]*)", head):
        raise Misconfigured(f"{path}: is {older[1].decode()}, only AER-DAT4.0 can be played; convert it")
    raise Misconfigured(
        f"{path}: begins like no event recording; expected EVT, DAT, ES, AEDAT4, or a .bin or .bs2 of 5 bytes an event"
    )


def _aedat4(path: Path, size: Size | None, aedat: Any) -> Recording:
    with aedat.Decoder(path) as file:
        tracks = [track for track in file.tracks() if track.data_type == "events"]
    if not tracks:
        raise Misconfigured(f"{path}: has no stream of events")
    wanted = tracks[0].id

    def decode() -> Iterator[Block]:
        with aedat.Decoder(path) as file:
            yield from _converted(path, (packet for track, packet in file if track.id == wanted))

    return _recording(path, "aedat4", _agreed(path, tracks[0].dimensions, size), decode)


def _es(path: Path, size: Size | None, es: Any) -> Recording:
    with es.Decoder(path, 0) as file:
        kind, own = file.event_type, file.dimensions
    if kind != "dvs":
        raise Misconfigured(f"{path}: holds {kind} events, expected those of a DVS; convert it")

    both = _agreed(path, own, size)
    return _recording(path, "es", both, lambda: dvs(path, both))


def _prophesee(path: Path, size: Size | None, head: bytes, length: int, evt: Any, dat: Any) -> Recording:
    text, data_at = _header_lines(head)
    both = _agreed(path, _size_in(text), size)
    version = re.search(r"^% (?:evt (?P<a>[\d.]+)|format EVT(?P<b>[\d.]+))", text, re.MULTILINE)
    if version:
        name = "evt" + (version["a"] or version["b"]).removesuffix(".0")
        if name == "evt21":
            name = "evt2.1"
        if name not in WORD_BYTES:
            known = ", ".join(WORD_BYTES).upper()
            raise Misconfigured(f"{path}: is {name.upper()}, expected one of {known}; convert it")
        _check_whole(path, length, data_at, WORD_BYTES[name])

        if name == "evt2":
            return _recording(path, name, both, lambda: evt2(path, data_at, both))
        if name == "evt2.1":
            mask_first = "endianness=legacy" not in text
            return _recording(path, name, both, lambda: evt21(path, data_at, both, mask_first))

        with evt.Decoder(path, both, name) as file:
            _check_told_once(path, (name, both), (file.version, file.dimensions))

        def decode() -> Iterator[Block]:
            with evt.Decoder(path, both, name) as file:
                yield from _converted(path, (packet["events"] for packet in file if "events" in packet))

        return _recording(path, name, both, decode)
    if not re.search(r"^% (version \d|data file)", text, re.MULTILINE | re.IGNORECASE):
        raise Misconfigured(f"{path}: its header names neither an EVT nor a DAT version")
    _check_whole(path, length, data_at + 2, 8)
    with dat.Decoder(path, both, "dat2") as file:
        kind, version_name, told = file.event_type, file.version, file.dimensions
    if kind == "trigger":
        raise Misconfigured(f"{path}: holds trigger events, expected change detection events")
    _check_told_once(path, (version_name, both), (version_name, told))
    if version_name == "dat2":
        return _recording(path, "dat", both, lambda: dat2(path, data_at + 2, both))

    def decode_dat() -> Iterator[Block]:
        with dat.Decoder(path, both, "dat2") as file:
            for block in _converted(path, file):
                block.events["on"] = block.events["on"] != 0
                yield block

    return _recording(path, "dat", both, decode_dat)


def _check_told_once(path: Path, ours: tuple[str, Size], theirs: tuple[str, Size]) -> None:
    """Of several lines in a header, faery may take another one than we; it checks events against its own."""
    if ours[0] != theirs[0] or tuple(ours[1]) != tuple(theirs[1]):
        raise Misconfigured(
            f"{path}: its header contradicts itself: {ours[0].upper()} of {ours[1][0]} x {ours[1][1]} pixels, "
            f"and {theirs[0].upper()} of {theirs[1][0]} x {theirs[1][1]}; correct its lines"
        )


def _five_bytes(path: Path, size: Size | None, length: int) -> Recording:
    both = _agreed(path, None, size)
    _check_whole(path, length, 0, FIVE_BYTES.itemsize)
    return _recording(path, "5 bytes", both, lambda: five_bytes(path, both))


def _converted(path: Path, packets: Iterable[npt.NDArray[Any]]) -> Iterator[Block]:
    """faery's events: records of t (u8, us), x (u2), y (u2) and polarity (one byte); its arrays become ours.

    Each of its decoders holds a time that would go back.
    """
    scratch = np.empty(0, np.int64)
    for packet in packets:
        count = len(packet)
        if not count:
            continue
        if count > len(scratch):
            scratch = np.empty(count, np.int64)
        t_ns = scratch[:count]
        # Apart from the packed records: numpy is slow where numbers do not lie at multiples of their size.
        np.copyto(t_ns, packet["t"], casting="unsafe")
        for latest_us in (int(t_ns[0]), int(t_ns[-1])):
            if not 0 <= latest_us <= MAX_US:
                raise Misconfigured(f"{path}: holds a time of {latest_us % (1 << 64)} us; it is broken")
        t_ns *= NS_PER_US
        yield Block(t_ns, np.frombuffer(packet, EVENT), ordered=True)


def _recording(path: Path, name: str, size: Size, decode: Callable[[], Iterator[Block]]) -> Recording:
    def checked() -> Iterator[Block]:
        at = 0
        try:
            with _Panics(path):
                for block in decode():
                    yield block
                    at += len(block.events)
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


class _Panics:
    """Makes Misconfigured of a panic of faery's (0.7: at packets of few bytes), which is no Exception."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and type(error).__name__ == "PanicException":
            raise _undecodable(self._path, error) from error


def _undecodable(path: Path, error: BaseException, where: str = "") -> Misconfigured:
    return Misconfigured(f"{path}: cannot be decoded{where} ({' '.join(str(error).split())})")
