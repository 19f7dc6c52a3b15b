"""Renew ``locked-*.txt``: which wheels a package brings, with the sha256 of each, for all processors.

    python packaging/deb/lock.py [3.11 ...]

Asks PyPI for the newest of what pyproject.toml demands. The files hold names, versions and sums; where they were
fetched from does not matter, since pip refuses a file with another sum.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from target import ARCHITECTURES, GLIBC_MINORS, TREE, BuildError, Target, pip, python_version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXTRAS = ("onnx", "tflite", "hub")
"""In the package beside the core. What else there is, ``axond extras`` installs on the device: scipy (``locate``) and
pyarrow (``parquet``) would double the package, pymavlink and faery are for a few, akida is not ours to pass on."""
HEADER = """\
# Wheels in the package for Python {python}, amd64 and arm64. Made by packaging/deb/lock.py, which also renews it.
"""


def wanted(tree: Path = TREE) -> list[str]:
    """Requirements of the core and of EXTRAS, as pyproject.toml states them."""
    project: dict[str, Any] = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    extras = [each for name in EXTRAS for each in project["optional-dependencies"][name]]
    return [*project["dependencies"], *extras]


def resolve(target: Target) -> dict[str, tuple[str, str]]:
    """Name -> version and sha256 of each wheel. Raises BuildError."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = [*target.pip_options(), "--target", folder, "--dry-run", "--ignore-installed", "--quiet"]
        pip("install", *options, "--report", report, *_for_python(wanted(), target.python))
        installs = json.loads(report.read_text())["install"]
    found = {}
    for each in installs:
        name = re.sub(r"[-_.]+", "-", each["metadata"]["name"]).lower()
        found[name] = each["metadata"]["version"], each["download_info"]["archive_info"]["hashes"]["sha256"]
    return found


def _for_python(requirements: list[str], python: str) -> list[str]:
    """pip asks about markers the interpreter that it runs in, not the one that it installs for."""
    minor = int(python.split(".")[1])
    chosen = []
    for each in requirements:
        requirement, _, marker = each.partition(";")
        below = re.fullmatch(r"\s*python_version < '3\.(\d+)'\s*", marker)
        if marker and not below:
            raise BuildError(f"pyproject.toml: {each}: only python_version < '3.N' is understood here")
        if below is None or minor < int(below[1]):
            chosen.append(requirement)
    return chosen


def locked(python: str) -> str:
    """The file's text. Raises BuildError, also where the processors would get different versions."""
    found = {arch: resolve(Target(arch, python)) for arch in ARCHITECTURES}
    versions: dict[str, set[str]] = {}
    sums: dict[str, set[str]] = {}
    for wheels in found.values():
        for name, (version, digest) in wheels.items():
            versions.setdefault(name, set()).add(version)
            sums.setdefault(name, set()).add(digest)
    for name, several in versions.items():
        if len(several) > 1:
            raise BuildError(f"{name}: {' and '.join(sorted(several))}, depending on the processor; bound it")
    lines = [
        f"{name}=={next(iter(versions[name]))} \\\n"
        + " \\\n".join(f"    --hash=sha256:{s}" for s in sorted(sums[name]))
        for name in sorted(versions)
    ]
    return HEADER.format(python=python) + "\n".join(lines) + "\n"


def main() -> int:
    try:
        for python in map(python_version, sys.argv[1:] or GLIBC_MINORS):
            path = Target("amd64", python).lock
            path.write_text(locked(python))
            print(path)
    except BuildError as error:
        print(f"lock.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
