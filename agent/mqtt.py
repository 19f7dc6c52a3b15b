"""The link to an MQTT 5 broker, on paho-mqtt.

Each connection is a client of its own: paho queues what it could not send and repeats it by itself, and the outbox must
be the only queue. paho's callbacks run under paho's locks and an exception in one ends its thread, so they copy and
post, nothing else. Topic aliases are not used: with a reconnect they end in protocol errors.
"""

import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event as Flag
from threading import Lock, Thread

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.link import Acked, Birth, Connected, Death, Disconnected, Event, Message, Received

CONNECT_S = 5.0
CONNACK_S = 10.0
STOP_S = 1.5
MAX_IN_FLIGHT = 1000
MAX_INCOMING = 10_000
"""Incoming messages that wait to be looked at; more than that are dropped and counted."""

_BIRTH_SEQ = 0
_REFUSALS = {
    0x84: "does not speak MQTT 5",
    0x85: "refused the client id",
    0x86: "refused the user name or password: check username and password_file",
    0x87: "refused this user: check username and password_file, and the user's rights on the broker",
    0x8A: "has banned this client",
}


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and how to log in. Secrets are files, read at each connection."""

    host: str
    port: int
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    """Given: the connection uses TLS, and only this authority is trusted."""
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = 30

    def __str__(self) -> str:
        return f"broker {self.host}:{self.port}"


def default_port(ca_file: Path | None) -> int:
    """IANA's ports of MQTT and of MQTT over TLS."""
    return 8883 if ca_file else 1883


class PahoLink:
    """A ``Link``. The defaults are a device's: nothing is left over from an earlier connection."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        persistent_s: int = 0,
        manual_ack: bool = False,
    ) -> None:
        """``persistent_s``: how long the broker keeps this client's subscriptions and messages while it is away."""
        self._broker = broker
        self._client_id = client_id
        self._persistent_s = persistent_s
        self._manual_ack = manual_ack
        self._connection: _Connection | None = None
        self.dropped = 0
        """Incoming messages dropped because nobody took them from the queue."""

    def start(self, events: "SimpleQueue[Event]", birth: Birth, death: Death | None) -> None:
        self.stop()
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=self._manual_ack,
        )
        self._connection = _Connection(client, self._broker, events, birth, death, self._persistent_s)
        self._connection.start()

    def send(self, seq: int, message: Message) -> None:
        if self._connection is not None:
            self._connection.publish(seq, message)

    def acknowledge(self, received: Received) -> None:
        """Tells the broker that a message is taken care of; for a link with manual acknowledgement."""
        if self._connection is not None and received.qos:
            self._connection.client.ack(received.mid, received.qos)

    def stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self.dropped += connection.dropped


class _Connection:
    """One client from its connect to its end. ``close`` silences it even if its threads cannot be stopped."""

    def __init__(
        self,
        client: Client,
        broker: Broker,
        events: "SimpleQueue[Event]",
        birth: Birth,
        death: Death | None,
        persistent_s: int,
    ) -> None:
        self.client = client
        self.dropped = 0
        self._broker = broker
        self._events = events
        self._birth = birth
        self._persistent_s = persistent_s
        self._lock = Lock()
        """Held for dictionary look-ups only, never while paho is called: paho holds its own lock in ``on_publish``."""
        self._waiting: dict[int, int] = {}
        self._early: dict[int, Acked] = {}
        self._closed = False
        self._over = False
        self._answered = Flag()
        self._subscribed = Flag()
        self._unheard = False
        self._refusal: str | None = None
        self._receive_max = 65535
        self._thread = Thread(target=self._connect, name="mqtt-connect", daemon=True)
        client.suppress_exceptions = True
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages = MAX_IN_FLIGHT
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        if death is not None:
            will = _properties(PacketTypes.WILLMESSAGE, death.message)
            will.WillDelayInterval = death.delay_s
            message = death.message
            client.will_set(message.topic, message.payload, message.qos, message.retain, will)

    def start(self) -> None:
        self._thread.start()

    def publish(self, seq: int, message: Message) -> MQTTMessageInfo:
        properties = _properties(PacketTypes.PUBLISH, message)
        info = self.client.publish(message.topic, message.payload, message.qos, message.retain, properties)
        if not message.qos:
            return info
        with self._lock:
            early = self._early.pop(info.mid, None)
            if early is None:
                self._waiting[info.mid] = seq
        if early is not None:
            self._post_ack(seq, early)
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
        try:
            self.client.loop_stop()
        except AttributeError:  # paho's thread ended between paho's look at it and paho's join
            return

    def _shut(self) -> None:
        raw = self.client.socket()
        if isinstance(raw, socket.socket):
            try:
                raw.shutdown(socket.SHUT_RDWR)
            except OSError:  # it went away meanwhile, which is what we want
                return

    def _connect(self) -> None:
        try:
            self._set_credentials()
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types here
            # A will is only delayed while the session lives, hence more than the delay of the will.
            properties.SessionExpiryInterval = self._persistent_s or 60
            properties.ReceiveMaximum = MAX_IN_FLIGHT
            self.client.connect(
                self._broker.host,
                self._broker.port,
                self._broker.keepalive_s,
                clean_start=not self._persistent_s,
                properties=properties,
            )
            if self._closed:
                return
            self.client.loop_start()
            if not self._answered.wait(CONNACK_S):
                self._end(f"{self._broker} accepted the connection but did not answer in {CONNACK_S:.0f} s")
            elif self._refusal is not None:
                self._end(self._refusal)
            elif not self._closed:
                self._subscribe()
                self._publish_birth()
                with self._lock:
                    if not self._over:
                        self._post(Connected(self._receive_max))
        except (OSError, ValueError, RuntimeError) as error:
            self._end(_unreachable(self._broker, error))

    def _subscribe(self) -> None:
        """Returns when the broker has them: what is sent to us from then on arrives."""
        if not self._birth.subscriptions:
            return
        self.client.subscribe([(topic, 1) for topic in self._birth.subscriptions])
        end_s = time.monotonic() + CONNACK_S
        while not (self._subscribed.wait(0.25) or self._over or self._closed):
            if time.monotonic() > end_s:
                self._end(f"{self._broker} did not confirm the subscription in {CONNACK_S:.0f} s")
        if self._unheard:
            self._end(f"{self._broker} does not let this user listen to {', '.join(self._birth.subscriptions)}")

    def _publish_birth(self) -> None:
        """One message after the other, so that even a broker with a window of one is not overrun."""
        end_s = time.monotonic() + CONNACK_S
        for message in self._birth.messages:
            born = self.publish(_BIRTH_SEQ, message)
            try:
                while not (born.is_published() or self._over or self._closed):
                    born.wait_for_publish(0.25)
                    if time.monotonic() > end_s:
                        self._end(f"{self._broker} did not acknowledge the birth message in {CONNACK_S:.0f} s")
            except (RuntimeError, ValueError):  # the connection is gone; that is posted anyway
                return

    def _set_credentials(self) -> None:
        broker = self._broker
        if broker.username:
            password = broker.password_file.read_text("utf-8").strip() if broker.password_file else None
            self.client.username_pw_set(broker.username, password)
        if broker.ca_file:
            context = ssl.create_default_context(cafile=broker.ca_file)
            if broker.cert_file:
                context.load_cert_chain(broker.cert_file, broker.key_file)
            self.client.tls_set_context(context)

    def _on_connect(
        self, _client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            what = _REFUSALS.get(reason.value, f"refused the connection: {reason.getName()}")
            self._refusal = f"{self._broker} {what}"
        self._receive_max = int(getattr(properties, "ReceiveMaximum", 65535))
        self._answered.set()

    def _on_disconnect(
        self, _client: Client, _data: object, flags: DisconnectFlags, reason: ReasonCode, _p: Properties | None
    ) -> None:
        if not self._answered.is_set():
            self._refusal = f"{self._broker} closed the connection before it answered; is it an MQTT 5 broker?"
            self._answered.set()
        elif self._refusal is None:
            who = "ended" if flags.is_disconnect_packet_from_server else "lost"
            self._end(f"connection to {self._broker} {who}: {reason.getName()}")

    def _on_subscribe(
        self, _client: Client, _data: object, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._unheard = any(reason.is_failure for reason in reasons)
        self._subscribed.set()

    def _on_publish(
        self, _client: Client, _data: object, mid: int, reason: ReasonCode, _properties: Properties
    ) -> None:
        answer = Acked(0, int(reason.value), reason.getName())
        with self._lock:
            seq = self._waiting.pop(mid, None)
            if seq is None:
                self._early[mid] = answer
        if seq is not None:
            self._post_ack(seq, answer)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        if self._events.qsize() >= MAX_INCOMING:
            self.dropped += 1
            return
        pairs = getattr(message.properties, "UserProperty", ())
        self._post(Received(topic, bytes(message.payload), message.retain, message.mid, message.qos, dict(pairs)))

    def _post_ack(self, seq: int, answer: Acked) -> None:
        if seq != _BIRTH_SEQ:
            self._post(Acked(seq, answer.code, answer.name))

    def _end(self, sentence: str) -> None:
        with self._lock:
            if not self._over:
                self._over = True
                self._post(Disconnected(sentence))

    def _post(self, event: Event) -> None:
        if not self._closed:
            self._events.put(event)


def _properties(packet: int, message: Message) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]  # paho has no types here
    if message.content_type:
        properties.ContentType = message.content_type
    if message.properties:
        properties.UserProperty = list(_pairs(message.properties))
    return properties


def _pairs(properties: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in properties.items()]


def _unreachable(broker: Broker, error: OSError | ValueError | RuntimeError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{broker} shows a certificate that is not trusted: {error.verify_message}; check ca_file and host"
    if isinstance(error, ssl.SSLError):
        return f"{broker}: no TLS connection: {error.reason or error}; check port, ca_file, cert_file and key_file"
    if isinstance(error, socket.gaierror):
        return f"{broker}: the host name is not known: {error.strerror}"
    if isinstance(error, TimeoutError):
        return f"{broker} does not answer: timed out after {CONNECT_S:.0f} s"
    if isinstance(error, OSError) and error.filename:
        return f"{broker}: cannot read {error.filename}: {error.strerror}"
    return f"cannot reach {broker}: {getattr(error, 'strerror', None) or error}"
