"""``axond setup``: the first configuration, from what is plugged in."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any, get_args

from agent.cli.accelerators import survey
from agent.cli.check import examine
from agent.cli.command import DEFAULT_CONFIG, Command, CommandError, add_config, add_json, console, print_json
from agent.config import NAME
from agent.config_files import parse_toml
from agent.profile import ProfileName, choose
from agent.setup import service
from agent.setup.ask import Ask, Person
from agent.setup.look import Candidate
from agent.setup.save import SetupError, identity, next_backup, save, says_something
from agent.setup.talk import Given, Said, talk
from drivers.base import Misconfigured
from drivers.registry import driver_class


def _configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)
    parser.add_argument("--yes", "-y", action="store_true", help="ask nothing: defaults for all that is not said here")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a configuration that is there (kept as .bak-N)"
    )
    parser.add_argument("--id", type=_name, help="name of this device (default: the host's name)")
    parser.add_argument("--region", type=_name, help="default: default")
    parser.add_argument("--profile", choices=get_args(ProfileName), help="default: auto, the board says it")
    parser.add_argument("--state-dir", type=Path, metavar="FOLDER", help="for the outbox and models")
    parser.add_argument(
        "--sensor",
        action="append",
        default=[],
        type=_sensor,
        metavar="NAME={...}",
        help="a sensor as an inline table of TOML; then nothing is looked for",
    )
    parser.add_argument(
        "--port", action="append", default=[], metavar="PORT", help="look at these serial ports only, and ask them too"
    )
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only these models")
    broker = parser.add_mutually_exclusive_group()
    broker.add_argument("--broker", metavar="HOST[:PORT]", help="MQTT broker")
    broker.add_argument("--no-broker", action="store_true", help="results stay in the outbox")
    parser.add_argument("--username", help="at the broker")
    password = parser.add_mutually_exclusive_group()
    password.add_argument("--password-file", type=Path, metavar="FILE", help="a file that has the password and stays")
    password.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="TLS, with this authority")
    parser.add_argument(
        "--start",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="start the service (default: where systemd has it and you may)",
    )


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise argparse.ArgumentTypeError(f"{text!r}: 1 to 63 of a-z, 0-9, '_' and '-', a letter or digit first")
    return text


def _sensor(text: str) -> Candidate:
    """An argparse type: ``mic0={driver="audio.file", path="x.wav"}``."""
    try:
        ((name, table),) = parse_toml(text).items()
        kind = table.pop("driver")
        driver_class(kind)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no sensor; write NAME={{driver="audio.file", path="x.wav"}} ({error})'
        ) from error
    except Misconfigured as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    told = (table.get(key) for key in ("port", "device", "path"))
    place = next((str(one) for one in told if one), "as given to axond setup")
    return Candidate(kind, place, [table], name=_name(name))


def _run(options: argparse.Namespace) -> int:
    path: Path = options.config
    person = not options.yes and sys.stdin.isatty()
    if not person and not options.yes:
        raise CommandError("there is no terminal to ask at: add --yes, and options for what is not as usual")
    out = console(stderr=options.json)
    ask = Person(out) if person else Ask()
    try:
        given = _given(options)
        if says_something(path) and not options.overwrite:
            if not person:
                raise SetupError(
                    f"{path} is there and configures something: --overwrite replaces it and keeps it as "
                    f"{next_backup(path).name}"
                )
            if not ask.yes(f"{path} is there. Replace it (it is kept as {next_backup(path).name})?", default=False):
                raise SetupError("nothing was changed")
        said = talk(given, ask, identity(path))
        if person:
            ask.say(_runtimes())
            if not ask.yes(f"Write {path}?"):
                raise SetupError("nothing was written")
        kept = save(path, said.answers, said.password, examine)
        facts = _facts(path, said, kept)
        facts |= _started(options, ask, said)
    except SetupError as error:
        raise CommandError(str(error)) from error
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise CommandError(f"nothing was written: what was given is no text in UTF-8 ({error.reason})") from error
    if options.json:
        print_json(facts)
    else:
        _print(facts)
    return 0


def _runtimes() -> str:
    """What networks can run on here, as far as that shows without trying it."""
    rows = [row for row in map(survey, choose("auto").backends) if row["usable"]]
    there = [f"{row['backend']} ({', '.join(row['devices']) or row['runtime'] or 'built in'})" for row in rows]
    return f"Networks can run on {', '.join(there)}; what others need: axond accelerators"


def _given(options: argparse.Namespace) -> Given:
    password = None
    if options.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise CommandError("--password-stdin: there is no password on standard input")
    files = (options.password_file, options.ca_file)
    return Given(
        options.config,
        options.id,
        options.region,
        options.profile,
        options.state_dir,
        options.sensor,
        options.port,
        options.model,
        options.broker,
        options.no_broker,
        options.username,
        password,
        *(file and file.absolute() for file in files),
    )


def _facts(path: Path, said: Said, kept: Path | None) -> dict[str, Any]:
    answers, plan = said.answers, said.answers.plan
    return {
        "config": str(path),
        "kept": str(kept) if kept else None,
        "device": answers.device,
        "sensors": {name: table["driver"] for name, table in plan.sensors.items()},
        "pipelines": {name: model for name, (_, model) in plan.pipelines.items()},
        "unused": plan.unused,
        "broker": answers.broker.address if answers.broker else None,
        "problems": said.problems,
        "state_dir": str(answers.state_dir),
    }


def _started(options: argparse.Namespace, ask: Ask, said: Said) -> dict[str, Any]:
    """Starts the service if that is wanted; what to do next."""
    path: Path = options.config
    ours = path.absolute() == DEFAULT_CONFIG and service.installed()
    where = "" if path == DEFAULT_CONFIG else f" --config {path}"
    wanted = options.start if options.start is not None else ours and service.may_start()
    if options.start and not ours:
        raise SetupError(f"{path} is written, but systemd has no service for it here; next: axond run{where}")
    if not wanted or (options.start is None and not ask.yes("Start the service now, and at every boot?")):
        first = "sudo systemctl enable --now axond" if ours else f"axond run{where}"
        return {"started": False, "first_result": None, "next": [first, f"axond status{where}"]}
    service.start()
    ask.say("The service runs. Waiting for a first result ...")
    result = service.first_result(said.answers.state_dir) if said.answers.plan.pipelines else None
    return {"started": True, "first_result": result, "next": ["axond status", "axond doctor"]}


def _print(facts: dict[str, Any]) -> None:
    print(f"{facts['config']} is written and right. Device {facts['device']}.")
    if facts["kept"]:
        print(f"  what was there before: {facts['kept']}")
    for name, kind in facts["sensors"].items():
        print(f"  sensor {name}: {kind}")
    for name, model in facts["pipelines"].items():
        print(f"  pipeline {name}: {model}")
    for name, why in facts["unused"].items():
        print(f"  sensor {name} is not used yet: {why}")
    for problem in facts["problems"]:
        print(f"  not used: {problem}")
    print(f"  uplink: {facts['broker'] or 'none, results stay in the outbox'}")
    if result := facts["first_result"]:
        print(f"  first result: {result['pipeline']}: {result['label']} ({result['score']:.2f})")
    elif facts["started"]:
        print("  the service runs; no result yet")
    print(f"next: {facts['next'][0]}" + "".join(f"; then: {one}" for one in facts["next"][1:]))


COMMAND = Command(
    "setup",
    "the first configuration, from what is plugged in",
    """Look at serial ports, microphones and event cameras, propose pipelines with the models that fit, ask for the
rest, and write the configuration, once it is known to be right. What was there is kept as axond.toml.bak-N, the newest
five of them. A password goes into a file of its own (credentials/mqtt-password beside the configuration, mode 0600),
never into the TOML.
Ctrl-C at any question changes nothing. Without a sensor a computed one gives a first result.

  sudo axond setup
  axond setup --config ./axond.toml
  sudo axond setup --yes --broker broker.example --username gate-7 --password-stdin < password
  axond setup --yes --config a.toml --sensor 'mic0={driver="audio.file", path="x.wav", rate_hz=16000}'

Exit codes: 0 written, 1 nothing was written, or the service did not start; 2 wrong usage.
""",
    _configure,
    _run,
)
