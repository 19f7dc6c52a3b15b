"""A hub in memory on a bare paho client: takes batches in any order and answers with watermarks, as the tests want."""

import json
import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.wire import Batch, decode

Key = tuple[str, str, str]
"""Device, boot, stream."""


class RawHub:
    """Everything it knows is lost with it. ``takes`` decides which batches it hears of; ``mute`` stops its answers."""

    def __init__(
        self,
        port: int,
        *,
        name: str = "rawhub",
        mqtt5: bool = True,
        persistent: bool = False,
        takes: Callable[[Batch], bool] = lambda batch: True,
    ) -> None:
        self.batches: list[tuple[float, Batch]] = []
        """Time of arrival and batch, in the order of arrival, also what came twice."""
        self.missing: set[tuple[Key, int]] = set()
        """Numbers that a gap record gave up."""
        self.mute = False
        self._port = port
        self._persistent = persistent
        self._mqtt5 = mqtt5
        self._takes = takes
        self._stored: dict[Key, set[int]] = {}
        self._lock = Lock()
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311,
            clean_session=None if mqtt5 else not persistent,
        )
        self._client.on_connect = lambda client, *_: client.subscribe("axond/v1/+/up/res/+", 1)
        self._client.on_message = self._on_message

    def start(self) -> "RawHub":
        if self._mqtt5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types here
            properties.SessionExpiryInterval = 3600 if self._persistent else 0
            self._client.connect("127.0.0.1", self._port, clean_start=not self._persistent, properties=properties)
        else:
            self._client.connect("127.0.0.1", self._port)
        self._client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]  # fractions work
        self._client.loop_start()
        return self

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def numbers(self, boot: str = "b1", stream: str = "kw", device: str = "d1") -> list[int]:
        """What it has, without gaps."""
        key = (device, boot, stream)
        with self._lock:
            return sorted(seq for seq in self._stored.get(key, set()) if (key, seq) not in self.missing)

    def forget(self) -> None:
        """As a hub with a new store."""
        with self._lock:
            self._stored.clear()
            self.missing.clear()

    def answer(self, boot: str = "b1", stream: str = "kw", device: str = "d1", **more: Any) -> None:
        """Says how far it is."""
        stored = self._stored.get((device, boot, stream), set())
        upto = 0
        while upto + 1 in stored:
            upto += 1
        have: list[list[int]] = []
        for seq in sorted(seq for seq in stored if seq > upto):
            if have and have[-1][1] == seq - 1:
                have[-1][1] = seq
            else:
                have.append([seq, seq])
        document: dict[str, Any] = {"boot": boot, "upto": upto, **more}
        if have:
            document["have"] = have[:64]
        topic = f"axond/v1/{device}/down/ack/{stream}"
        self._client.publish(topic, json.dumps(document), qos=1, retain=True)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if message.retain:
            return
        device, batch = message.topic.split("/")[2], decode(bytes(message.payload))
        key = (device, batch.boot, batch.stream)
        if not self._takes(batch):
            return
        with self._lock:
            self.batches.append((time.monotonic(), batch))
            stored = self._stored.setdefault(key, set())
            new = set(range(batch.seq0, batch.seq1 + 1)) - stored
            stored |= new
            if batch.cause:
                self.missing |= {(key, seq) for seq in new}
            if not self.mute:
                self.answer(batch.boot, batch.stream, device)
