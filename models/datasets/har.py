"""UCI HAR: ``har.npz`` with ``X_<split>`` (n, channels, samples), ``y_<split>`` and ``channels``."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from models.datasets.recording import ACTIVITIES, IMU_INFO, DataError, Recording

MARKER = "har.npz"


def load(folder: Path, split: str) -> list[Recording]:
    """One clip for each window of the split. Raises DataError."""
    path = folder / MARKER
    wanted = [f"{kind}_{axis}" for kind in ("total_acc", "body_gyro") for axis in "xyz"]
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no archive of arrays")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if f"X_{split}" not in archive or f"y_{split}" not in archive:
                splits = sorted(key[2:] for key in archive.files if key.startswith("X_"))
                raise DataError(f"{path}: no split {split!r}; there are {', '.join(splits) or 'none'}")
            names = [str(name) for name in archive["channels"]]
            windows, labels = archive[f"X_{split}"], archive[f"y_{split}"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable npz with X_{split}, y_{split} and channels ({error})") from error
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(f"{path}: no channel {', '.join(missing)}; expected {', '.join(wanted)} among others")
    if windows.ndim != 3 or windows.shape[1] != len(names) or labels.shape != windows.shape[:1]:
        expected = f"(n, {len(names)}, samples) and (n,)"
        raise DataError(f"{path}: X_{split} is {windows.shape}, y_{split} {labels.shape}; expected {expected}")
    if windows.dtype.kind not in "iuf" or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: X_{split} is {windows.dtype}, y_{split} {labels.dtype}; expected numbers and labels")
    if len(labels) and not (labels.min() >= 1 and labels.max() <= len(ACTIVITIES)):
        raise DataError(f"{path}: y_{split} has labels outside 1..{len(ACTIVITIES)}")
    physical = windows[:, [names.index(name) for name in wanted]].astype(np.float64).transpose(0, 2, 1)
    if not np.isfinite(physical).all():
        raise DataError(f"{path}: X_{split} has values that are not finite")
    physical[:, :, 3:] = np.rad2deg(physical[:, :, 3:])
    data = np.clip(np.rint(physical / IMU_INFO.scale), -32768, 32767).astype(np.int16)
    return [
        Recording(f"{split}-{i}", ACTIVITIES[label - 1], "", np.ascontiguousarray(item), IMU_INFO)
        for i, (item, label) in enumerate(zip(data, labels.tolist(), strict=True))
    ]
