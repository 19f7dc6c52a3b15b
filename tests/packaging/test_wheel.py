"""Wheel and source archive: whole, without junk, the same bytes each time (``make wheel``)."""

import hashlib
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
ROOMS = {"agent", "drivers", "hil", "models"}
FULL = pytest.mark.skipif("AXOND_PACKAGES" not in os.environ, reason="a minute, needs the network: make package-test")
JUNK = {"__pycache__", ".git", ".ci", ".venv", "build", "dist", "_build", ".hypothesis", ".mypy_cache"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Source archive and wheel."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed (pip install hatchling)")
    folder: Path = tmp_path_factory.mktemp("dist")
    return build(folder)


def build(folder: Path) -> tuple[Path, Path]:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t", "sdist", "-t", "wheel"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, cwd=TREE, env=environment, check=True, capture_output=True)
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


def zoo() -> set[str]:
    every = (path for path in (TREE / "models/zoo").rglob("*") if path.is_file())
    return {str(path.relative_to(TREE)) for path in every if not JUNK & {*path.parts}}


def test_both_have_every_file_of_every_model_and_no_junk(made: tuple[Path, Path]) -> None:
    source, wheel = made
    with zipfile.ZipFile(wheel) as packed:
        in_wheel = {*packed.namelist()}
    with tarfile.open(source) as archive:
        in_source = {name.split("/", 1)[1] for name in archive.getnames()}
    assert len(zoo()) > 50
    assert zoo() <= in_wheel
    assert zoo() <= in_source
    assert {name.split("/")[0] for name in in_wheel} - ROOMS == {f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert not [name for name in in_wheel | in_source if JUNK & {*name.split("/")}]
    assert {
        "packaging/deb/build.py",
        "packaging/udev/60-axond.rules",
        "tests/conftest.py",
        "Makefile",
        "LICENSE",
    } <= in_source


@FULL
def test_two_builds_give_the_same_bytes(made: tuple[Path, Path], tmp_path: Path) -> None:
    for one, other in zip(made, build(tmp_path), strict=True):
        assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest(), one.name


@FULL
def test_it_installs_into_a_fresh_environment_and_the_demo_runs_there(made: tuple[Path, Path], tmp_path: Path) -> None:
    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", made[1]], check=True)
    command = [tmp_path / "fresh/bin/axond", "demo", "--seconds", "5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "balances" in done.stdout
