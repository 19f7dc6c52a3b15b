"""The command line ``axond``: finds the subcommand, turns known errors into one sentence and an exit code."""

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from agent.cli.command import Command, CommandError
from agent.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_USAGE, ConfigError
from drivers.base import DriverError, Misconfigured
from models.base import ModelError

BUILT_IN = (
    "setup", "run", "check", "status", "sensors", "replay", "record", "outbox", "backup", "restore", "hub", "model",
    "data", "locate", "accelerators", "extras", "lava", "doctor", "version",
)  # fmt: skip
"""Each is ``agent/cli/<name>.py`` with a COMMAND; the entry-point group ``axond.commands`` adds more."""

DESCRIPTION = """axond turns sensors and a spiking network into results that a fleet can trust.

  axond demo                        the whole chain on this machine, live
  axond setup                       the first configuration, from what is plugged in
  axond check --config FILE         is this configuration right?
  axond run --config FILE           the agent itself, as systemd runs it
  axond status --config FILE        how is the running agent?
  axond doctor --config FILE        what is wrong here, and what to do about it?
"""


def _commands() -> list[str]:
    return [*BUILT_IN, *sorted(entry.name for entry in entry_points(group="axond.commands"))]


def _load(name: str) -> Command:
    command: Command
    if name in BUILT_IN:
        command = importlib.import_module(f"agent.cli.{name}").COMMAND
    else:
        command = next(iter(entry_points(group="axond.commands", name=name))).load()
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    # Whatever a command holds (children, folders) is given back, however it is asked to end.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    arguments = list(sys.argv[1:] if argv is None else argv)
    names = _commands()
    # Only the command that is meant is imported: the agent must start fast and stay small.
    wanted = arguments[0] if arguments and arguments[0] in names else None
    parser = make_parser([wanted] if wanted else names)
    try:
        options = parser.parse_args(arguments)
    except SystemExit as error:
        return EXIT_USAGE if error.code else 0
    return _run(options)


def make_parser(names: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The command line with the commands ``names``; None: with all that there are."""
    parser = argparse.ArgumentParser(
        prog="axond", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in _commands() if names is None else names:
        command = _load(name)
        sub = subparsers.add_parser(
            name,
            help=command.help,
            description=command.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.configure(sub)
        sub.set_defaults(run=command.run)
    return parser


def _run(options: argparse.Namespace) -> int:
    """Do what was asked; whatever goes wrong is one sentence and an exit code."""
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing more to say, also not at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except (ConfigError, Misconfigured) as error:
        code = _say(error, EXIT_CONFIG)
    except (CommandError, DriverError, ModelError, OSError) as error:
        code = _say(error, EXIT_FAILED)
    except KeyboardInterrupt:
        code = 130
    return code


def _say(error: Exception, code: int) -> int:
    from agent import log

    if isinstance(error, OSError) and error.strerror:  # without the number, which tells people nothing
        error = CommandError(": ".join(str(part) for part in (error.filename, error.strerror) if part))
    if log.to_journal():  # which takes a plain line for information
        log.set_up("info", "journal")
        logging.getLogger("axond").critical("%s", error, extra=log.event(log.REFUSED) if code == EXIT_CONFIG else None)
    else:
        print(f"axond: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
