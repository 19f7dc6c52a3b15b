"""``axond check``: is the configuration right, without touching any device."""

import argparse
from pathlib import Path

from agent import config
from agent.cli.command import Command, add_config, add_json, print_json
from agent.composition import open_bundles, open_locators
from agent.locate import MODEL
from agent.mqtt import default_port
from agent.profile import MIB


def _configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)


def examine(path: Path) -> tuple[config.Config, dict[str, str]]:
    """A configuration, and the model of each of its pipelines. Raises ConfigError if anything in them is wrong."""
    settings = config.load(path)
    models = {name: bundle.id for name, bundle in open_bundles(settings).items()}
    return settings, models | dict.fromkeys(open_locators(settings), MODEL)


def _run(options: argparse.Namespace) -> int:
    settings, models = examine(options.config)
    uplink = settings.uplink
    facts = {
        "config": str(settings.path),
        "profile": settings.profile.facts(),
        "outbox": settings.outbox.model_dump(),
        "device": settings.device.id,
        "sensors": {name: sensor.kind for name, sensor in settings.sensors.items()},
        "pipelines": models,
        "mirrors": {name: mirror.kind for name, mirror in settings.mirrors.items()},
        "uplink": ", ".join([f"{uplink.host}:{uplink.port or default_port(uplink.ca_file)}", *uplink.fallbacks])
        if uplink
        else None,
    }
    if options.json:
        print_json(facts)
        return 0
    print(f"{settings.path}: right. Device {settings.device.id}.")
    print(f"  profile {settings.profile.name}: {_profile(settings)}")
    for name, sensor in settings.sensors.items():
        print(f"  sensor {name}: {sensor.kind}")
    for name, model in models.items():
        print(f"  pipeline {name}: {', '.join(settings.pipelines[name].sensors)} -> {model}")
    for name, mirror in settings.mirrors.items():
        print(f"  mirror {name}: {mirror.kind}")
    print(f"  uplink: {facts['uplink'] or 'none, results stay in the outbox'}")
    return 0


def _profile(settings: config.Config) -> str:
    """Why this one, and what holds with it; keys of the configuration have won already."""
    profile, outbox = settings.profile, settings.outbox
    told = [
        profile.reason,
        f"backend auto is {', '.join(profile.backends)}",
        f"outbox of {outbox.max_bytes / MIB:g} MiB, {outbox.keep_free_bytes / MIB:g} MiB kept free, "
        f"written every {outbox.commit_interval_s:g} s",
    ]
    told += ["cores of their own for sensors and pipelines"] if profile.pins else []
    told += ["sensors and pipelines before other programs"] if profile.urgent else []
    return "; ".join(told)


COMMAND = Command(
    "check",
    "check a configuration without touching any device",
    """Read the configuration and its models and say whether they are right and fit each other. No device is opened.

  axond check --config axond.toml
""",
    _configure,
    _run,
)
