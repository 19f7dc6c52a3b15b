"""What a dataset consists of, whatever the bytes of its archives are: contents by name, and one SHA-256 over them all.

A name is ``manifest.csv``, or ``george.tar.xz/0_george_10.wav`` for what stands in an archive. README.md is no
part of it.
"""

import csv
import hashlib
import io
import lzma
import os
import tarfile
import wave
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.datasets.public import archive
from models.datasets.recording import DataError

Files = Mapping[str, bytes]

ARCHIVE = ".tar.xz"
README = "README.md"
PRESET = 0
"""xz at its fastest: a tenth larger than at its best, in a quarter of the time."""
LIMITS = archive.Limits(unpacked_bytes=256 << 20)
"""Of an archive in a dataset's folder."""


def digest(files: Files) -> str:
    """SHA-256, in hexadecimal, over the lines ``sha256(content)  name`` in the order of the names."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def take(found: Files, paths: Sequence[str]) -> list[bytes]:
    """The contents of ``paths``. Raises DataError for those that were not found."""
    missing = [path for path in paths if path not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"has no {missing[0]}{more} of {len(paths)} files; it is another archive, or another version")
    return [found[path] for path in paths]


def table(header: str, rows: Iterable[Sequence[object]]) -> bytes:
    """A CSV file with the columns ``header``, separated by commas."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header.split(","))
    writer.writerows(rows)
    return text.getvalue().encode()


def wav(samples: npt.NDArray[np.int16], rate_hz: int) -> bytes:
    """A mono WAV file of 16 bits without anything but the sound in it."""
    blob = io.BytesIO()
    with wave.open(blob, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(samples.astype("<i2").tobytes())
    return blob.getvalue()


def write(files: Files, folder: Path) -> None:
    """Put ``files`` into the empty ``folder``, and on the disk. Raises OSError."""
    archives: dict[str, list[str]] = {}
    for name in sorted(files):
        archives.setdefault(name.partition("/")[0], []).append(name)
    for top, names in archives.items():
        with (folder / top).open("xb") as file:
            if names == [top]:
                file.write(files[top])
            else:
                with lzma.open(file, "wb", preset=PRESET) as packed, tarfile.open(fileobj=packed, mode="w") as out:
                    for name in names:
                        member = tarfile.TarInfo(name.partition("/")[2])
                        member.size = len(files[name])
                        out.addfile(member, io.BytesIO(files[name]))
            file.flush()
            os.fsync(file.fileno())


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the dataset at ``folder``, but for its README.md. Raises DataError for what cannot be read."""
    files: dict[str, bytes] = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.name.endswith(ARCHIVE):
                with lzma.open(path) as packed:
                    members = archive.read(packed, lambda name: True, LIMITS)
                files |= {f"{path.name}/{name}": content for name, content in members.items()}
            elif path.name != README and path.is_file():
                with path.open("rb") as file:
                    files[path.name] = file.read(LIMITS.kept_bytes + 1)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error})") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return files
