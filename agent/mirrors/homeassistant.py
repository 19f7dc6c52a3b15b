"""Home Assistant by MQTT discovery: one device, per stream a label and a score, and how the agent is.

Documents as in https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery and .../sensor.mqtt/: retained
configuration at ``homeassistant/sensor/DEVICE/OBJECT/config``, states as flat JSON below a topic of our own. Home
Assistant wants to know the latest: of the results of one stream at most one a second is sent, the others are skipped.
"""

import time
from collections import deque
from typing import Any

from pydantic import Field

from agent.link import Birth, Death, Message
from agent.messages import to_json
from agent.mirrors.base import Device, captured_ns, columns
from agent.mirrors.broker_config import LoginConfig
from agent.mirrors.mqtt_mirror import MqttMirror
from agent.outbox_group import Queued
from agent.topics import ROOT_PATTERN
from agent.wire import CONTENT_TYPE, iso_time, plain

STATE_S = 1.0
HEALTH_S = 30.0
HEALTH_EXPIRES_S = 100
WILL_DELAY_S = 10
TAKE_ROWS = 2000

_RESULT_ENTITIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("label", "{{ value_json.label }}", {"icon": "mdi:brain"}),
    ("score", "{{ value_json.score }}", {"state_class": "measurement", "suggested_display_precision": 2}),
)
_HEALTH_ENTITIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("health", "{{ value_json.state }}", {"device_class": "enum", "options": ["ok", "degraded", "failed"]}),
    ("pending", "{{ value_json.pending }}", {"state_class": "measurement", "unit_of_measurement": "results"}),
    ("up", "{{ value_json.up_s }}", {"device_class": "duration", "unit_of_measurement": "s"}),
)


class HomeAssistantConfig(LoginConfig):
    """``[mirrors.NAME]`` with ``kind = "homeassistant"``."""

    discovery_prefix: str = Field(default="homeassistant", pattern=f"^{ROOT_PATTERN}$")
    topic_root: str = Field(default="axond/homeassistant", pattern=f"^{ROOT_PATTERN}$")
    """States are published below this topic and the device's id."""
    expire_after_s: int | None = Field(default=None, ge=1)
    """A stream without results for this long becomes unavailable. None: its last result stands, also after a restart
    of Home Assistant (the broker keeps it)."""


class HomeAssistant(MqttMirror[HomeAssistantConfig]):
    """Publishes discovery documents and the latest state of each stream."""

    Config = HomeAssistantConfig

    def __init__(self, name: str, cfg: HomeAssistantConfig, device: Device) -> None:
        super().__init__(name, cfg, device)
        self._root = f"{cfg.topic_root}/{device.id}"
        self._untold: deque[Message] = deque()
        """Discovery documents that this connection has not carried yet."""
        self._latest: dict[str, Queued] = {}
        self._due_s: dict[str, float] = {}
        self._health_due_s = 0.0

    def birth(self) -> Birth:
        return Birth(messages=(self._availability("online"),))

    def death(self) -> Death:
        return Death(self._availability("offline"), WILL_DELAY_S)

    def farewell(self) -> Message:
        return self._availability("offline")

    def joined(self) -> None:
        # Not part of the birth: that is one message at a time, all within seconds, and nobody hears of a refusal.
        self._untold = deque(self._discovery(sorted(self.device.info()["streams"])))
        self._health_due_s = 0.0

    def unsent(self) -> list[Queued]:
        rows = sorted(self._latest.values(), key=lambda row: row.put_ns)
        self._latest.clear()
        return rows

    def under_way(self) -> int:
        return super().under_way() + len(self._latest)

    def exchange(self) -> None:
        now_s = time.monotonic()
        while self._untold and self.room() > 0:
            self.publish(self._untold.popleft())
        for row in self.copies.take(TAKE_ROWS):
            self.skipped += row.stream in self._latest
            self._latest[row.stream] = row
        for stream in [s for s in self._latest if now_s >= self._due_s.get(s, 0.0)]:
            if self.room() <= 0:
                return
            self._due_s[stream] = now_s + STATE_S
            row = self._latest.pop(stream)
            self.publish(self._state(stream, row), (row,))
        if now_s >= self._health_due_s and self.room() > 0:
            self._health_due_s = now_s + HEALTH_S
            self.publish(self._health())

    def _discovery(self, streams: list[str]) -> list[Message]:
        messages = []
        for stream in streams:
            topic = f"{self._root}/state/{stream}"
            for column, template, more in _RESULT_ENTITIES:
                document = {"name": f"{stream} {column}", "state_topic": topic, "value_template": template, **more}
                if column == "label":
                    document["json_attributes_topic"] = topic
                if self.cfg.expire_after_s is not None:
                    document["expire_after"] = self.cfg.expire_after_s
                messages.append(self._config(f"{stream}_{column}", document))
        for thing, template, more in _HEALTH_ENTITIES:
            document = {"name": thing, "state_topic": f"{self._root}/health", "value_template": template, **more}
            document |= {"expire_after": HEALTH_EXPIRES_S, "entity_category": "diagnostic"}
            # A stream may have the name of one of these: the prefix keeps them apart.
            messages.append(self._config(f"agent-{thing}", document))
        return messages

    def _config(self, thing: str, document: dict[str, Any]) -> Message:
        device = self.device
        document |= {
            # No name has a dot: device "a" with stream "b_c" is not device "a_b" with stream "c".
            "unique_id": f"axond.{device.id}.{thing}",
            "availability_topic": f"{self._root}/availability",
            "payload_available": "online",
            "payload_not_available": "offline",
            "qos": 1,
            "device": {
                "identifiers": [f"axond_{device.id}"],
                "name": device.id,
                "manufacturer": "axond",
                "sw_version": device.agent_version,
            },
            "origin": {"name": "axond", "sw_version": device.agent_version},
        }
        topic = f"{self.cfg.discovery_prefix}/sensor/{device.id}/{thing}/config"
        return Message(topic, to_json(document), retain=True, content_type=CONTENT_TYPE)

    def _availability(self, state: str) -> Message:
        return Message(f"{self._root}/availability", state.encode(), retain=True)

    def _state(self, stream: str, row: Queued) -> Message:
        values = {name: plain(value) for name, value in columns(row)}
        values["time"] = iso_time(captured_ns(row) // 1000 + self.clock.offset_us())
        # A retained state that is to expire would come to life again with each restart of Home Assistant.
        keep = self.cfg.expire_after_s is None
        return Message(f"{self._root}/state/{stream}", to_json(values), retain=keep, content_type=CONTENT_TYPE)

    def _health(self) -> Message:
        health, metrics = self.device.health(), self.device.metrics()
        facts = {"state": health["state"], "summary": health["summary"]}
        numbers = {"pending": metrics["outbox_rows"], "up_s": metrics["up_s"]}
        return Message(f"{self._root}/health", to_json({**facts, **numbers}), content_type=CONTENT_TYPE)


MIRROR = HomeAssistant
