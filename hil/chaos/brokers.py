"""Brokers from Debian packages, each in a folder of its own, on loopback, with nothing of the system's."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.cli.command import CommandError
from hil.chaos.part import Part
from hil.chaos.site import find_mosquitto
from hil.demo import stage

_RABBIT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_ERLANG_LIBS = Path("/usr/lib/x86_64-linux-gnu")
MOSQUITTO_TUNED = ("max_queued_messages 100000", "max_inflight_messages 1000", "set_tcp_nodelay true")


@dataclass(frozen=True, slots=True)
class Running:
    """A broker that is not started yet, and what else it needs."""

    port: int
    part: Part
    helpers: tuple[Part, ...] = ()
    """Started before it, stopped after it."""
    domain: str = ""
    """Where user names are needed they end like this; any password is right."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of broker."""

    package: str
    """Of Debian."""
    mqtt: str
    prepare: Callable[[Path], Running]
    """Writes its configuration into a folder. Raises CommandError when it is not installed."""
    start_s: float = 20.0
    """Until it accepts connections."""


def _mosquitto(folder: Path, *lines: str) -> Running:
    port = stage.free_port()
    settings = folder / "mosquitto.conf"
    root = ["user root"] if os.geteuid() == 0 else []
    settings.write_text("\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *root, *lines]) + "\n")
    return Running(port, Part("broker", [find_mosquitto(), "-c", settings], folder))


def _ejabberd(folder: Path) -> Running:
    port = stage.free_port()
    settings = folder / "ejabberd.yml"
    settings.write_text(
        "loglevel: warning\nhosts: [localhost]\nauth_method: anonymous\nanonymous_protocol: login_anon\n"
        "allow_multiple_connections: true\nlisten:\n"
        f'  - port: {port}\n    ip: "127.0.0.1"\n    module: mod_mqtt\n    backlog: 100\nmodules:\n  mod_mqtt: {{}}\n'
    )
    environment = {
        "HOME": str(folder),
        "EJABBERD_CONFIG_PATH": str(settings),
        "EJABBERD_LOG_PATH": str(folder / "ejabberd.log"),
        "ERL_CRASH_DUMP": str(folder / "crash"),
        "ERL_LIBS": str(_ERLANG_LIBS),
    }
    if shutil.which("ejabberdctl") is None:
        raise CommandError("ejabberd is not installed")
    command = ["erl", "-noinput", "-mnesia", "dir", f'"{folder / "db"}"', "-s", "ejabberd"]
    return Running(port, Part("broker", command, folder, environment), domain="@localhost")


def _rabbitmq(folder: Path) -> Running:
    if not _RABBIT.exists():
        raise CommandError("rabbitmq-server is not installed")
    port, node_port, names_port = stage.free_port(), stage.free_port(), stage.free_port()
    settings, plugins = folder / "rabbitmq.conf", folder / "plugins"
    settings.write_text(
        f"listeners.tcp = none\nmqtt.listeners.tcp.1 = 127.0.0.1:{port}\nmqtt.allow_anonymous = true\n"
        "log.console = true\nlog.console.level = warning\n"
    )
    plugins.write_text("[rabbitmq_mqtt].\n")
    environment = {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(names_port),
        "RABBITMQ_ALLOW_INPUT": "1",
        "RABBITMQ_BASE": str(folder),
        "RABBITMQ_CONFIG_FILE": str(settings),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_DIST_PORT": str(node_port),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_MNESIA_BASE": str(folder / "db"),
        "RABBITMQ_NODENAME": f"axond{port}@localhost",
        "RABBITMQ_PID_FILE": str(folder / "pid"),
    }
    # Erlang's name server would outlive the broker: one of our own, on a port of its own, does not.
    names = Part("epmd", ["epmd", "-port", str(names_port), "-address", "127.0.0.1"], folder)
    return Running(port, Part("broker", [_RABBIT, "-noinput"], folder, environment), (names,))


def _nats(folder: Path) -> Running:
    if shutil.which("nats-server") is None:
        raise CommandError("nats-server is not installed")
    port = stage.free_port()
    settings = folder / "nats.conf"
    settings.write_text(
        f"server_name: axond\nlisten: 127.0.0.1:{stage.free_port()}\n"
        f'jetstream {{ store_dir: "{folder / "store"}" }}\nmqtt {{ listen: "127.0.0.1:{port}" }}\n'
    )
    return Running(port, Part("broker", ["nats-server", "-c", settings], folder))


KINDS = {
    "mosquitto": Kind("mosquitto", "5", _mosquitto),
    "mosquitto-tuned": Kind("mosquitto", "5", lambda folder: _mosquitto(folder, *MOSQUITTO_TUNED)),
    "ejabberd": Kind("ejabberd", "5", _ejabberd),
    "rabbitmq": Kind("rabbitmq-server", "3.1.1", _rabbitmq, start_s=60.0),
    "nats": Kind("nats-server", "3.1.1", _nats),
}
