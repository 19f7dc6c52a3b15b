"""A Sparkplug B edge node (specification 3.0): results as metrics of the node, ``STREAM/COLUMN``.

The specification demands QoS 0 and a clean session for data, so nothing here is acknowledged. What it asks of an edge
node and is kept: a will (NDEATH, QoS 1, not retained, without sequence number) whose ``bdSeq`` is that of the birth and
grows with each connection; NCMD subscribed before the birth; NBIRTH with sequence number 0, every metric with its type
and the value it has, and ``Node Control/Rebirth``; NDATA numbered 1 to 255, 0, ...; a rebirth on command and whenever
there is a new metric; NDEATH before a disconnection that is meant. Results that come late are marked as historical.
"""

import logging
from dataclasses import replace

from pydantic import Field

from agent.link import Birth, Death, Message, Received
from agent.mirrors.base import Device, captured_ns, columns
from agent.mirrors.broker_config import LoginConfig
from agent.mirrors.mqtt_mirror import MqttMirror
from agent.mirrors.sparkplug_payload import DataType, Metric, PayloadError, commands, encode
from agent.outbox_group import Queued
from agent.wire import Value, plain, wall_us

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
LATE_MS = 10_000
"""A result that is older when it is sent must not pass for the present value."""
TAKE_ROWS = 250
"""Results a message, which is then below the 128 KB that some brokers take, and ten messages a second at most: without
acknowledgements that is the only pace there is."""

_log = logging.getLogger(__name__)


class SparkplugConfig(LoginConfig):
    """``[mirrors.NAME]`` with ``kind = "sparkplug"``."""

    group_id: str = Field(default="axond", pattern=r"^[^/+#\x00]+$")
    edge_node_id: str | None = Field(default=None, pattern=r"^[^/+#\x00]+$")
    """None: the device's id."""


class Sparkplug(MqttMirror[SparkplugConfig]):
    """One edge node without devices."""

    Config = SparkplugConfig

    def __init__(self, name: str, cfg: SparkplugConfig, device: Device) -> None:
        super().__init__(name, cfg, device)
        self._node = cfg.edge_node_id or device.id
        self._now: dict[str, Metric] = {}
        """Every metric that was born, with its present value."""
        self._message_seq = 0
        self._bd_seq = 0
        self._bd_used = False
        self._birth_wanted = False
        self._garbled = False

    def birth(self) -> Birth:
        if self._bd_used:
            self._bd_seq = (self._bd_seq + 1) % 256
            self._bd_used = False
        return Birth((self._topic("NCMD"),), (self._born(),))

    def death(self) -> Death:
        return Death(self._died(), delay_s=0)

    def farewell(self) -> Message:
        return self._died()

    def joined(self) -> None:
        self._bd_used = True

    def received(self, received: Received) -> None:
        try:
            wanted = commands(received.payload).get(REBIRTH, False)
        except PayloadError as error:
            level = logging.DEBUG if self._garbled else logging.WARNING
            _log.log(level, "%s: %s is no Sparkplug payload: %s", self.name, received.topic, error)
            self._garbled = True
            return
        if wanted and not self._birth_wanted:
            _log.info("%s: birth asked for", self.name)
            self._birth_wanted = True

    def exchange(self) -> None:
        if self.slow():
            return
        if self._birth_wanted:
            self._birth_wanted = False
            self.publish(self._born())
        rows = self.copies.take(TAKE_ROWS)
        if not rows:
            return
        metrics = self._metrics(rows)
        born_anew = [m for m in metrics if m.name not in self._now or self._now[m.name].datatype is not m.datatype]
        if born_anew:
            self._now |= {m.name: replace(m, value=None, historical=False) for m in born_anew}
            self.publish(self._born())
        for metric in metrics:
            if metric.timestamp_ms >= self._now[metric.name].timestamp_ms:
                self._now[metric.name] = replace(metric, historical=False)
        self.publish(self._message("NDATA", metrics, self._next_seq()), rows)

    def _metrics(self, rows: list[Queued]) -> list[Metric]:
        """Numbers are Double. A column that had text once stays String, so that types do not flap."""
        now_ms, offset_us = wall_us() // 1000, self.clock.offset_us()
        cells: list[tuple[str, Value, int]] = []
        texts = {name for name, metric in self._now.items() if metric.datatype is DataType.STRING}
        for row in rows:
            time_ms = (captured_ns(row) // 1000 + offset_us) // 1000
            for column, raw in columns(row):
                name, value = f"{row.stream}/{column}", plain(raw)
                cells.append((name, value, time_ms))
                if isinstance(value, str):
                    texts.add(name)
        known = {name for name, value, _ in cells if value is not None} | self._now.keys()
        return [
            Metric(name, DataType.STRING, None if value is None else str(value), time_ms, now_ms - time_ms > LATE_MS)
            if name in texts
            else Metric(name, DataType.DOUBLE, _double(value), time_ms, now_ms - time_ms > LATE_MS)
            for name, value, time_ms in cells
            if name in known
        ]

    def _born(self) -> Message:
        now_ms = wall_us() // 1000
        self._message_seq = 0
        own = [
            Metric("bdSeq", DataType.INT64, self._bd_seq, now_ms),
            Metric(REBIRTH, DataType.BOOLEAN, False, now_ms),
        ]
        return self._message("NBIRTH", [*own, *self._now.values()], 0)

    def _died(self) -> Message:
        now_ms = wall_us() // 1000
        payload = encode([Metric("bdSeq", DataType.INT64, self._bd_seq, now_ms)], now_ms, None)
        return Message(self._topic("NDEATH"), payload, qos=1)

    def _next_seq(self) -> int:
        self._message_seq = (self._message_seq + 1) % 256
        return self._message_seq

    def _message(self, kind: str, metrics: list[Metric], seq: int) -> Message:
        return Message(self._topic(kind), encode(metrics, wall_us() // 1000, seq), qos=0)

    def _topic(self, kind: str) -> str:
        return f"{NAMESPACE}/{self.cfg.group_id}/{kind}/{self._node}"


def _double(value: Value) -> float | None:
    """Null for what a Double cannot hold."""
    try:
        return None if value is None else float(value)
    except OverflowError:
        return None


MIRROR = Sparkplug
