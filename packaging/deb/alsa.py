"""Compile pyalsaaudio, which has no wheels on PyPI, for any of our processors.

The headers and libraries of the target come from Debian's archive and are only unpacked, so nothing of the target has
to run here.
"""

import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path

from target import CACHE, DEFAULT_PYTHON, TREE, BuildError, Target, do, pip

VERSION = "0.11.0"
SHA256 = "a78a9dca33524b2c9064b34e21f5ab874272313cf324a9a77592f396a5e0fddc"
"""Of the source archive on PyPI."""
SUITE = "bookworm"
HEADERS = ("libasound2-dev", "libpython3.11-dev")
FLAGS = ("-shared", "-fPIC", "-O2", "-s", "-DNDEBUG", "-Wno-unused")


def compiled(target: Target) -> Path | None:
    """A folder to put on the Python path, from the cache if it is there; None for a Python whose headers Debian 12
    has not (``axond extras install alsa`` compiles it on the device). Raises BuildError.
    """
    if target.python != DEFAULT_PYTHON:
        return None
    made = CACHE / f"pyalsaaudio-{VERSION}-{target.python}-{target.arch}"
    if not made.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            _compile(target, _source(Path(folder)), _headers(target, Path(folder)), Path(folder) / "made")
            (Path(folder) / "made").rename(made)
    return made


def _source(folder: Path) -> Path:
    name = f"pyalsaaudio-{VERSION}"
    pip("download", "--quiet", "--no-binary", ":all:", "--no-deps", "--dest", folder, f"pyalsaaudio=={VERSION}")
    archive = folder / f"{name}.tar.gz"
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise BuildError(f"{archive.name}: sha256 is {found}, expected {SHA256}")
    with tarfile.open(archive) as packed:
        for member in packed.getmembers():
            if member.isfile() and member.name.count("/") == 1:
                packed.extract(member, folder)
    return folder / name


def _headers(target: Target, folder: Path) -> Path:
    if shutil.which("mmdebstrap") is None:
        raise BuildError("mmdebstrap is needed to fetch the headers of ALSA and Python: apt install mmdebstrap")
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    given = [sources] if sources.exists() and SUITE in sources.read_text() else []
    options = ["--quiet", "--variant=extract", f"--architectures={target.arch}", f"--include={','.join(HEADERS)}"]
    do("mmdebstrap", *options, SUITE, folder / "headers", *given)
    return folder / "headers"


def _compile(target: Target, source: Path, root: Path, made: Path) -> None:
    compiler = f"{target.triplet}-gcc"
    if shutil.which(compiler) is None:
        raise BuildError(
            f"{compiler} is needed to compile pyalsaaudio: apt install gcc-{target.triplet.replace('_', '-')}"
        )
    made.mkdir()
    module = f"alsaaudio.cpython-{target.python.replace('.', '')}-{target.triplet}.so"
    headers = [
        f"--sysroot={root}",
        "-isystem",
        root / f"usr/include/python{target.python}",
        "-isystem",
        root / "usr/include",
    ]
    where = f"-ffile-prefix-map={source}=."
    do(compiler, *headers, *FLAGS, where, source / "alsaaudio.c", "-lasound", "-o", made / module)
    facts = made / f"pyalsaaudio-{VERSION}.dist-info"
    facts.mkdir()
    shutil.copyfile(source / "PKG-INFO", facts / "METADATA")
    shutil.copyfile(source / "LICENSE", facts / "LICENSE")
    (facts / "INSTALLER").write_text(f"{(TREE / 'packaging/deb').name}\n")
