"""What the command lines of all trainings share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from models.base import ModelError


def parser(module: str, about: str, data: str, epochs: int) -> argparse.ArgumentParser:
    """Of ``python -m models.train.MODULE``: ``--out``, ``--data`` (``data`` says what it is) and ``--epochs``."""
    made = argparse.ArgumentParser(prog=f"python -m models.train.{module}", description=about.splitlines()[0])
    made.add_argument("--out", type=Path, required=True, help="folder for what axond model build takes")
    made.add_argument("--data", type=Path, help=data)
    made.add_argument("--epochs", type=int, default=epochs, help=f"default: {epochs}")
    return made


def guarded(act: Callable[[], None]) -> int:
    """Do it; the exit code. What is wrong is said in one sentence."""
    try:
        act()
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
