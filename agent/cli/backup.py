"""``axond backup``: configuration, models and pending results into one file."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from agent.backup.archive import BackupError
from agent.backup.make import Made, make
from agent.cli.command import Command, CommandError, add_config, add_json, console, print_json


def _configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="what to write, for example axond.tar.zst")
    parser.add_argument(
        "--with-secrets", action="store_true", help="passwords and keys below the configuration's folder as well"
    )


def _run(options: argparse.Namespace) -> int:
    try:
        with progress("backup") as told:
            made = make(options.config, options.file, secrets=options.with_secrets, told=told)
    except BackupError as error:
        raise CommandError(str(error)) from error
    if options.json:
        print_json(asdict(made))
    else:
        _print(made)
    return 0


def _print(made: Made) -> None:
    head = made.head
    results = "no outbox yet" if head.results is None else f"{head.results} results that wait"
    print(f"{made.path}: device {head.device}, {made.files} files, {results}, {made.bytes / 1024:.0f} KiB")
    if head.secrets:
        print("  passwords and keys are in it: it is readable for you alone (mode 0600), keep it so")
    for path, why in made.left_out.items():
        print(f"  left out: {path}: {why}")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, for what is told bytes done and bytes in all; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


COMMAND = Command(
    "backup",
    "configuration, models and pending results into one file",
    """Write the configuration with its drop-ins, the models and all else in the state_dir, and the outbox as it is at
one moment, into one file (tar in zstandard, SHA256SUMS inside). The agent may be running. The file is written whole or
not at all, and is readable for its owner alone. Passwords and keys stay out unless --with-secrets is given, and then
only those below the folder of the configuration are taken in.

Exit codes: 0 written, 1 failed and nothing was written, 78 the configuration is wrong.

  axond backup /media/stick/axond.tar.zst
  axond backup axond.tar.zst --with-secrets --config axond.toml
  tar --zstd -tvf axond.tar.zst            what is in it
""",
    _configure,
    _run,
)
