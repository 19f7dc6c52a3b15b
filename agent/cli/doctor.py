"""``axond doctor``: what is wrong here, and what to do about it."""

import argparse
import os
from pathlib import Path

from agent.cli.command import DEFAULT_CONFIG, Command, add_config, add_json, console, print_json, write_whole
from agent.doctor.checks import CHECKS
from agent.doctor.configuration import set_up
from agent.doctor.examine import examine
from agent.doctor.finding import Finding
from agent.doctor.view import count, show
from agent.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK
from agent.version import agent_version

FORMAT = 1
CREDENTIALS = Path("/run/credentials/axond.service")
"""Of the running service; for its user and root."""


def _configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)
    parser.add_argument(
        "--bundle", type=Path, metavar="FILE", help="also write a support bundle (.tar.gz) without names and secrets"
    )


def _run(options: argparse.Namespace) -> int:
    if os.access(CREDENTIALS, os.R_OK | os.X_OK):
        os.environ.setdefault("CREDENTIALS_DIRECTORY", str(CREDENTIALS))
    named = options.config != DEFAULT_CONFIG or bool(os.environ.get("AXOND_CONFIG"))
    scene = set_up(options.config, named=named)
    findings = examine(scene, CHECKS)
    if options.bundle is not None:
        from agent.doctor.bundle import make

        write_whole(options.bundle, make(scene, findings), mode=0o600)
    if options.json:
        print_json(
            {
                "format": FORMAT,
                "axond": agent_version(),
                "config": str(scene.path),
                "agent_runs": scene.status is not None,
                "runs_as": scene.runner.name,
                "counts": count(findings),
                "findings": [finding.told() for finding in findings],
            }
        )
    else:
        show(console(), findings)
        if options.bundle is not None:
            print(f"support bundle: {options.bundle}")
    return _exit_code(findings)


def _exit_code(findings: list[Finding]) -> int:
    topics = {finding.topic for finding in findings if finding.level == "problem"}
    return EXIT_CONFIG if "config" in topics else EXIT_FAILED if topics else EXIT_OK


COMMAND = Command(
    "doctor",
    "what is wrong here, and what to do about it",
    """Look at everything that axond needs on this machine and say what is wrong, where, and what to do: configuration,
models, permissions, serial ports, USB, sound, accelerators, clock, certificates, the way to the broker step by step,
outbox, disk and flash, the service, power and heat. It works with and without a configuration, as any user (root sees
more), and beside a running agent, whose sensors, chips and login it leaves alone. Without one it opens the sensors for
some seconds, logs in to the broker under a client id of its own, and publishes one empty live value, "{}", there.

  axond doctor
  axond doctor --config axond.toml --json | jq -r '.findings[] | select(.level == "problem") | .id, .commands[]'
  axond doctor --bundle axond-support.tar.gz

--json: {"format": 1, "axond", "config", "agent_runs", "runs_as", "counts": {"problem", "warning", "note", "ok"},
"findings": [{"id", "topic", "level", "where", "seen", "remedy", "commands": [...]}]}, problems first. An id is
"topic.what" and stays what it is; new ones may come.

The bundle has no text of a person, a device or a log in it: known keys, numbers, fixed choices and axond's own words
only; names, addresses and paths are replaced by their length and a tag. Look into it before you send it all the same.

Exit codes: 0 no problem (perhaps warnings), 1 problems, 2 wrong use, 78 the configuration is wrong (the rest is looked
at nevertheless).
""",
    _configure,
    _run,
)
