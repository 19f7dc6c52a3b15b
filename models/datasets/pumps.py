"""Pipeline test bench: ``pumps<N>.csv``, one run with N pumps working, about ten samples a second.

Columns ``time`` and those of ``SCALE`` are read, others are not. ``time`` is ``mm:ss.f`` or
``YYYY/MM/DD hh:mm:ss.fff``; only differences count, modulo an hour.
"""

import csv
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drivers.packet import SensorInfo
from models.datasets.recording import DataError, Recording

MARKER = "pumps[0-9]*.csv"
SCALE = {"pre1": 0.001, "pre2": 0.001, "vib1": 0.001, "vib2": 0.001, "vib3": 0.001, "vib4": 0.001}
RATE_HZ = 10.0
PUMPS_INFO = SensorInfo("vibration", tuple(SCALE), ("MPa",) * 2 + ("1",) * 4, tuple(SCALE.values()), RATE_HZ)
"""As ``imu.csv`` gives it; the bench does not state the unit of its vibration."""
MAX_HELD = 10
"""Missing rows in a row that are filled; after more of them a new recording begins."""
LATER_PART = 0.2
"""Split ``test`` is this last part of each run, ``train`` what comes before, ``all`` both."""
HOUR_S = 3600.0
MAX_STEPS = 2**31 - 1
_TIME = re.compile(r"(?:\d{1,4}[/-]\d{1,2}[/-]\d{1,4} )?(?:\d{1,2}:)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")

Rows = npt.NDArray[np.float64]


def load(folder: Path, split: str) -> list[Recording]:
    """The runs of the split, one label for all samples of each; ``group`` is the file. Raises DataError.

    A value or row that is missing holds the last one (``Recording.held`` counts such samples).
    """
    if split not in {"train", "test", "all"}:
        raise DataError(f"{folder}: no split {split!r}; there are train, test, all")
    recordings = []
    for path in sorted(folder.glob(MARKER)):
        label = label_of(path)
        time_s, values = _read(path)
        at = np.concatenate([[0], np.cumsum(_apart(path, time_s))])
        cut = round(len(at) * (1 - LATER_PART))
        chosen = slice({"train": 0, "test": cut, "all": 0}[split], cut if split == "train" else len(at))
        pieces = np.split(np.arange(len(at))[chosen], np.flatnonzero(np.diff(at[chosen]) > MAX_HELD + 1) + 1)
        for index, piece in enumerate(piece for piece in pieces if len(piece)):
            data, held = _regular(at[piece], values[piece])
            name = f"{path.name}-{split}-{index}"
            truth = np.full(len(data), label)
            recordings.append(Recording(name, label, path.name, data, PUMPS_INFO, truth, held))
    return recordings


def label_of(path: Path) -> str:
    """``1_pump``, ``2_pumps`` and so on, from the file's name. Raises DataError."""
    number = path.stem.removeprefix("pumps")
    if not number.isdecimal():
        raise DataError(f"{path}: expected a name like pumps3.csv, which says how many pumps were running")
    return f"{int(number)}_pump{'' if int(number) == 1 else 's'}"


def _read(path: Path) -> tuple[npt.NDArray[np.float64], Rows]:
    """Seconds within the hour (n,), and values (n, 6), NaN where there is none. A row without a time is no sample."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            names = [name.strip() for name in next(reader, [])]
            missing = [name for name in ("time", *SCALE) if name not in names]
            if missing:
                raise DataError(f"{path}: no column {', '.join(missing)}; expected time, {', '.join(SCALE)}")
            columns = [names.index(name) for name in SCALE]
            rows = [row for row in reader if len(row) > names.index("time")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from error
    times = [_TIME.fullmatch(row[names.index("time")].strip()) for row in rows]
    time_s = np.array([60 * float(time[1]) + float(time[2]) for time in times if time])
    if len(time_s) < 2:
        raise DataError(
            f"{path}: {len(time_s)} rows with a time like 14:11.6 or 2024/10/22 15:27:49.648, expected more"
        )
    texts = [[row[i] if i < len(row) else "" for i in columns] for row, time in zip(rows, times, strict=True) if time]
    return time_s, np.array([[_number(text) for text in row] for row in texts])


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan


def _apart(path: Path, time_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Sample periods from each row to the next, at least 1."""
    apart_s = np.diff(time_s) % HOUR_S
    if abs(float(np.median(apart_s)) * RATE_HZ - 1) > 0.05:
        raise DataError(f"{path}: rows are {np.median(apart_s):.3g} s apart, expected {1 / RATE_HZ:g} s")
    if apart_s.max() > HOUR_S / 2:
        raise DataError(f"{path}: time goes back in row {int(apart_s.argmax()) + 2}; put the rows in order")
    periods: npt.NDArray[np.int64] = np.maximum(np.rint(apart_s * RATE_HZ), 1).astype(np.int64)
    return periods


def _regular(at: npt.NDArray[np.int64], values: Rows) -> tuple[npt.NDArray[np.int32], int]:
    """(n, 6) steps, one row per sample period, and how many of them have a value that was missing."""
    table = np.full((int(at[-1] - at[0]) + 1, values.shape[1]), np.nan)
    table[at - at[0]] = values
    known = np.isfinite(table)
    last = np.maximum.accumulate(np.where(known, np.arange(len(table))[:, None], -1), axis=0)
    first = np.where(known.any(axis=0), known.argmax(axis=0), 0)
    filled = np.nan_to_num(np.take_along_axis(table, np.where(last < 0, first, last), axis=0))
    steps = np.rint(filled / np.array(list(SCALE.values()))).clip(-MAX_STEPS, MAX_STEPS)
    return steps.astype(np.int32), int(np.count_nonzero(~known.all(axis=1)))
