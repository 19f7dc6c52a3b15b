"""The conversation: from what is there and what was said on the command line to all that the configuration needs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent import profile as profiles
from agent.backup.make import Installation
from agent.config import NAME, DeviceTable
from agent.setup.ask import Ask
from agent.setup.look import Candidate, Looked, give_names, look, made, usable
from agent.setup.propose import Plan, add, bundles, connect, explain_unused, fitting
from agent.setup.save import SetupError
from agent.setup.text import Answers, Broker
from agent.uplink_config import split_address
from drivers.packet import SensorInfo
from models.registry import describe

FIRST_RESULT_MODEL = "activity"
"""What the made sensor's motion is for."""


@dataclass(slots=True)
class Given:
    """What the command line says; None for what is to be asked."""

    config: Path
    device: str | None = None
    region: str | None = None
    profile: str | None = None
    state_dir: Path | None = None
    sensors: list[Candidate] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    broker: str | None = None
    no_broker: bool = False
    username: str | None = None
    password: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None


@dataclass(slots=True)
class Said:
    """What came of it."""

    answers: Answers
    password: str | None
    """To be written into a file of its own."""
    problems: list[str]
    """Of things that are plugged in and could not be used."""


def talk(given: Given, ask: Ask, here: Installation | None) -> Said:
    """Asks what is not given. ``here``: the configuration that is there. Raises SetupError for what cannot be right."""
    found = profiles.choose("auto")
    device = given.device or ask.text("Name of this device", here.device.id if here else DeviceTable().id, _bad_name)
    region = given.region or ask.text("Its region", here.device.region if here else "default", _bad_name)
    profile = given.profile or "auto"
    ask.say(f"Profile: {found.name}, {found.reason}.")
    state_dir = given.state_dir or Path(ask.text("Folder for results and models", str(_state_dir(given, here))))
    looked = _looked(given, ask)
    plan = _plan(given, looked, ask, state_dir)
    broker, password = _broker(given, ask, device)
    board = f"{found.name}, {found.reason}"
    answers = Answers(device, region, profile, state_dir.absolute(), plan, broker, board)
    return Said(answers, password, looked.problems)


def _bad_name(text: str) -> str | None:
    fits = re.fullmatch(NAME, text)
    return None if fits else "1 to 63 of a-z, 0-9, '_' and '-', a letter or digit first"


def _state_dir(given: Given, here: Installation | None) -> Path:
    """Where the configuration says, or where the package has it, or beside a configuration of one's own."""
    if here is not None:
        return here.device.state_dir
    usual = DeviceTable().state_dir
    return usual if given.config.absolute().is_relative_to("/etc") else given.config.absolute().parent / "axond-state"


def _looked(given: Given, ask: Ask) -> Looked:
    if given.sensors:
        names = [candidate.name for candidate in given.sensors]
        for candidate in given.sensors:
            if names.count(candidate.name) > 1:
                raise SetupError(f"--sensor {candidate.name}: this name is there twice")
            if problem := usable(candidate):
                raise SetupError(f"--sensor {problem}")
        return Looked(list(given.sensors))
    ask.say("Looking for sensors: serial ports are listened to, which takes some seconds each.")
    looked = look(given.ports, ask.say)
    for problem in looked.problems:
        ask.say(f"  ! {problem}")
    return looked


def _plan(given: Given, looked: Looked, ask: Ask, state_dir: Path) -> Plan:
    models = bundles([state_dir / "models"])
    unknown = next((name for name in given.models if name not in [one.manifest.name for one in models]), None)
    if unknown is not None:
        known = ", ".join(sorted(one.manifest.name for one in models))
        raise SetupError(f"--model {unknown}: there are {known}")
    if given.models:
        models = [one for one in models if one.manifest.name in given.models]
    candidates, variants = _chosen_sensors(looked.candidates, ask)
    if not candidates:
        candidates = _made(given, ask)
        variants = [0] * len(candidates)
    plan = Plan()
    infos: dict[str, SensorInfo] = {}
    for candidate, variant in zip(candidates, variants, strict=True):
        add(plan, candidate, variant)
        infos[candidate.name] = candidate.info(variant)
        if candidate.note:
            ask.say(f"  {candidate.name}: {candidate.note}")
    pairs = fitting(infos, models)
    kept = [
        (bundle, sensors)
        for bundle, sensors in pairs
        if ask.yes(f"Pipeline: {', '.join(sensors)} -> {bundle.manifest.name} ({_labels(bundle.manifest.labels)})?")
    ]
    connect(plan, kept)
    fit = {name for _, sensors in pairs for name in sensors}
    explain_unused(plan, {name: info for name, info in infos.items() if name not in fit}, models)
    for name, why in plan.unused.items():
        ask.say(f"  {name} is not used by a pipeline: {why}")
    return plan


def _chosen_sensors(found: Sequence[Candidate], ask: Ask) -> tuple[list[Candidate], list[int]]:
    chosen: list[Candidate] = []
    variants: list[int] = []
    give_names(found)
    for candidate in found:
        info = candidate.info()
        what = f"{candidate.kind} on {candidate.place}: {describe(info.family, info.channels, info.rate_hz)}"
        if not ask.yes(f"Sensor: {what}. Use it?"):
            continue
        taken = [one.name for one in chosen]
        candidate.name = ask.text("  Its name", candidate.name, lambda text: _bad_sensor(text, taken))  # noqa: B023
        variant = 0
        if len(candidate.variants) > 1:
            rates = [f"{candidate.info(i).rate_hz:g} Hz" for i in range(len(candidate.variants))]
            variant = ask.choice("  At which rate?", rates)
        chosen.append(candidate)
        variants.append(variant)
    return chosen, variants


def _bad_sensor(text: str, taken: Sequence[str]) -> str | None:
    return f"there is a sensor {text} already" if text in taken else _bad_name(text)


def _made(given: Given, ask: Ask) -> list[Candidate]:
    """A newcomer without a sensor sees results all the same."""
    ask.say(
        "No sensor was found that could be used. Plug one in and run axond setup again, or see axond sensors probe."
    )
    wanted = not given.models or FIRST_RESULT_MODEL in given.models
    if not wanted or not ask.yes("Use a computed sensor for now, a person who moves, to see first results?"):
        return []
    return [made()]


def _labels(labels: Sequence[str]) -> str:
    return ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "")


def _broker(given: Given, ask: Ask, device: str) -> tuple[Broker | None, str | None]:
    address = None if given.no_broker else given.broker
    if address is None and not given.no_broker:
        address = ask.text(
            "MQTT broker, host or host:port (empty: none, results stay here)", "", lambda text: _bad_address(text, True)
        )
    if not address:
        if (given.username, given.password, given.password_file, given.ca_file) != (None,) * 4:
            raise SetupError("a login or an authority without a broker: add --broker HOST")
        return None, None
    if problem := _bad_address(address, False):
        raise SetupError(f"--broker {problem}")
    username = given.username or ask.text("User name at the broker (empty: none)", "") or None
    password = given.password
    if username and password is None and given.password_file is None:
        password = ask.secret("Its password (goes into a file that only its owner may read)") or None
        if password is None:
            raise SetupError(
                f"user {username!r} has no password: --password-file FILE, or --password-stdin, or none of both"
            )
    if username is None and (password is not None or given.password_file is not None):
        raise SetupError(f"a password without a user name: add --username {device}")
    return Broker(address, username, given.password_file, given.ca_file), password


def _bad_address(text: str, may_be_empty: bool) -> str | None:
    if may_be_empty and not text:
        return None
    try:
        split_address(text)
    except ValueError as error:
        return str(error)
    return None
