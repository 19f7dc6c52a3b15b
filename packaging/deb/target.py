"""What a package is built for: the processor, the Python, and how both are called by pip, dpkg and the compiler."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CACHE = TREE / "build" / "deb"
"""Downloaded wheels, and what was compiled: a second build needs no network."""
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's name -> that of wheels and of GNU."""
GLIBC_MINORS = {"3.10": 35, "3.11": 36, "3.12": 39}
"""The C library beside that Python: Ubuntu 22.04 (also JetPack 6), Debian 12, Ubuntu 24.04."""
DEFAULT_PYTHON = "3.11"
OLDEST_GLIBC_MINOR = 17


class BuildError(Exception):
    """Why there is no package: one sentence."""


@dataclass(frozen=True, slots=True)
class Target:
    """One package. ``arch`` is Debian's name of the processor, ``python`` like "3.11"."""

    arch: str
    python: str = DEFAULT_PYTHON

    @property
    def machine(self) -> str:
        return ARCHITECTURES[self.arch]

    @property
    def triplet(self) -> str:
        """Also the prefix of a cross compiler's programs."""
        return f"{self.machine}-linux-gnu"

    @property
    def lock(self) -> Path:
        """Names, versions and sha256 of the wheels that go in, for all processors."""
        return HERE / f"locked-{self.python}.txt"

    @property
    def wheels(self) -> Path:
        """The cache; of each processor its own, so that pip takes what was meant."""
        return CACHE / f"wheels-{self.python}-{self.arch}"

    def pip_options(self) -> list[str]:
        """pip resolves and unpacks for this target, whatever machine it runs on."""
        tags = [f"manylinux_2_{minor}" for minor in range(OLDEST_GLIBC_MINOR, GLIBC_MINORS[self.python] + 1)]
        tags += ["manylinux2014", "linux"]
        platforms = [option for tag in tags for option in ("--platform", f"{tag}_{self.machine}")]
        return ["--only-binary", ":all:", "--implementation", "cp", "--python-version", self.python, *platforms]


def python_version(text: str) -> str:
    """``310`` or ``3.10`` -> ``3.10``. Raises BuildError for one that no package is made for."""
    found = re.fullmatch(r"3\.?(\d+)", text)
    version = f"3.{found[1]}" if found else text
    if version not in GLIBC_MINORS:
        raise BuildError(f"Python {text}: packages are made for {', '.join(GLIBC_MINORS)}")
    return version


def do(*command: str | Path, cwd: Path = TREE, **environment: str) -> str:
    """Run a program; what it printed. Raises BuildError with its last words."""
    whole = [str(part) for part in command]
    env = {**os.environ, **environment}
    try:
        done = subprocess.run(whole, capture_output=True, text=True, check=False, env=env, cwd=cwd)
    except OSError as error:
        raise BuildError(f"{whole[0]} cannot be started ({error.strerror}); is it installed?") from error
    if done.returncode:
        raise BuildError(f"{' '.join(whole[:6])} ... failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def pip(*arguments: str | Path, **environment: str) -> str:
    """pip of the interpreter that builds. Raises BuildError."""
    return do(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, **environment)


def source_date() -> int:
    """The time that all files of a package have, Unix seconds: $SOURCE_DATE_EPOCH, else that of the last commit."""
    told = os.environ.get("SOURCE_DATE_EPOCH")
    if told is None:
        try:
            told = do("git", "-C", TREE, "log", "-1", "--format=%ct").strip()
        except BuildError as error:
            raise BuildError("no git repository here that says when: set SOURCE_DATE_EPOCH to Unix seconds") from error
    if not told.isdigit():
        raise BuildError(f"SOURCE_DATE_EPOCH={told!r}: expected Unix seconds")
    return int(told)
