"""Build ``axond_<version>_<arch>.deb``: `make deb`.

    python packaging/deb/build.py [--arch amd64 --arch arm64] [--python 3.11] [--version 0.2.0] [--out dist]

Needs dpkg-deb, and at the first time the network: for the wheels (PyPI) and for ALSA's headers (Debian). Runs nothing
of the target's, so one machine builds for all processors. The same commit gives the same bytes.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from archive import document, pack
from target import ARCHITECTURES, DEFAULT_PYTHON, TREE, BuildError, Target, python_version, source_date
from tree import fill

REVISION = "1"


def build(target: Target, version: str | None, out: Path, *, small: bool = True) -> Path:
    """One package; ``version`` None: that of pyproject.toml. Raises BuildError."""
    upstream = version or _version()
    # Packages for different Pythons are different packages of the same version.
    full = f"{upstream}-{REVISION}" + (
        "" if target.python == DEFAULT_PYTHON else f"+py{target.python.replace('.', '')}"
    )
    date_s = source_date()
    os.environ["SOURCE_DATE_EPOCH"] = str(date_s)
    with tempfile.TemporaryDirectory(prefix="axond-deb-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        fill(root, target, upstream)
        document(root, target, full, date_s)
        return pack(root, out, target, full, small=small)


def _version() -> str:
    found = re.search(r'(?m)^version = "(.+)"$', (TREE / "pyproject.toml").read_text())
    if found is None:
        raise BuildError('pyproject.toml: no line version = "..."')
    return found[1]


def main() -> int:
    parser = argparse.ArgumentParser(description="Build Debian packages of axond.")
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES, help="default: all of them")
    parser.add_argument("--python", default=DEFAULT_PYTHON, metavar="3.N", help=f"of the device ({DEFAULT_PYTHON})")
    parser.add_argument("--version", help="default: that of pyproject.toml")
    parser.add_argument("--out", type=Path, default=TREE / "dist", help="folder (default: dist)")
    parser.add_argument("--fast", action="store_true", help="do not compress: for tests")
    options = parser.parse_args()
    try:
        for arch in options.arch or ARCHITECTURES:
            begin_s = time.monotonic()
            target = Target(arch, python_version(options.python))
            package = build(target, options.version, options.out.resolve(), small=not options.fast)
            size_mb, took_s = package.stat().st_size / 1e6, time.monotonic() - begin_s
            print(f"{package}: {size_mb:.1f} MB in {took_s:.0f} s")
    except (BuildError, OSError) as error:
        print(f"axond: no package: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
