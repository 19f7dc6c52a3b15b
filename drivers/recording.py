"""A file of packets: one ``.npz`` without pickles, so that a recording can be taken from anybody."""

import errno
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from drivers.base import Misconfigured
from drivers.lib.npz import MOST_BYTES, read_arrays
from drivers.packet import EVENT, Packet, SensorInfo

FORMAT = "axond-recording-1"
_COLUMNS = ("length", "t0_ns", "dt_ns", "lost")
_INTEGERS = tuple(np.dtype(code) for code in ("<i2", "<i4", "<i8", "i1", "<u2", "<u4", "<u8", "u1"))
_TYPES = {"header": (np.dtype(np.uint8),), "data": (*_INTEGERS, EVENT)} | {
    name: (np.dtype("<i8"),) for name in _COLUMNS
}
_LATEST_NS = 1 << 62
"""No clock of a computer that is up gets there; sums with it stay within 64 bits."""
_MOST_HEADER_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Recording:
    """One sensor's packets as they came, and what their integers mean."""

    sensor: str
    info: SensorInfo
    packets: tuple[Packet, ...]


def save(path: Path, info: SensorInfo, packets: Sequence[Packet]) -> None:
    """Write 1 or more packets of one sensor; after a crash ``path`` holds the old file or the new one, whole.

    Raises ValueError for packets that do not belong together, OSError when the disk does not take them, or when they
    are more than ``load`` would read.
    """
    if not packets:
        raise ValueError("a recording needs one packet or more")
    first = packets[0]
    if any(p.sensor != first.sensor or p.data.dtype != first.data.dtype for p in packets):
        raise ValueError("the packets of a recording must be of one sensor and one integer type")
    header = json.dumps({"format": FORMAT, "sensor": first.sensor, "info": asdict(info)})
    arrays: dict[str, Any] = {
        "header": np.frombuffer(header.encode(), np.uint8),
        "data": np.concatenate([p.data for p in packets]),
        "length": np.array([len(p.data) for p in packets], np.int64),
        "t0_ns": np.array([p.t0_ns for p in packets], np.int64),
        "dt_ns": np.array([p.dt_ns for p in packets], np.int64),
        "lost": np.array([p.lost for p in packets], np.int64),
    }
    size, most = sum(array.nbytes for array in arrays.values()), MOST_BYTES - _MOST_HEADER_BYTES
    if size > most:
        raise OSError(errno.EFBIG, f"{size} bytes are too many for one recording, at most {most}", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> Recording:
    """Read what ``save`` wrote. Raises Misconfigured in one sentence for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Misconfigured(f"{path}: cannot be opened (it is no regular file)")
        file = path.open("rb")
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be opened ({error.strerror or error})") from error
    except ValueError as error:
        raise Misconfigured(f"{str(path)!r}: cannot be opened ({error})") from error
    with file:
        try:
            return _assemble(read_arrays(file, _TYPES))
        except OSError as error:
            raise Misconfigured(f"{path}: cannot be read ({error.strerror or error})") from error
        except ValueError as error:
            raise Misconfigured(f"{path}: cannot be replayed, {error}; record it again with this program") from error


def _assemble(arrays: dict[str, Any]) -> Recording:
    """Raises ValueError with what is wrong with them."""
    sensor, info = _meaning(arrays["header"].tobytes())
    data, columns = arrays["data"], [arrays[name] for name in _COLUMNS]
    if any(column.ndim != 1 or len(column) != len(columns[0]) for column in columns):
        raise ValueError(f"{', '.join(_COLUMNS)} must be arrays of one length")
    lengths, t0_ns, dt_ns, lost = (column.tolist() for column in columns)
    if not lengths or min(lengths) < 1 or sum(lengths) != len(data):
        raise ValueError(f"its packets have {sum(lengths)} samples, its data has {len(data)}")
    events = data.dtype == EVENT and data.ndim == 1
    if not events and not (data.dtype.kind in "iu" and data.ndim == 2 and data.shape[1] == len(info.channels)):
        raise ValueError(f"its data is {data.dtype} {data.shape}, expected integers of {len(info.channels)} channels")
    if not (min(dt_ns) == max(dt_ns) == 0 if events else min(dt_ns) > 0 and info.rate_hz > 0):
        raise ValueError("its sample periods are impossible: 0 is for events, samples need a period and a rate")
    times = np.append(arrays["t0_ns"], data["t_ns"] if events else np.int64(0))
    latest_ns = max(int(times.max()), *(t0 + dt * n for t0, dt, n in zip(t0_ns, dt_ns, lengths, strict=True)))
    if int(times.min()) < 0 or latest_ns > _LATEST_NS or min(lost) < 0 or max(lost) > _LATEST_NS:
        raise ValueError("it has times or losses that are impossible")
    if np.any(np.diff(arrays["t0_ns"]) < 0) or (events and np.any(np.diff(data["t_ns"]) < 0)):
        raise ValueError("its times go back")
    ends = np.cumsum(lengths).tolist()
    packets = (
        Packet(sensor, i, t0_ns[i], dt_ns[i], data[ends[i] - lengths[i] : ends[i]], lost[i])
        for i in range(len(lengths))
    )
    return Recording(sensor, info, tuple(packets))


def _meaning(stored: bytes) -> tuple[str, SensorInfo]:
    """Name and meaning of the sensor. Raises ValueError."""
    if len(stored) > _MOST_HEADER_BYTES:
        raise ValueError(f"its header is wrong: {len(stored)} bytes, at most {_MOST_HEADER_BYTES} make sense")
    try:
        header = json.loads(stored)
        kind, sensor, info = header["format"], header["sensor"], header["info"]
        channels, units, scale = info["channels"], info["units"], info["scale"]
        meaning = SensorInfo(info["family"], tuple(channels), tuple(units), tuple(scale), float(info["rate_hz"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its header is wrong: {error!r}") from error
    if kind != FORMAT:
        raise ValueError(f"its format is {str(kind)[:50]!r}, expected {FORMAT!r}")
    names = (sensor, meaning.family, *meaning.channels, *meaning.units)
    if not all(isinstance(part, list) for part in (channels, units, scale)) or not all(
        isinstance(name, str) for name in names
    ):
        raise ValueError("its header is wrong: names and units must be texts, channels, units and scale lists")
    if not all(type(factor) in (int, float) and abs(factor) < 1e300 for factor in scale):
        raise ValueError("its header is wrong: scale must be finite numbers")
    if not len(channels) == len(units) == len(scale):
        raise ValueError(
            f"its header is wrong: {len(channels)} channels have {len(units)} units and {len(scale)} factors"
        )
    if not isfinite(meaning.rate_hz) or meaning.rate_hz < 0:
        raise ValueError(f"its header is wrong: {meaning.rate_hz} is no sample rate")
    return sensor, meaning
