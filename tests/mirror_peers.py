"""What mirrors are tried on: results, a device, a listener on a broker, and a real influxd."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlencode

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.mirrors.base import Device
from agent.outbox_group import Queued
from tests.brokers import Service, free_port, tail_of
from tests.conftest import eventually

INFLUXD = shutil.which("influxd")
START_S = 20.0


def row(number: int, stream: str = "kw", **values: Any) -> Queued:
    """A committed result, captured now."""
    now_ns = time.monotonic_ns()
    return Queued(stream, {"t_ns": now_ns, "label": "yes", "score": 0.5, "number": number, **values}, 1, now_ns)


def rows(count: int, stream: str = "kw") -> Sequence[Queued]:
    return [row(number, stream) for number in range(count)]


def device(**changes: Any) -> Device:
    info = {
        "agent": "1.2.3",
        "boot": "b0",
        "streams": {"kw": {"columns": {"label": "", "score": ""}, "model": "m"}},
        "sensors": {"mic0": "audio.alsa"},
    }
    facts: dict[str, Any] = {
        "id": "dev7",
        "agent_version": "1.2.3",
        "info": lambda: info,
        "metrics": lambda: {"outbox_rows": 3.0, "up_s": 12.5},
        "health": lambda: {"state": "ok", "summary": "ok"},
    }
    return Device(**{**facts, **changes})


class Listener:
    """Everything that a broker passes on, in order."""

    def __init__(self, port: int, *filters: str) -> None:
        self._lock = Lock()
        self._messages: list[MQTTMessage] = []
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.on_message = self._took
        subscribed: list[int] = []
        self.client.on_subscribe = lambda *_: subscribed.append(1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe([(topic, 1) for topic in filters or ("#",)])
        eventually(lambda: subscribed, "the listener's subscription")

    def _took(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        with self._lock:
            self._messages.append(message)

    def messages(self, ending: str = "") -> list[MQTTMessage]:
        with self._lock:
            return [message for message in self._messages if message.topic.endswith(ending)]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Influxd(Service):
    """A real InfluxDB 1 in a folder of its own; killed, frozen and started again at will."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._log = folder / "influxd.log"
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "influxdb.conf"
        self._config.write_text(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{free_port()}"\n'
            f'[meta]\ndir = "{folder}/meta"\n[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\n'
            f'[http]\nbind-address = "127.0.0.1:{self.port}"\n[monitor]\nstore-enabled = false\n'
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Influxd":
        """Returns once it answers and has the database ``axond``."""
        if INFLUXD is None:
            raise RuntimeError("influxd is not installed")
        with self._log.open("ab") as sink:
            self._process = subprocess.Popen([INFLUXD, "-config", self._config], stdout=sink, stderr=sink)
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s and self._process.poll() is None:
            with contextlib.suppress(OSError, urllib.error.URLError):
                self._ask("POST", {"q": "CREATE DATABASE axond"})
                return self
        self.kill()
        raise RuntimeError(f"influxd did not start: {tail_of(self._log)}")

    def write(self, body: str) -> None:
        """Writes lines past every mirror. Raises urllib's HTTPError for lines that are not right."""
        request = urllib.request.Request(f"{self.url}/write?db=axond", body.encode(), method="POST")
        urllib.request.urlopen(request, timeout=10).close()

    def query(self, text: str) -> list[dict[str, Any]]:
        """The series of an InfluxQL query; times in nanoseconds."""
        found: list[dict[str, Any]] = self._ask("GET", {"q": text, "db": "axond", "epoch": "ns"}).get("series", [])
        return found

    def count(self, stream: str) -> int:
        series = self.query(f'SELECT COUNT("score") FROM "{stream}"')
        return int(series[0]["values"][0][1]) if series else 0

    def _ask(self, method: str, query: dict[str, str]) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/query?{urlencode(query)}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            result: dict[str, Any] = json.loads(answer.read())["results"][0]
        if "error" in result:
            raise RuntimeError(f"influxd: {result['error']}")
        return result
