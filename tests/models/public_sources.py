"""Made archives in the layout of datasets' public homes, and real ones put together of what was taken from there."""

import csv
import io
import tarfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from models.datasets.load import find
from models.datasets.public import esc10, fsdd, nmnist, ring, wakewords
from models.datasets.public.content import contents, digest, wav

TOP = "repository-0123abc/"
OTHERS = {"README.md": b"# not asked for\n", "recordings/0_theo_7.wav": b"held out"}


def tarball(
    files: Mapping[str, bytes], extra: Callable[[tarfile.TarFile], None] = lambda tar: None, level: int = 1
) -> bytes:
    """As GitHub packs a commit: one folder, everything in it."""
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w:gz", compresslevel=level, format=tarfile.PAX_FORMAT) as tar:
        extra(tar)
        for name, content in {**OTHERS, **files}.items():
            member = tarfile.TarInfo(TOP + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return blob.getvalue()


def sound(seed: int, rate_hz: int = 8000) -> bytes:
    return wav(np.random.default_rng(seed).integers(-999, 999, 40 + seed % 7).astype(np.int16), rate_hz)


def flac(blob: bytes) -> bytes:
    samples, rate_hz = soundfile.read(io.BytesIO(blob), dtype="int16")
    packed = io.BytesIO()
    soundfile.write(packed, samples, rate_hz, format="FLAC", subtype="PCM_16")
    return packed.getvalue()


@cache
def made_fsdd() -> Mapping[str, bytes]:
    return {fsdd.FOLDER + name: sound(seed) for seed, name in enumerate(fsdd.NAMES)}


@cache
def made_esc10() -> Mapping[str, bytes]:
    return {esc10.FOLDER + name: sound(seed, 16000) for seed, name in enumerate(esc10.NAMES)}


@cache
def made_wakewords() -> Mapping[str, bytes]:
    files = {}
    for word, heads in wakewords.CHOSEN.items():
        for seed, head in enumerate(heads.split()):
            name = f"{head}.flac" if word == "alexa" else f"{head}-9db7-499c.wav"
            blob = sound(seed, 16000)
            files[f"audio/{word.replace('_', ' ')}/{name}"] = flac(blob) if word == "alexa" else blob
    return files


@cache
def made_nmnist() -> Mapping[str, bytes]:
    return {f"{nmnist.FOLDER}{number}.bs2": bytes((1, 2, 128, 0, number % 256)) for number in nmnist.IDS}


@cache
def made_ring() -> Mapping[str, bytes]:
    head = ",".join(f"S{number}" for number in range(1, 25)) + ",OUTPUT\n"
    return {ring.PATH: (head + ("1.000," * 24 + "Move-Forward\n") * (ring.ROWS + 100)).encode()}


MADE: dict[str, tuple[ModuleType, Callable[[], Mapping[str, bytes]]]] = {
    "audio_fsdd": (fsdd, made_fsdd),
    "audio_esc10": (esc10, made_esc10),
    "audio_wakewords": (wakewords, made_wakewords),
    "event_nmnist": (nmnist, made_nmnist),
    "ultrasonic_wall_following": (ring, made_ring),
}


def real_source(name: str) -> tuple[Path, str, dict[str, bytes]]:
    """The dataset on this machine, its digest, and its files as they were at the source; skips where it is not here."""
    folder = find(name)
    if folder is None:
        pytest.skip(f"no recordings: {name} is neither in AXOND_DATA nor in ../shared/data")
    there = contents(folder)
    files = {key.rpartition("/")[2]: content for key, content in there.items()}
    return folder, digest(there), _source(name, files)


def _source(name: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    if name == "audio_wakewords":
        source = {}
        for row in csv.DictReader(io.StringIO(files["manifest.csv"].decode())):
            path, blob = f"audio/{row['keyword'].replace('_', ' ')}/{row['source_file']}", files[row["file"]]
            source[path] = flac(blob) if path.endswith(".flac") else blob
        return source
    if name == "ultrasonic_wall_following":
        return {ring.PATH: files["sensor_readings_24.csv"] + b"held out\n" * 9}
    return {MADE[name][0].FOLDER + key: content for key, content in files.items() if not key.endswith(".csv")}
