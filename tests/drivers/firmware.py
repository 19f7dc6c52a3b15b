"""Builds the firmware and its tools, where the compilers are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "hil" / "firmware" / "ultrasonic_array"


def build(target: str, made: str, folder: Path, needs: list[str], header: Path | None = None) -> Path:
    """Path of the file ``made`` of make's ``target``; skips the test where a program or C header is missing."""
    for program in needs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if header is not None and not header.exists():
        pytest.skip(f"{header} is not installed")
    done = subprocess.run(
        ["make", "-C", SOURCE, f"BUILD={folder}", target], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / made
