"""``axond restore``: what ``axond backup`` wrote, onto this machine."""

import argparse
from dataclasses import asdict
from pathlib import Path

from agent.backup.archive import BackupError
from agent.backup.replace import Restored
from agent.backup.restore import Wish, restore
from agent.cli.backup import progress
from agent.cli.check import examine
from agent.cli.command import Command, CommandError, add_config, add_json, print_json
from agent.errors import ConfigError


def _configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="what axond backup wrote")
    parser.add_argument("--config-only", action="store_true", help="neither models nor results, only the configuration")
    parser.add_argument(
        "--as-new-device", metavar="ID", help="this is another device, called ID: without the results of the old one"
    )
    parser.add_argument(
        "--state-dir", type=Path, metavar="FOLDER", help="the state_dir in the backup, where it is an unusual one"
    )


def _run(options: argparse.Namespace) -> int:
    wish = Wish(options.config, options.config_only, options.as_new_device, options.state_dir)
    try:
        with progress("restore") as told:
            restored = restore(options.file, wish, told)
    except BackupError as error:
        raise CommandError(str(error)) from error
    wrong = _check(options.config)
    if options.json:
        print_json({**asdict(restored), "problem": wrong})
    else:
        _print(restored, wrong)
    return 0


def _check(path: Path) -> str | None:
    """What ``axond check`` would say."""
    try:
        examine(path)
    except ConfigError as error:
        return str(error)
    return None


def _print(restored: Restored, wrong: str | None) -> None:
    print(f"device {restored.device}: restored {len(restored.files)} files and folders, {restored.results} results")
    for path in restored.files:
        print(f"  {path}")
    for path in restored.aside:
        print(f"  kept, remove it when all is well: {path}")
    for note in restored.notes:
        print(f"  {note}")
    if wrong is None:
        print("the configuration is right; next: systemctl start axond, or axond run")
    else:
        print(f"before the agent can start: {wrong}")


COMMAND = Command(
    "restore",
    "put a backup back, also onto a fresh machine",
    """Verify a backup as a whole, then put it in the place of what is here; what was here is kept beside it under the
name NAME.before-restore-N. No agent may be running.

Onto the same device, or a machine that takes its place: the device keeps its name, and its pending results are sent
under it. What was delivered since the backup is sent once more and the hub drops it. An outbox that is here is newer:
it is kept, and what only the backup has is added.
Onto a machine that is to be another device: --as-new-device ID takes over all but the results, which are the old
device's and stay in the backup.
Of passwords and keys those in the folder credentials come back, and in /etc/axond whatever the configuration names.

Exit codes: 0 restored (it says what is left to do), 1 refused or failed: nothing has changed unless it says so.

  axond restore axond.tar.zst
  axond restore axond.tar.zst --as-new-device gate-7
  axond restore axond.tar.zst --config-only
""",
    _configure,
    _run,
)
