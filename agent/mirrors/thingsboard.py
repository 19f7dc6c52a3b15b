"""ThingsBoard's MQTT device API: telemetry with the device's own times, attributes at each connection.

https://thingsboard.io/docs/reference/mqtt-api/: the access token is the user name; ``v1/devices/me/telemetry`` takes
``[{"ts": milliseconds, "values": {...}}, ...]``, ``v1/devices/me/attributes`` a flat object. ThingsBoard refuses
messages above 64 KiB.
"""

from dataclasses import replace

from agent.credentials import CredentialPath
from agent.link import Birth, Message
from agent.messages import to_json
from agent.mirrors.base import captured_ns, columns
from agent.mirrors.broker_config import BrokerConfig
from agent.mirrors.mqtt_mirror import MqttMirror
from agent.mqtt import Broker
from agent.outbox_group import Queued
from agent.wire import CONTENT_TYPE, plain

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
MAX_BYTES = 60_000
TAKE_ROWS = 500
"""At 10 messages under way at once thousands a second, more than ThingsBoard takes."""


class ThingsBoardConfig(BrokerConfig):
    """``[mirrors.NAME]`` with ``kind = "thingsboard"``."""

    token_file: CredentialPath
    """The device's access token."""

    def broker(self) -> Broker:
        """The user name is the token, read anew; whoever logs in with a token needs no password."""
        return replace(super().broker(), username=self.token_file.read_text("utf-8").strip())


class ThingsBoard(MqttMirror[ThingsBoardConfig]):
    """One device; a key is the stream and the column: ``keyword_label``."""

    Config = ThingsBoardConfig

    def birth(self) -> Birth:
        info = self.device.info()
        facts = {"agent": self.device.agent_version, "device": self.device.id, "boot": info["boot"]}
        models = {f"{name}_model": stream["model"] for name, stream in info["streams"].items()}
        return Birth(messages=(Message(ATTRIBUTES, to_json({**facts, **models}), content_type=CONTENT_TYPE),))

    def death(self) -> None:
        """ThingsBoard sees by itself that a connection ends."""

    def farewell(self) -> None:
        """See ``death``."""

    def exchange(self) -> None:
        while self.room() > 0 and (rows := self.copies.take(TAKE_ROWS)):
            offset_us = self.clock.offset_us()
            batch: list[Queued] = []
            parts: list[bytes] = []
            size = 1
            for i, row in enumerate(rows):
                part = _telemetry(row, offset_us)
                if len(part) + 2 > MAX_BYTES:
                    self.refused += 1
                    self.outage.refused(
                        f"{self.name}: a result of {row.stream} has {len(part)} bytes, above {MAX_BYTES}"
                    )
                    continue
                if size + len(part) + 1 > MAX_BYTES:
                    self.copies.give_back(rows[i:])
                    break
                batch.append(row)
                parts.append(part)
                size += len(part) + 1
            if batch:
                body = b"[" + b",".join(parts) + b"]"
                self.publish(Message(TELEMETRY, body, content_type=CONTENT_TYPE), batch)


def _telemetry(row: Queued, offset_us: int) -> bytes:
    values = {f"{row.stream}_{name}": plain(value) for name, value in columns(row)}
    known = {name: value for name, value in values.items() if value is not None}
    return to_json({"ts": (captured_ns(row) // 1000 + offset_us) // 1000, "values": known})


MIRROR = ThingsBoard
