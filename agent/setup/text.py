"""The configuration as text: TOML with comments that teach."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.setup.propose import Plan
from agent.uplink_config import split_address

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


@dataclass(frozen=True, slots=True)
class Broker:
    """Where results go."""

    address: str
    """``host`` or ``host:port``."""
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """All that is known when the questions are over."""

    device: str
    region: str
    profile: str
    state_dir: Path
    plan: Plan
    broker: Broker | None
    board: str
    """What the profile says of this machine."""


def value(item: Any) -> str:
    """One value as TOML has it."""
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, int | float):
        return repr(item)
    if isinstance(item, list | tuple):
        return f"[{', '.join(map(value, item))}]"
    if isinstance(item, Mapping):
        return f"{{{', '.join(f'{value(str(key))} = {value(one)}' for key, one in item.items())}}}"
    return f'"{"".join(map(_character, str(item)))}"'


def _character(one: str) -> str:
    escaped = _ESCAPES.get(one)
    return escaped or (f"\\u{ord(one):04X}" if ord(one) < 32 or ord(one) == 127 else one)


def _comment(text: str) -> str:
    """What a device says of itself is no TOML."""
    return "# " + "".join(one if one.isprintable() else " " for one in text)


def render(answers: Answers) -> str:
    """The whole file."""
    return "\n".join([*_device(answers), *_sensors(answers.plan), *_pipelines(answers.plan), *_uplink(answers), ""])


def _device(answers: Answers) -> Iterator[str]:
    yield "# Written by axond setup. Change what you like; whether it is right says: axond check"
    yield "# Files in axond.toml.d/*.toml beside this one are read after it, and what they say holds."
    yield ""
    yield "[device]"
    yield "# The name of this device in topics, at the broker and at the hub: never change it while results wait."
    yield f"id = {value(answers.device)}"
    yield f"region = {value(answers.region)}"
    yield "# auto, jetson, nuc, pi or generic: cores, priorities, order of backends, size and pace of the outbox."
    yield _comment(f"On this machine auto is {answers.board}")
    yield f"profile = {value(answers.profile)}"
    yield "# Outbox and models. One agent per folder."
    yield f"state_dir = {value(str(answers.state_dir))}"


def _sensors(plan: Plan) -> Iterator[str]:
    yield ""
    if not plan.sensors:
        yield "# No sensor yet. What is plugged in: axond sensors list; which driver and settings: axond sensors probe"
    for name, table in plan.sensors.items():
        yield f"[sensors.{name}]"
        yield _comment(plan.places[name])
        yield from (f"{key} = {value(item)}" for key, item in table.items())
        if name in plan.unused:
            yield _comment(f"Not used by a pipeline: {plan.unused[name]}")
        yield ""


def _pipelines(plan: Plan) -> Iterator[str]:
    if plan.pipelines:
        yield "# A pipeline's name is the stream of its results. The models that are here: axond model info NAME"
    for name, (sensors, model) in plan.pipelines.items():
        yield f"[pipelines.{name}]"
        yield f"sensors = {value(sensors)}"
        yield f"model = {value(model)}"
        yield '# report = "on_change"    # every, on_change, threshold, detect; without it as the model wants'
        yield '# backend = "auto"        # or akida, lava, onnx, tflite, reference, or a list of them'
        yield ""


def _uplink(answers: Answers) -> Iterator[str]:
    broker = answers.broker
    if broker is None:
        yield "# Without this table results stay in the outbox: axond outbox export"
        yield "# [uplink]"
        yield '# host = "broker.example"'
        yield f"# username = {value(answers.device)}"
        yield '# password_file = "/etc/axond/credentials/mqtt-password"'
        return
    host, port = split_address(broker.address)
    yield "[uplink]"
    yield f"host = {value(host)}"
    if port is not None:
        yield f"port = {port}"
    if broker.username is not None:
        yield f"username = {value(broker.username)}"
    if broker.password_file is not None:
        yield "# The password is in that file alone."
        yield f"password_file = {value(str(broker.password_file))}"
    if broker.ca_file is not None:
        yield f"ca_file = {value(str(broker.ca_file))}"
    else:
        yield '# ca_file = "/etc/axond/ca.pem"    # switches TLS on'
    yield '# ack = "hub"    # a result is deleted here when a hub has stored it; "broker" where there is no axond hub'
