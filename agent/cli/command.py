"""What a subcommand is, and the few things that all of them share."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PIPE_WIDTH = 200
DEFAULT_CONFIG = Path("/etc/axond/axond.toml")


class CommandError(Exception):
    """Why a command failed, in one sentence; exit code 1."""


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand. ``configure`` adds its arguments; ``run`` does it and returns the exit code."""

    name: str
    help: str
    """One line for the list of commands."""
    description: str
    """What ``axond NAME --help`` teaches, examples included."""
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_config(parser: argparse.ArgumentParser) -> None:
    """``--config FILE``."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(os.environ.get("AXOND_CONFIG") or DEFAULT_CONFIG),
        help=f"configuration (default: $AXOND_CONFIG, else {DEFAULT_CONFIG})",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, for machines")


def print_json(document: Any) -> None:
    """Write ``document`` to standard output."""
    json.dump(document, sys.stdout, indent=1, default=str)
    sys.stdout.write("\n")


def console(*, stderr: bool = False) -> "Console":
    """Where people read: as wide as their terminal, and wide enough for every table in a pipe or file."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, soft_wrap=not terminal, width=None if terminal else PIPE_WIDTH)


def cells(*values: object) -> list["Text"]:
    """Cells of a table, as they are: what a device or a file says is no markup."""
    from rich.text import Text

    return [Text(str(value).encode("utf-8", "replace").decode()) for value in values]


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number between two bounds."""

    def convert(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    return convert


def positive(text: str) -> float:
    """An argparse type: a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return value


def check_writable(path: Path) -> None:
    """Before much work: whether ``write_whole`` could write there. Raises CommandError."""
    if not path.parent.is_dir():
        raise CommandError(f"{path}: cannot be written (there is no folder {path.parent})")
    if path.exists() and not path.is_file():
        raise CommandError(f"{path}: cannot be written (it is no regular file); name another")


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write or replace ``path``, whole or not at all; a link stays one. Raises CommandError."""
    check_writable(path)
    try:
        path = path.resolve()
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            scratch = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                scratch.chmod(mode)
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # the latter for links that go round, before Python 3.13
        raise CommandError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
