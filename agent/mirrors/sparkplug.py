"""A Sparkplug B edge node (specification 3.0): results as metrics of the node, ``STREAM/COLUMN``.

The specification demands QoS 0 and a clean session for data, so nothing here is acknowledged. What it asks of an edge
node and is kept: a will (NDEATH, QoS 1, not retained, without sequence number) whose ``bdSeq`` is that of the birth and
grows with each connection; NCMD subscribed before the birth; NBIRTH with sequence number 0, every metric with its type
and the value it has, and ``Node Control/Rebirth``; NDATA numbered 1 to 255, 0, ...; a rebirth on command and whenever
there is a new metric; NDEATH before a disconnection that is meant. Results that come late are marked as historical.
"""

import logging
import time
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

REBIRTH_S = 1.0
"""A birth that is asked for comes no sooner than this after the last one."""
ASKED_S = 60.0
"""Being asked for births is news if it did not happen for so long."""

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
        self._captured_ns: dict[str, int] = {}
        """When the present values were captured: wall clocks are corrected, this is not."""
        self._message_seq = 0
        self._bd_seq = -1
        self._birth_wanted = False
        self._born_s = 0.0
        self._asked_s = -ASKED_S
        self._garbled = False

    def birth(self) -> Birth:
        # Even if the last attempt was not answered: its death may be on its way, and must not pass for this one's.
        self._bd_seq = (self._bd_seq + 1) % 256
        return Birth((self._topic("NCMD"),), (self._born(),))

    def death(self) -> Death:
        return Death(self._died(), delay_s=0)

    def farewell(self) -> Message:
        return self._died()

    def received(self, received: Received) -> None:
        try:
            wanted = commands(received.payload).get(REBIRTH, False)
        except PayloadError as error:
            level = logging.DEBUG if self._garbled else logging.WARNING
            _log.log(level, "%s: %s is no Sparkplug payload: %s", self.name, received.topic, error)
            self._garbled = True
            return
        if wanted:
            now_s = time.monotonic()
            level = logging.INFO if now_s - self._asked_s >= ASKED_S else logging.DEBUG
            _log.log(level, "%s: birth asked for", self.name)
            self._birth_wanted, self._asked_s = True, now_s

    def exchange(self) -> None:
        if self.slow():
            return
        if self._birth_wanted:
            # The specification wants no data between the command and the birth.
            if time.monotonic() - self._born_s < REBIRTH_S:
                return
            self.publish(self._born())
        rows = self.copies.take(TAKE_ROWS)
        if not rows:
            return
        metrics = self._metrics(rows)
        born_anew = [m for m, _ in metrics if m.name not in self._now or self._now[m.name].datatype is not m.datatype]
        if born_anew:
            self._now |= {m.name: replace(m, value=None, historical=False) for m in born_anew}
            self._captured_ns |= {m.name: 0 for m in born_anew}
            self.publish(self._born())
        for metric, at_ns in metrics:
            if at_ns >= self._captured_ns[metric.name]:
                self._now[metric.name] = replace(metric, historical=False)
                self._captured_ns[metric.name] = at_ns
        self.publish(self._message("NDATA", [metric for metric, _ in metrics], self._next_seq()), rows)

    def _metrics(self, rows: list[Queued]) -> list[tuple[Metric, int]]:
        """With the time of capture. Numbers are Double.

        A column that had text once stays String, so that types do not flap.
        """
        now_ms, offset_us = wall_us() // 1000, self.clock.offset_us()
        cells: list[tuple[str, Value, int]] = []  # with the time of capture
        texts = {name for name, metric in self._now.items() if metric.datatype is DataType.STRING}
        for row in rows:
            at_ns = captured_ns(row)
            for column, raw in columns(row):
                name, value = f"{row.stream}/{column}", plain(raw)
                cells.append((name, value, at_ns))
                if isinstance(value, str):
                    texts.add(name)
        known = {name for name, value, _ in cells if value is not None} | self._now.keys()
        metrics = []
        for name, value, at_ns in cells:
            if name not in known:
                continue
            time_ms = (at_ns // 1000 + offset_us) // 1000
            kind = DataType.STRING if name in texts else DataType.DOUBLE
            shown = _double(value) if kind is DataType.DOUBLE else None if value is None else str(value)
            metrics.append((Metric(name, kind, shown, time_ms, now_ms - time_ms > LATE_MS), at_ns))
        return metrics

    def _born(self) -> Message:
        now_ms = wall_us() // 1000
        self._message_seq = 0
        self._birth_wanted, self._born_s = False, time.monotonic()
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
