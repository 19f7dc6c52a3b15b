"""One connection to an MQTT broker, from its connect to its end, on paho-mqtt.

Each connection is a client of its own: paho queues what it could not send and repeats it by itself, and the outbox must
be the only queue. paho's callbacks run under paho's locks and an exception in one ends its thread, so they copy and
post, nothing else. Topic aliases are not used: with a reconnect they end in protocol errors.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue
from threading import Event as Flag
from threading import Lock, Thread

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.link import FEW, Acked, Birth, Connected, Death, Disconnected, Event, Message, Received
from agent.mqtt_broker import CONNECT_S, Broker, unreachable
from agent.mqtt_client import BufferedSocket, BurstClient

CONNACK_S = 10.0
STOP_S = 1.5
MAX_IN_FLIGHT = 1000
MAX_PACKET_BYTES = 2 << 20
"""The largest message that a broker may send us: twice the largest batch."""
MAX_INCOMING = 10_000
"""Incoming messages that wait to be looked at; more than that are dropped and counted."""

_BIRTH_SEQ = 0
_UNSUPPORTED_VERSION = 0x84
_REFUSALS = {
    0x85: "refused the client id",
    0x86: "refused the user name or password: check username and password_file",
    0x87: "refused this user: check username and password_file, and the user's rights on the broker",
    0x8A: "has banned this client",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a connection fared, for the choice of the next."""

    held_s: float
    """How long it was connected; 0 if it never was."""
    ended: bool
    """It failed or was ended from the other side; False while it lasts."""
    refuses_version: bool
    """The broker said that it does not speak this version of MQTT."""
    hung_up: bool
    """The broker closed the connection instead of answering."""
    answered: bool
    """The broker let us in."""


class Connection:
    """One client from its connect to its end. ``close`` silences it even if its threads cannot be stopped."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        events: "SimpleQueue[Event]",
        birth: Birth,
        death: Death | None,
        *,
        mqtt5: bool,
        guess: bool = False,
        persistent_s: int,
        manual_ack: bool,
    ) -> None:
        """``guess``: it is only asked whether the broker answers, and left."""
        self.broker = broker
        self.mqtt5 = mqtt5
        self.guess = guess
        self.dropped = 0
        self._events = events
        self._birth = birth
        self._persistent_s = persistent_s
        self._manual_ack = manual_ack
        # A will is only delayed while the session lives, hence more than the delay of the will.
        self._session_s = persistent_s or (60 if death is not None and death.delay_s else 0)
        self._lock = Lock()
        """Held for dictionary look-ups only, never while paho is called: paho holds its own lock in ``on_publish``."""
        self._waiting: dict[int, int] = {}
        self._early: dict[int, tuple[int, str]] = {}
        self._gathered: list[Event] = []
        """Posted when paho's thread is about to sleep, so that who wakes finds no rival; never before ``Connected``."""
        self._closed = False
        self._over = False
        self._answered = Flag()
        self._subscribed = Flag()
        self._unheard = False
        self._refusal: str | None = None
        self._refuses_version = False
        self._hung_up = False
        self._let_in = False
        self._connected_s = 0.0
        self._receive_max = 65535
        self._thread = Thread(target=self._connect, name="mqtt-connect", daemon=True)
        self.client = client = BurstClient(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if mqtt5 else not persistent_s,
            protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=manual_ack,
        )
        client.suppress_exceptions = True
        client.connect_timeout = CONNECT_S
        # No limit of paho's: it looks through everything that is under way at each answer. The caller has a window.
        client.max_inflight_messages = 0
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_rest = self._hand_over
        if death is not None:
            message, will = death.message, None
            if mqtt5:
                will = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]  # paho has no types here
                will.WillDelayInterval = death.delay_s
                if message.content_type:
                    will.ContentType = message.content_type
                if message.properties:
                    will.UserProperty = [(str(name), str(value)) for name, value in message.properties.items()]
            client.will_set(message.topic, message.payload, message.qos, message.retain, will)

    def outcome(self) -> Outcome:
        """How it fares up to now."""
        held_s = time.monotonic() - self._connected_s if self._connected_s else 0.0
        return Outcome(held_s, self._over, self._refuses_version, self._hung_up, self._let_in)

    def start(self) -> None:
        self._thread.start()

    def publish(self, seq: int, message: Message) -> MQTTMessageInfo:
        properties = PublishProperties(message) if self.mqtt5 else None
        info = self.client.publish(message.topic, message.payload, message.qos, message.retain, properties)
        if not message.qos:
            return info
        with self._lock:
            early = self._early.pop(info.mid, None)
            if early is None:
                self._waiting[info.mid] = seq
        if early is not None and seq != _BIRTH_SEQ:
            self._post(Acked(seq, *early))
        return info

    def close(self) -> None:
        self._closed = True
        self._answered.set()
        farewell = Thread(target=self._leave, name="mqtt-stop", daemon=True)
        farewell.start()
        farewell.join(STOP_S)
        if farewell.is_alive():  # the broker takes nothing any more: let go of the socket under paho's feet
            self._shut()

    def _leave(self) -> None:
        self._thread.join()
        self.client.disconnect()
        self.client.finish()

    def _shut(self) -> None:
        link = self.client.socket()
        if isinstance(link, BufferedSocket):
            try:
                link.shutdown()
            except OSError:  # it went away meanwhile, which is what we want
                return

    def _connect(self) -> None:
        try:
            self._set_credentials()
            at = (self.broker.host, self.broker.port, self.broker.keepalive_s)
            if self.mqtt5:
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types here
                properties.SessionExpiryInterval = self._session_s
                properties.ReceiveMaximum = MAX_IN_FLIGHT
                properties.MaximumPacketSize = MAX_PACKET_BYTES
                self.client.connect(*at, clean_start=not self._persistent_s, properties=properties)
            else:
                self.client.connect(*at)
            if self._closed:
                return
            self.client.begin()
            if not self._answered.wait(CONNACK_S):
                self._end(f"{self.broker} accepted the connection but did not answer in {CONNACK_S:.0f} s")
            elif self._refusal is not None:
                self._end(self._refusal)
            elif self.guess:
                self._end(f"{self.broker} answers in MQTT 3.1.1; it is asked for MQTT 5 once more")
            elif not self._closed:
                self._subscribe()
                if not self._over:  # a device that cannot be answered does not say that it is there
                    self._publish_birth()
                with self._lock:
                    if not self._over:
                        self._connected_s = time.monotonic()
                        if not self._manual_ack:
                            self.client.few = min(FEW, self._receive_max - 1)
                        name = f"{self.broker.host}:{self.broker.port}"
                        self._post(Connected(self._receive_max, name, "5" if self.mqtt5 else "3.1.1"))
                        self._post_gathered()
        except (OSError, ValueError, RuntimeError) as error:
            self._end(unreachable(self.broker, error))

    def _subscribe(self) -> None:
        """Returns when the broker has them: what is sent to us from then on arrives."""
        if not self._birth.subscriptions:
            return
        self.client.subscribe([(topic, 1) for topic in self._birth.subscriptions])
        end_s = time.monotonic() + CONNACK_S
        while not (self._subscribed.wait(0.25) or self._over or self._closed):
            if time.monotonic() > end_s:
                self._end(f"{self.broker} did not confirm the subscription in {CONNACK_S:.0f} s")
        if self._unheard:
            self._end(f"{self.broker} does not let this user listen to {', '.join(self._birth.subscriptions)}")

    def _publish_birth(self) -> None:
        """One message after the other, so that even a broker with a window of one is not overrun."""
        end_s = time.monotonic() + CONNACK_S
        for message in self._birth.messages:
            born = self.publish(_BIRTH_SEQ, message)
            try:
                while not (born.is_published() or self._over or self._closed):
                    born.wait_for_publish(0.25)
                    if time.monotonic() > end_s:
                        self._end(f"{self.broker} did not acknowledge the birth message in {CONNACK_S:.0f} s")
            except (RuntimeError, ValueError):  # the connection is gone; that is posted anyway
                return

    def _set_credentials(self) -> None:
        broker = self.broker
        if broker.username:
            password = broker.password_file.read_text("utf-8").strip() if broker.password_file else None
            self.client.username_pw_set(broker.username, password)
        if broker.ca_file:
            self.client.tls_set_context(broker.tls_context())

    def _on_connect(
        self, _client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            what = _REFUSALS.get(reason.value, f"refused the connection: {reason.getName()}")
            if reason.value == _UNSUPPORTED_VERSION:
                self._refuses_version = True
                what = "does not speak MQTT 5; going on with MQTT 3.1.1" if self.mqtt5 else "does not speak MQTT 3.1.1"
            self._refusal = f"{self.broker} {what}"
        self._let_in = not reason.is_failure
        self._receive_max = int(getattr(properties, "ReceiveMaximum", 65535))
        self._answered.set()

    def _on_disconnect(
        self, _client: Client, _data: object, flags: DisconnectFlags, reason: ReasonCode, _p: Properties | None
    ) -> None:
        if not self._answered.is_set():
            self._hung_up = True
            tls = ", and does it accept cert_file (or want one)?" if self.broker.ca_file else "?"
            self._refusal = f"{self.broker} closed the connection before it answered; is it an MQTT broker{tls}"
            self._answered.set()
        elif self._refusal is None:
            self._hand_over()
            who = "ended" if flags.is_disconnect_packet_from_server else "lost"
            self._end(f"connection to {self.broker} {who}: {reason.getName()}")

    def _on_subscribe(
        self, _client: Client, _data: object, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._unheard = any(reason.is_failure for reason in reasons)
        self._subscribed.set()

    def _on_publish(
        self, _client: Client, _data: object, mid: int, reason: ReasonCode, _properties: Properties
    ) -> None:
        if mid not in self.client._out_messages:  # one of QoS 0, which nobody waits for
            return
        code = int(reason.value)
        answer = (code, reason.getName() if code else "Success")
        with self._lock:
            seq = self._waiting.pop(mid, None)
            if seq is None:
                self._early[mid] = answer
        if seq is not None and seq != _BIRTH_SEQ:
            self._gather(Acked(seq, *answer))

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        # What waits for our acknowledgement is bounded by the window; dropped, it would hold its place there for ever.
        if self._events.qsize() + len(self._gathered) >= MAX_INCOMING and not (self._manual_ack and message.qos):
            self.dropped += 1
            return
        pairs = getattr(message.properties, "UserProperty", ())
        received = Received(topic, bytes(message.payload), message.retain, message.mid, message.qos, dict(pairs))
        self._gather(received)

    def _gather(self, event: Event) -> None:
        with self._lock:
            self._gathered.append(event)

    def _hand_over(self) -> None:
        with self._lock:
            if self._connected_s:
                self._post_gathered()

    def _post_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        for event in gathered:
            self._post(event)

    def _end(self, sentence: str) -> None:
        with self._lock:
            if not self._over:
                self._over = True
                self._post(Disconnected(sentence))

    def _post(self, event: Event) -> None:
        if not self._closed:
            self._events.put(event)


class PublishProperties(Properties):
    """The properties of one PUBLISH, packed at once: with paho's own class they are most of what a message costs."""

    _packed: bytes

    def __init__(self, message: Message) -> None:
        parts = []
        if message.content_type:
            parts += [b"\x03", _text(message.content_type)]
        for name, value in message.properties.items():
            parts += [b"\x26", _text(str(name)), _text(str(value))]
        packed = b"".join(parts)
        object.__setattr__(self, "packetType", PacketTypes.PUBLISH)
        object.__setattr__(self, "_packed", _length(len(packed)) + packed)

    def pack(self) -> bytes:
        return self._packed


def _length(count: int) -> bytes:
    """MQTT's variable byte integer."""
    data = bytearray()
    while count > 127:
        data.append(count & 127 | 128)
        count >>= 7
    data.append(count)
    return bytes(data)


@lru_cache(256)
def _text(value: str) -> bytes:
    """MQTT's string: two bytes of length and UTF-8. The same few come with every message."""
    data = value.encode()
    return len(data).to_bytes(2, "big") + data
