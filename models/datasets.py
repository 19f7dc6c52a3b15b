"""Labelled recordings on disk, as the sensors would have delivered them, and the window that a live pipeline cuts.

Two layouts are read: a folder with ``manifest.csv`` (columns: file, a label, split) and 16-bit WAV files, loose or in
``*.tar.xz`` archives; and a folder with ``har.npz`` (UCI HAR: ``X_<split>``, ``y_<split>``, ``channels``).
"""

import csv
import io
import lzma
import os
import tarfile
import wave
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drivers.packet import Packet, SensorInfo
from models.base import ModelError, Window
from models.window import Windower, WindowSpec

LABEL_COLUMNS = ("digit", "keyword", "category", "label")
GROUP_COLUMNS = ("speaker", "group", "source_clip", "source_file")
ACTIVITIES = ("walking", "walking_upstairs", "walking_downstairs", "sitting", "standing", "laying")
"""UCI HAR's labels 1..6."""
IMU_CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")
IMU_INFO = SensorInfo(
    family="imu",
    channels=IMU_CHANNELS,
    units=("g",) * 3 + ("deg/s",) * 3,
    scale=(16 / 32768,) * 3 + (2000 / 32768,) * 3,
    rate_hz=50.0,
)
"""WitMotion's scaling: +-16 g and +-2000 deg/s in int16."""
LEAD_IN_S = 0.5
"""Silence before a recording, so that the onset is heard as in a quiet room."""


class DataError(ModelError):
    """A dataset is missing, incomplete or not what it should be."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One labelled item. ``data`` is (n, channels) integer; ``group`` names what must not be split (a speaker)."""

    name: str
    label: str
    group: str
    data: npt.NDArray[np.int16]
    info: SensorInfo


def find(name: str) -> Path | None:
    """The folder of dataset ``name``: in $AXOND_DATA, else ../shared/data beside the project, else the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = [Path(__file__).resolve().parents[2] / "shared" / "data", cache / "axond" / "data"]
    if os.environ.get("AXOND_DATA"):
        places.insert(0, Path(os.environ["AXOND_DATA"]))
    return next((place / name for place in places if (place / name).is_dir()), None)


def load(folder: Path, split: str) -> list[Recording]:
    """All recordings of one split, in the order of the manifest. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected a dataset with manifest.csv or har.npz")
    if (folder / "har.npz").is_file():
        return _load_har(folder / "har.npz", split)
    if (folder / "manifest.csv").is_file():
        return _load_audio(folder, split)
    raise DataError(f"{folder}: neither manifest.csv nor har.npz is there; point at a dataset's own folder")


def live_window(recording: Recording, spec: WindowSpec, *, lead_in_s: float = LEAD_IN_S) -> Window | None:
    """The first window that a pipeline would cut from this recording; None when none begins.

    In mode ``onset`` the recording stands between digital silences; in mode ``time`` it is taken as it is.
    """
    data = recording.data
    if spec.mode == "onset":
        before = np.zeros((round(lead_in_s * recording.info.rate_hz), data.shape[1]), data.dtype)
        after = np.zeros((spec.samples, data.shape[1]), data.dtype)
        data = np.concatenate([before, data, after])
    packet = Packet(recording.name, seq=0, t0_ns=0, dt_ns=round(1e9 / recording.info.rate_hz), data=data)
    windows = Windower(spec, recording.info).push(packet)
    return windows[0] if windows else None


def audio_info(rate_hz: float) -> SensorInfo:
    """One microphone with 16-bit samples."""
    return SensorInfo(family="audio", channels=("mono",), units=("FS",), scale=(1 / 32768,), rate_hz=rate_hz)


def _load_har(path: Path, split: str) -> list[Recording]:
    wanted = [f"{kind}_{axis}" for kind in ("total_acc", "body_gyro") for axis in "xyz"]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if f"X_{split}" not in archive or f"y_{split}" not in archive:
                splits = sorted(key[2:] for key in archive.files if key.startswith("X_"))
                raise DataError(f"{path}: no split {split!r}; there are {', '.join(splits) or 'none'}")
            names = [str(name) for name in archive["channels"]]
            windows, labels = archive[f"X_{split}"], archive[f"y_{split}"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable npz with X_{split}, y_{split} and channels ({error})") from error
    missing = [name for name in wanted if name not in names]
    if missing or windows.ndim != 3 or windows.shape[1] != len(names) or len(labels) != len(windows):
        raise DataError(f"{path}: expected X_{split} of (n, {len(names)}, samples) with channels {', '.join(wanted)}")
    if len(labels) and not (labels.min() >= 1 and labels.max() <= len(ACTIVITIES)):
        raise DataError(f"{path}: y_{split} has labels outside 1..{len(ACTIVITIES)}")
    physical = windows[:, [names.index(name) for name in wanted]].astype(np.float64).transpose(0, 2, 1)
    physical[:, :, 3:] = np.rad2deg(physical[:, :, 3:])
    data = np.clip(np.rint(physical / IMU_INFO.scale), -32768, 32767).astype(np.int16)
    return [
        Recording(f"{split}-{i}", ACTIVITIES[label - 1], "", np.ascontiguousarray(item), IMU_INFO)
        for i, (item, label) in enumerate(zip(data, labels.tolist(), strict=True))
    ]


def _load_audio(folder: Path, split: str) -> list[Recording]:
    manifest = folder / "manifest.csv"
    with manifest.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        columns = reader.fieldnames or []
        rows = list(reader)
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    if label is None or not {"file", "split"} <= set(columns):
        raise DataError(f"{manifest}: expected columns file, split and one of {', '.join(LABEL_COLUMNS)}")
    group = next((name for name in GROUP_COLUMNS if name in columns), None)
    chosen = [row for row in rows if row["split"] == split]
    if not chosen:
        splits = sorted({str(row["split"]) for row in rows})
        raise DataError(f"{manifest}: no rows of split {split!r}; there are {', '.join(splits) or 'none'}")
    blobs = _read_files(folder, {row["file"] for row in chosen})
    recordings = []
    for row in chosen:
        if row["file"] not in blobs:
            raise DataError(f"{folder}: {row['file']} is in manifest.csv, but neither in an archive nor a loose file")
        data, rate_hz = _read_wav(blobs[row["file"]], f"{folder}: {row['file']}")
        recordings.append(Recording(row["file"], row[label], row[group] if group else "", data, audio_info(rate_hz)))
    return recordings


def _read_files(folder: Path, wanted: set[str]) -> dict[str, bytes]:
    """Contents by file name. Names are looked up, never used as paths to write to."""
    blobs: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.tar.xz")):
        try:
            with tarfile.open(path, "r:xz") as archive:
                for member in archive:
                    name = Path(member.name).name
                    stream = archive.extractfile(member) if name in wanted else None
                    if stream is not None:
                        blobs[name] = stream.read()
        except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
            raise DataError(f"{path}: broken archive ({error}); fetch it again") from error
    for name in sorted(wanted - blobs.keys()):
        loose = folder / name
        if loose.is_file() and loose.resolve().is_relative_to(folder.resolve()):
            blobs[name] = loose.read_bytes()
    return blobs


def _read_wav(blob: bytes, where: str) -> tuple[npt.NDArray[np.int16], float]:
    try:
        with wave.open(io.BytesIO(blob)) as reader:
            width, channels, frames = reader.getsampwidth(), reader.getnchannels(), reader.getnframes()
            body, rate_hz = reader.readframes(frames), float(reader.getframerate())
    except (wave.Error, EOFError) as error:
        raise DataError(f"{where}: not a WAV file ({error or 'it ends too early'})") from error
    if width != 2 or channels != 1:
        raise DataError(f"{where}: {channels} channels of {8 * width} bits, expected one of 16 bits")
    if len(body) != 2 * frames or frames == 0:
        raise DataError(f"{where}: truncated, {len(body)} bytes of sound where its header says {2 * frames}")
    return np.frombuffer(body, "<i2").astype(np.int16).reshape(-1, 1), rate_hz
