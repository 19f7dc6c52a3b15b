"""Reading a tar archive that anybody may have made: only plain files that are asked for, nothing without a limit.

Nothing is written: names are compared, never used as paths, so neither ``..`` nor a link leads anywhere.
"""

import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, cast

from models.datasets.recording import DataError


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that an archive may be; beyond, it is refused."""

    unpacked_bytes: int
    members: int = 60_000
    file_bytes: int = 4 << 20
    """One file that is asked for; also the most that is read at once, whatever a header says."""
    kept_bytes: int = 64 << 20
    """All files that are asked for."""


class _Guarded(io.RawIOBase):
    """What is unpacked, as far as the limits go. tarfile reads as much at once as a header says, and seeks where it
    says; here both are bounded, and the way leads forward."""

    def __init__(self, stream: io.BufferedIOBase, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= self._limits.file_bytes:
            raise DataError(f"a header asks for {size} bytes at once; this is no archive of recordings")
        self._check(self._stream.tell() + size)
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._check(offset)
        if whence != io.SEEK_SET or offset < self._stream.tell() - tarfile.BLOCKSIZE:
            raise DataError("a header leads backwards; this is no archive of recordings")
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, end: int) -> None:
        if end > self._limits.unpacked_bytes + tarfile.RECORDSIZE:
            raise DataError(f"unpacks to more than {self._limits.unpacked_bytes >> 20} MiB; this is no such archive")


def read(
    stream: io.BufferedIOBase, wants: Callable[[str], bool], limits: Limits, *, strip: bool = False
) -> dict[str, bytes]:
    """The plain files whose path ``wants`` accepts, from an unpacked tar stream; ``strip``: without the first folder.

    Raises DataError, saying what is wrong with the archive but not its name.
    """
    found: dict[str, bytes] = {}
    kept = count = 0
    try:
        with tarfile.open(fileobj=cast(IO[bytes], _Guarded(stream, limits)), mode="r:") as tar:
            while (member := tar.next()) is not None:
                count += 1
                if count > limits.members:
                    raise DataError(f"has more than {limits.members} members; this is no archive of recordings")
                path = member.name.partition("/")[2] if strip else member.name
                if not member.isreg() or member.sparse is not None or not wants(path):
                    continue
                kept += member.size
                if not 0 <= member.size <= limits.file_bytes or kept > limits.kept_bytes:
                    raise DataError(f"{path} is larger than any recording of it ({member.size} bytes)")
                content = tar.extractfile(member)
                found[path] = b"" if content is None else content.read(member.size)
    except EOFError as error:
        raise DataError("is cut off; get it again") from error
    except (tarfile.TarError, lzma.LZMAError, zlib.error, ValueError, RecursionError) as error:
        raise DataError(f"is damaged, or no archive ({error}); get it again") from error
    return found
