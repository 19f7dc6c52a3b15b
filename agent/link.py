"""The contract of a link: something that carries messages to a broker and answers only with events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol, TypeAlias

SUCCESS = 0x00
NO_SUBSCRIBERS = 0x10
"""PUBACK: the broker took the message and threw it away, because nobody subscribes."""
FIRST_ERROR = 0x80
"""MQTT 5 reason codes from here on mean that the message was refused."""
QUOTA_EXCEEDED = 0x97
"""Refused whatever its topic: the broker takes nothing more for now."""
FEW = 4
GATHER_S = 0.1
"""Answers to so few messages may be posted so late, to be heard together: each would wake a thread."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish. ``properties`` travel as MQTT 5 user properties."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    content_type: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Birth:
    """What a link does by itself on each connection, before it posts ``Connected``."""

    subscriptions: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Death:
    """The will: what the broker publishes ``delay_s`` after it has lost the device."""

    message: Message
    delay_s: int = 30


@dataclass(frozen=True, slots=True)
class Connected:
    receive_max: int = 65535
    """How many messages the broker takes without having acknowledged them."""
    broker: str = ""
    """Host and port of the one that was reached."""
    mqtt: str = "5"
    """``5``, or ``3.1.1``: no properties, no reasons, no window of the broker's, a will without delay."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection failed or ended; nothing follows until the next ``start``."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Acked:
    """The broker's answer to ``send(seq, ...)``: an MQTT 5 reason code and its name."""

    seq: int
    code: int = SUCCESS
    name: str = "Success"


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the broker. ``mid`` is what ``acknowledge`` of a link with manual acknowledgement wants."""

    topic: str
    payload: bytes
    retain: bool = False
    mid: int = 0
    qos: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)


Event: TypeAlias = Connected | Disconnected | Acked | Received


class Link(Protocol):
    """Carries messages. One thread calls it; it answers only with events and raises nothing.

    After ``start`` exactly one ``Connected`` or ``Disconnected`` follows; after ``Connected`` at most one
    ``Disconnected``. The caller then calls ``stop`` and may ``start`` again. A link keeps no message across ``stop``:
    what was not answered with ``Acked`` may be lost and is sent again by the caller.
    """

    def start(self, events: "SimpleQueue[Event]", birth: Birth, death: Death | None) -> None:
        """Begins to connect in the background: subscribes and publishes ``birth``, leaves ``death`` with the broker."""

    def send(self, seq: int, message: Message) -> None:
        """Publishes. QoS 1 is answered by one ``Acked(seq)`` while the connection lasts. ``seq`` is never reused."""

    def stop(self) -> None:
        """Disconnects in under two seconds, whatever the broker does. Nothing is posted afterwards. Idempotent."""
