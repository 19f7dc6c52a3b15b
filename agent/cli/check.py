"""``axond check``: is the configuration right, without touching any device."""

import argparse

from agent import config
from agent.cli.command import Command, add_config, add_json, print_json
from agent.composition import open_bundles, open_locators
from agent.locate import MODEL
from agent.mqtt import default_port


def _configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    models = {name: bundle.id for name, bundle in open_bundles(settings).items()}
    models |= dict.fromkeys(open_locators(settings), MODEL)
    uplink = settings.uplink
    facts = {
        "config": str(settings.path),
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
    for name, sensor in settings.sensors.items():
        print(f"  sensor {name}: {sensor.kind}")
    for name, model in models.items():
        print(f"  pipeline {name}: {', '.join(settings.pipelines[name].sensors)} -> {model}")
    for name, mirror in settings.mirrors.items():
        print(f"  mirror {name}: {mirror.kind}")
    print(f"  uplink: {facts['uplink'] or 'none, results stay in the outbox'}")
    return 0


COMMAND = Command(
    "check",
    "check a configuration without touching any device",
    """Read the configuration and its models and say whether they are right and fit each other. No device is opened.

  axond check --config axond.toml
""",
    _configure,
    _run,
)
