"""An installation in a folder: broker, hub and an agent whose made sensor gives results at an exact rate."""

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from agent.cli.command import CommandError
from agent.status import StatusUnavailable, ask
from hil.chaos.part import Part, axond, wait_for
from hil.demo import stage
from models import contract_networks
from models.base import ModelError

DEVICE = "chaos"
STREAM = "made"
START_S = 20.0
EMPTY_S = 60.0
_MODEL = "made-levels"


class Site:
    """Paths and processes. The made sensor's window moves by one sample: a result per sample, numbered by its time."""

    def __init__(self, folder: Path, *, addresses: tuple[str, ...] = ("127.0.0.1",)) -> None:
        """``addresses``: where the broker listens; the hub uses the first, the agent the last. Raises CommandError."""
        self.folder = folder
        self.state = folder / "state"
        self.hub_db = folder / "hub.db"
        self.port = stage.free_port()
        self._config = folder / "axond.toml"
        self.addresses = addresses
        self.outbox: Mapping[str, Any] = {}
        self.login: dict[str, str] = {}
        """Of the agent: more keys of ``[uplink]``."""
        self.broker = Part("broker", [find_mosquitto(), "-c", folder / "mosquitto.conf"], folder)
        self.hub = Part("hub", self._hub_command(), folder)
        self.agent = Part("agent", axond("run", "--config", str(self._config)), folder)
        self.write_broker()

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """Agent, broker and hub."""
        return self.agent, self.broker, self.hub

    def use_broker(self, agent_name: str, hub_name: str) -> None:
        """Another broker than ours, already in ``broker`` and ``port``; without ``hub_name`` it lets anybody in."""
        login = []
        if hub_name:
            password = self.folder / "password"
            password.write_text("any\n")
            self.login = {"username": agent_name, "password_file": str(password)}
            login = ["--username", hub_name, "--password-file", str(password)]
        self.hub.command = [*self._hub_command(), *login]

    def _hub_command(self) -> list[str]:
        at = ["--host", self.addresses[0], "--port", str(self.port)]
        return axond("hub", "run", *at, "--db", str(self.hub_db))

    def write_broker(self, extra: str = "") -> None:
        """mosquitto without persistence: whatever it holds is lost with it. ``extra``: more lines."""
        lines = [*(f"listener {self.port} {address}" for address in self.addresses), "allow_anonymous true"]
        lines += ["persistence false", *(["user root"] if os.geteuid() == 0 else []), extra]
        (self.folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def make_model(self, rate_hz: int) -> None:
        """A small network that decides about every sample anew. Raises CommandError."""
        changes: dict[str, Any] = {
            "name": _MODEL,
            "input": {"family": "imu", "channels": ["ax", "ay", "az", "gx", "gy", "gz"], "rate_hz": float(rate_hz)},
            "window": {"mode": "time", "samples": 1, "hop": 1},
            "encoder": {
                "kind": "levels",
                "rate_hz": float(rate_hz),
                "channels": ["ax"],
                "units": ["g"],
                "low": [-2.0],
                "high": [2.0],
                "steps": [],
            },
        }
        network = contract_networks.random_network(np.random.default_rng(4), 16, (8,), 3, recurrent=False)
        try:
            contract_networks.write_bundle(self.state / "models" / _MODEL, network, **changes)
        except ModelError as error:
            raise CommandError(str(error)) from error

    def write_agent(
        self,
        rate_hz: int,
        *,
        host: str = "",
        port: int | None = None,
        packet_ms: int = 20,
        outbox: Mapping[str, Any] | None = None,
        backends: Sequence[str] = ("reference",),
    ) -> None:
        """``rate_hz`` 0: no sensor. ``host`` and ``port``: default the broker's. ``outbox``: keys of ``[outbox]``."""
        self.outbox = outbox or {}
        tables: dict[str, Mapping[str, Any]] = {
            "device": {"id": DEVICE, "state_dir": str(self.state)},
            "uplink": {
                "host": host or self.addresses[-1],
                "port": port or self.port,
                "metrics_interval_s": 1,
                **self.login,
            },
            "outbox": self.outbox,
            "http": {"listen": []},
            "log": {"format": "text"},
        }
        if rate_hz:
            tables["sensors.imu0"] = {"driver": "synthetic", "rate_hz": rate_hz, "packet_ms": packet_ms}
            tables[f"pipelines.{STREAM}"] = {"sensors": ["imu0"], "model": _MODEL, "backend": list(backends)}
        lines = []
        for name, table in tables.items():
            # JSON's strings, numbers and empty lists are TOML's as well.
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        self._config.write_text("\n".join(lines) + "\n")

    def status(self) -> dict[str, Any]:
        """What the agent says of itself; empty while none answers."""
        try:
            return ask(self.state)
        except StatusUnavailable:
            return {}

    def start_broker(self) -> None:
        """Returns once it accepts connections. Raises CommandError."""
        self.broker.start()
        wait_for("the broker accepts connections", self._accepts, START_S)

    def _accepts(self) -> bool:
        if not self.broker.running:
            raise CommandError(f"the broker ended by itself: {self.broker.tail()}")
        return all(accepts(self.port, address) for address in self.addresses)

    def start(self) -> None:
        """All three, and results at the hub. Raises CommandError."""
        self.start_broker()
        self.hub.start()
        self.agent.start()
        wait_for("results are delivered", self.delivers, START_S)

    def delivers(self) -> bool:
        """Whether the running agent has had results acknowledged."""
        uplink = self.status().get("uplink") or {}
        return bool(uplink.get("delivered"))

    def connected(self) -> bool:
        """Whether the running agent has a connection and the broker has answered lately."""
        uplink = self.status().get("uplink") or {}
        return bool(uplink.get("connected"))

    def run_empty(self) -> None:
        """Ends the flow: an agent without sensors sends what is left, and stops. Raises CommandError if it cannot."""
        self.agent.stop()
        self.write_agent(0, outbox=self.outbox)
        self.agent.start()
        try:
            wait_for("an empty outbox", self._is_empty, EMPTY_S)
        except CommandError as error:
            facts = self.status()
            left = {key: facts.get(key) for key in ("outbox", "uplink", "ledger", "health")}
            raise CommandError(f"{error}; the agent says {left} and {self.agent.tail()}") from error
        self.agent.stop()

    def _is_empty(self) -> bool:
        outbox = self.status().get("outbox") or {}
        return outbox.get("batches") == 0

    def end(self) -> None:
        """Nothing runs any more."""
        for part in self.parts:
            part.thaw()
            part.kill()


@contextmanager
def site(folder: Path, *, addresses: tuple[str, ...] = ("127.0.0.1",)) -> Iterator[Site]:
    """A site whose processes end with the block. Raises CommandError."""
    made = Site(folder, addresses=addresses)
    try:
        yield made
    finally:
        made.end()


def accepts(port: int, address: str = "127.0.0.1") -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((address, port)) == 0


def find_mosquitto() -> str:
    """The broker's binary. Raises CommandError."""
    binary = stage.find_mosquitto()
    if binary is None:
        raise CommandError("mosquitto is not installed (apt install mosquitto)")
    return binary
