"""The file that a backup is: a tar archive (ustar) in zstandard, plain files only, hashed.

    axond-backup.json       first: format, and what this is a backup of
    config/axond.toml       and config/axond.toml.d/*.toml, config/secrets/...
    state/...               of the state_dir
    SHA256SUMS              last: of every file before it, as ``sha256sum --check`` reads it

It is read as a stranger's: nothing is believed before it is checked, and nothing but plain files is let in.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

FORMAT = 1
HEAD = "axond-backup.json"
SUMS = "SHA256SUMS"
CONFIG = "config/axond.toml"
DROP_INS = "config/axond.toml.d/"
SECRETS = "config/secrets/"
STATE = "state/"
OUTBOX = "state/outbox.db"
LEVEL = 3
CHUNK_BYTES = 1 << 16
MAX_SMALL_BYTES = 4 << 20
"""Of the head, the sums and a file of the configuration: these are held in memory."""
MAX_FILES = 20_000

Told = Callable[[int], None]
"""Is told of so many more bytes."""


class BackupError(Exception):
    """Why there is no backup, or why it is not restored: one sentence."""


@dataclass(slots=True)
class Head:
    """What a backup says of itself."""

    device: str
    region: str
    agent: str
    """Version of the axond that made it."""
    created: str
    state_dir: str
    config: str
    """Where the configuration was."""
    secrets: bool
    results: int | None
    """How many wait in its outbox; None without one."""
    format: int = FORMAT

    def document(self) -> bytes:
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, indent=1).encode()

    @classmethod
    def parse(cls, content: bytes, path: Path) -> "Head":
        """Raises BackupError."""
        try:
            document = json.loads(content)
            made = document["format"]
            if isinstance(made, int) and made > FORMAT:
                raise BackupError(
                    f"{path} has format {made}, this axond ({FORMAT}) is older than the one that made it: update it"
                )
            head = cls(**document)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BackupError(f"{path}: {HEAD} in it is not one of a backup of axond") from error
        names = ("device", "region", "agent", "created", "state_dir", "config")
        kinds = isinstance(head.secrets, bool) and isinstance(head.results, int | None)
        whole = all(isinstance(getattr(head, name), str) for name in names)
        if not (whole and kinds) or made != FORMAT:
            raise BackupError(f"{path}: {HEAD} in it is not one of a backup of axond")
        return head


class Writer:
    """Adds files to an archive. Use ``writing``."""

    def __init__(self, tar: tarfile.TarFile, told: Told) -> None:
        self._tar = tar
        self._told = told
        self._sums: list[str] = []

    def add(self, name: str, content: bytes, mode: int = 0o600) -> None:
        """A file from memory."""
        self._sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        self._put(name, len(content), mode, _Source(content))

    def add_file(self, name: str, path: Path) -> None:
        """A file as it is now. ``FileNotFoundError`` if it has gone; BackupError if its name is too long."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            source = _File(file, self._told)
            self._put(name, status.st_size, status.st_mode & 0o777, source)
        self._sums.append(f"{source.digest()}  {name}\n")

    def finish(self) -> None:
        """The sums, which make the archive whole."""
        content = "".join(self._sums).encode()
        self._put(SUMS, len(content), 0o600, _Source(content))

    def _put(self, name: str, size: int, mode: int, source: "_Source | _File") -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, mode
        try:
            self._tar.addfile(info, source)
        except ValueError as error:
            raise BackupError(f"{name!r}: {error}; such a file cannot be backed up") from error


class _Source:
    """Bytes as a file."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def read(self, size: int = -1) -> bytes:
        end = len(self._left) if size < 0 else size
        taken, self._left = self._left[:end], self._left[end:]
        return taken


class _File:
    """A file that is hashed while it is read."""

    def __init__(self, file: BinaryIO, told: Told) -> None:
        self._file = file
        self._told = told
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._hash.update(chunk)
        self._told(len(chunk))
        return chunk

    def digest(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def writing(file: BinaryIO, told: Told) -> Iterator[Writer]:
    """An archive in ``file``; it is whole only after ``finish``."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    with (
        compressor.stream_writer(file, closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict") as tar,
    ):
        yield Writer(tar, told)


@dataclass(slots=True)
class Member:
    """One file of an archive; ``chunks`` must be read to its end before the next member."""

    name: str
    size: int
    mode: int
    chunks: Iterator[bytes]
    sha256: str = field(default="")
    """Once all chunks are read."""

    def content(self, path: Path) -> bytes:
        """All of it, for a small file. Raises BackupError."""
        if self.size > MAX_SMALL_BYTES:
            raise BackupError(f"{path}: {self.name!r} in it has {self.size} bytes, that is too much")
        return b"".join(self.chunks)


def members(path: Path) -> Iterator[Member]:
    """The files of an archive in their order, hashed as they are read. Raises BackupError."""
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            yield from _members(path, stream)
    except zstandard.ZstdError as error:
        raise BackupError(f"{path} is no backup, or is damaged: {error}") from error
    except OSError as error:
        raise BackupError(f"{path} cannot be read ({error.strerror})") from error


def _members(path: Path, stream: Any) -> Iterator[Member]:
    names: set[str] = set()
    while True:
        try:
            info = tarfile.TarInfo.frombuf(_take(path, stream, tarfile.BLOCKSIZE), "utf-8", "strict")
        except (tarfile.TarError, UnicodeDecodeError) as error:
            if SUMS in names:
                return
            raise BackupError(f"{path} is no backup, or is damaged: {error}") from error
        _check(path, info, names)
        names.add(info.name)
        member = Member(info.name, info.size, info.mode & 0o777, iter(()))
        member.chunks = _chunks(path, stream, member)
        yield member
        for _ in member.chunks:  # what the caller did not want
            pass
        _take(path, stream, -info.size % tarfile.BLOCKSIZE)


def _check(path: Path, info: tarfile.TarInfo, names: set[str]) -> None:
    """Raises BackupError for whatever is no plain file in its place."""
    shown = info.name.encode("unicode_escape").decode()[:120]
    parts = info.name.split("/")
    if info.type != tarfile.REGTYPE:
        raise BackupError(f"{path}: {shown!r} in it is no plain file; axond writes no links, folders or devices")
    if any(part in ("", ".", "..") for part in parts) or not info.name.isprintable() or "\\" in info.name:
        raise BackupError(f"{path}: {shown!r} in it leads out of its place")
    is_ours = info.name in (HEAD, SUMS, CONFIG, OUTBOX) or info.name.startswith((DROP_INS, SECRETS, STATE))
    # Beside an outbox its WAL would be believed.
    if not is_ours or (info.name.startswith(OUTBOX) and info.name != OUTBOX):
        raise BackupError(f"{path}: {shown!r} in it belongs to no backup of axond")
    if info.name in names or len(names) >= MAX_FILES:
        raise BackupError(f"{path}: {shown!r} in it is there twice, or one file too many")
    if SUMS in names or (info.name == HEAD) != (not names):
        raise BackupError(f"{path}: {shown!r} in it is not in its place")
    if info.size < 0:
        raise BackupError(f"{path}: {shown!r} in it has a size below 0")


def _chunks(path: Path, stream: Any, member: Member) -> Iterator[bytes]:
    digest = hashlib.sha256()
    left = member.size
    while left:
        chunk = _take(path, stream, min(left, CHUNK_BYTES))
        left -= len(chunk)
        digest.update(chunk)
        yield chunk
    member.sha256 = digest.hexdigest()


def _take(path: Path, stream: Any, count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        part: bytes = stream.read(count - len(taken))
        if not part:
            raise BackupError(f"{path} ends too early: it was cut off, or copying it has not finished")
        taken += part
    return taken
