"""``axond version``."""

import argparse
import platform

from agent.cli.command import Command, add_json, print_json
from agent.version import agent_version


def _configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    facts = {"axond": agent_version(), "python": platform.python_version(), "machine": platform.machine()}
    if options.json:
        print_json(facts)
    else:
        print(f"axond {facts['axond']} (Python {facts['python']}, {facts['machine']})")
    return 0


COMMAND = Command("version", "which axond this is", "Say which axond this is.", _configure, _run)
