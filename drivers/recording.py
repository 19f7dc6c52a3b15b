"""A file of packets: one ``.npz`` without pickles, so that a recording can be taken from anybody."""

import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from drivers.base import Misconfigured
from drivers.packet import EVENT, Packet, SensorInfo

FORMAT = "axond-recording-1"
_ARRAYS = ("header", "data", "length", "t0_ns", "dt_ns", "lost")


@dataclass(frozen=True, slots=True)
class Recording:
    """One sensor's packets as they came, and what their integers mean."""

    sensor: str
    info: SensorInfo
    packets: tuple[Packet, ...]


def save(path: Path, info: SensorInfo, packets: Sequence[Packet]) -> None:
    """Write 1 or more packets of one sensor; after a crash ``path`` holds the old file or the new one, whole.

    Raises ValueError for packets that do not belong together, OSError when the disk does not take them.
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
        # Our own file object: numpy forgets to close one that is no archive.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                _reject(path, "it is one array, not an .npz of several")
            absent = [name for name in _ARRAYS if name not in archive]
            if absent:
                _reject(path, f"it has no array {absent[0]!r}")
            arrays = {name: archive[name] for name in _ARRAYS}
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be opened ({error.strerror or error})") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        _reject(path, f"it is damaged or no .npz file: {error}")
    return _assemble(path, arrays)


def _assemble(path: Path, arrays: dict[str, Any]) -> Recording:
    try:
        header = json.loads(arrays["header"].tobytes())
        kind, sensor, info = header["format"], str(header["sensor"]), header["info"]
        meaning = SensorInfo(
            family=str(info["family"]),
            channels=tuple(map(str, info["channels"])),
            units=tuple(map(str, info["units"])),
            scale=tuple(map(float, info["scale"])),
            rate_hz=float(info["rate_hz"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _reject(path, f"its header is wrong: {error!r}")
    if kind != FORMAT:
        _reject(path, f"its format is {kind!r}, expected {FORMAT!r}")
    data, columns = arrays["data"], [arrays[name] for name in _ARRAYS[2:]]
    if any(column.dtype != np.int64 or column.ndim != 1 or len(column) != len(columns[0]) for column in columns):
        _reject(path, "length, t0_ns, dt_ns and lost must be int64 arrays of one length")
    length, t0_ns, dt_ns, lost = (column.tolist() for column in columns)
    if not length or min(length) < 1 or sum(length) != len(data) or min(lost) < 0 or min(dt_ns) < 0:
        _reject(path, f"its packets have {sum(length)} samples or impossible values, its data has {len(data)} samples")
    events = data.dtype == EVENT and data.ndim == 1
    if not events and not (data.dtype.kind in "iu" and data.ndim == 2 and data.shape[1] == len(meaning.channels)):
        _reject(path, f"its data is {data.dtype} {data.shape}, expected integers of {len(meaning.channels)} channels")
    ends = np.cumsum(length).tolist()
    packets = (
        Packet(sensor, i, t0_ns[i], dt_ns[i], data[ends[i] - length[i] : ends[i]], lost[i]) for i in range(len(length))
    )
    return Recording(sensor, meaning, tuple(packets))


def _reject(path: Path, why: str) -> NoReturn:
    raise Misconfigured(f"{path}: cannot be replayed, {why}; record it again with this program")
