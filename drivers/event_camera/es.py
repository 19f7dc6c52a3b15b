"""Event Stream recordings of a DVS as blocks of events, decoded by numpy in less time than faery needs alone.

Format: "Event Stream" 2 (github.com/neuromorphicsystems/event_stream). An event has five bytes: the time since its
predecessor in microseconds and, in the lowest bit, the polarity; then x and y. Where an event could begin, a byte of
0xFF lets 127 us pass, and one of 0xFE nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.base import Misconfigured
from drivers.event_camera.words import NS_PER_US, Block, Size, check_inside
from drivers.packet import EVENT

HEADER_BYTES = 20
RECORD = np.dtype([("first", "u1"), ("x", "<u2"), ("y", "<u2")])
IDLE = 0xFE
"""And above: where an event could begin, none does."""
PAUSE = 0xFF
PAUSE_NS = 127 * NS_PER_US
BLOCK_BYTES = RECORD.itemsize << 17


def dvs(path: Path, size: Size) -> Iterator[Block]:
    """Raises Misconfigured for an event outside of ``size`` and, behind the last whole event, for a part of one."""
    newest_ns = at = length = 0
    rest = b""
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        while raw := file.read(BLOCK_BYTES):
            length += len(raw)
            records, pauses, rest = _split(rest + raw)
            count = len(records)
            first = np.ascontiguousarray(records["first"])
            t_ns = np.empty(count, np.int64)
            np.multiply(first >> 1, NS_PER_US, out=t_ns, dtype=np.int64)
            before, paused = np.unique(pauses, return_counts=True)
            # A pause behind the last event of the block passes before the first of the next one.
            inside = before < count
            t_ns[before[inside]] += paused[inside] * PAUSE_NS
            late_ns = int(paused[~inside].sum()) * PAUSE_NS
            if not count:
                newest_ns += late_ns
                continue
            t_ns[0] += newest_ns
            np.cumsum(t_ns, out=t_ns)
            newest_ns = int(t_ns[-1]) + late_ns
            x, y = np.ascontiguousarray(records["x"]), np.ascontiguousarray(records["y"])
            check_inside(path, at, size, x, y)
            at += count
            events = np.empty(count, EVENT)
            events["x"], events["y"], events["on"] = x, y, first & 1
            yield Block(t_ns, events, ordered=True)
    if rest:
        raise Misconfigured(
            f"{path}: cut short at byte {HEADER_BYTES + length}, within an event of {RECORD.itemsize} bytes; "
            "copy the file again"
        )


def _split(raw: bytes) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], bytes]:
    """The whole events, how many of them lie before each pause, and the bytes of the one that is not whole."""
    parts, pauses = [], []
    begin = kept = 0
    # Few bytes look idle: these only need be walked through.
    for place in np.flatnonzero(np.frombuffer(raw, np.uint8) >= IDLE).tolist():
        if place >= begin and (place - begin) % RECORD.itemsize == 0:
            if place > begin:
                parts.append(raw[begin:place])
                kept += place - begin
            if raw[place] == PAUSE:
                pauses.append(kept // RECORD.itemsize)
            begin = place + 1
    end = len(raw) - (len(raw) - begin) % RECORD.itemsize
    parts.append(raw[begin:end])
    return np.frombuffer(b"".join(parts), RECORD), np.array(pauses, np.int64), raw[end:]
