"""Sounds: ``manifest.csv`` (columns: file, a label, split) and 16-bit WAV files, loose or in ``*.tar.xz`` archives."""

import io
import lzma
import tarfile
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.datasets.recording import DataError, Recording, audio_info
from models.datasets.table import rows_of

MARKER = "manifest.csv"
LABEL_COLUMNS = ("digit", "keyword", "category", "label")
GROUP_COLUMNS = ("speaker", "group", "source_clip", "source_file")
RATES_HZ = (100.0, 1e6)
"""No microphone is slower or faster; beyond, a header is wrong."""


def load(folder: Path, split: str) -> list[Recording]:
    """One clip for each row of the split, in their order. Raises DataError."""
    manifest = folder / MARKER
    chosen, label = rows_of(manifest, split, LABEL_COLUMNS)
    group = next((name for name in GROUP_COLUMNS if name in chosen[0]), None)
    blobs = read_files(folder, {row["file"] for row in chosen})
    recordings = []
    for row in chosen:
        if row["file"] not in blobs:
            raise DataError(f"{folder}: {row['file']} is in manifest.csv, but neither in an archive nor a loose file")
        data, rate_hz = read_wav(blobs[row["file"]], f"{folder}: {row['file']}")
        recordings.append(Recording(row["file"], row[label], row[group] if group else "", data, audio_info(rate_hz)))
    return recordings


def read_files(folder: Path, wanted: set[str]) -> dict[str, bytes]:
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


def read_wav(blob: bytes, where: str) -> tuple[npt.NDArray[np.int16], float]:
    """Samples (n, 1) and rate in Hz of a mono WAV file of 16 bits. ``where`` names it in errors. Raises DataError."""
    try:
        with wave.open(io.BytesIO(blob)) as reader:
            width, channels, frames = reader.getsampwidth(), reader.getnchannels(), reader.getnframes()
            body, rate_hz = reader.readframes(frames), float(reader.getframerate())
    except (wave.Error, EOFError) as error:
        raise DataError(f"{where}: not a WAV file ({str(error) or 'it ends too early'})") from error
    if width != 2 or channels != 1:
        raise DataError(f"{where}: {channels} channels of {8 * width} bits, expected one of 16 bits")
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise DataError(f"{where}: a rate of {rate_hz:g} Hz, expected {RATES_HZ[0]:g} to {RATES_HZ[1]:g}")
    if frames == 0:
        raise DataError(f"{where}: there is no sound in it")
    if len(body) != 2 * frames:
        raise DataError(f"{where}: truncated, {len(body)} bytes of sound where its header says {2 * frames}")
    return np.frombuffer(body, "<i2").astype(np.int16).reshape(-1, 1), rate_hz
