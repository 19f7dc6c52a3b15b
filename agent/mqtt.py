"""The link to an MQTT broker, on paho-mqtt: which broker is tried next, and in which version of the protocol."""

from collections.abc import Sequence
from queue import SimpleQueue

from agent.link import Birth, Death, Event, Message, Received
from agent.mqtt_broker import Broker, default_port
from agent.mqtt_connection import Connection, Outcome

__all__ = ["Broker", "PahoLink", "default_port"]

STEADY_S = 5.0
"""A connection that lasted less counts as a failure of its broker."""


class PahoLink:
    """A ``Link``. The defaults are a device's: nothing is left over from an earlier connection.

    Brokers are tried in order, the next one after a failure; after a connection that held it begins with the first
    again. A broker that says that it does not speak MQTT 5 is spoken to in 3.1.1 as long as this link lives. One that
    hangs up without a word may be behind a proxy and just be starting. Unless it has ever spoken MQTT 5, 3.1.1 is tried
    once; if that is answered, MQTT 5 once more; and only if it hangs up on that again, there is a connection in 3.1.1.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        fallbacks: Sequence[Broker] = (),
        persistent_s: int = 0,
        manual_ack: bool = False,
    ) -> None:
        """``persistent_s``: how long the broker keeps this client's subscriptions and messages while it is away."""
        self._brokers = (broker, *fallbacks)
        self._client_id = client_id
        self._persistent_s = persistent_s
        self._manual_ack = manual_ack
        self._next = 0
        self._try_old = False
        self._old: set[Broker] = set()
        self._spoke_5: set[Broker] = set()
        self._spoke_old: set[Broker] = set()
        self._connection: Connection | None = None
        self.dropped = 0
        """Incoming messages dropped because nobody took them from the queue."""

    def start(self, events: "SimpleQueue[Event]", birth: Birth, death: Death | None) -> None:
        self.stop()
        broker = self._brokers[self._next]
        self._connection = Connection(
            broker,
            self._client_id,
            events,
            birth,
            death,
            mqtt5=not (self._try_old or broker in self._old),
            guess=self._try_old and broker not in self._spoke_old,
            persistent_s=self._persistent_s,
            manual_ack=self._manual_ack,
        )
        self._connection.start()

    def send(self, seq: int, message: Message) -> None:
        if self._connection is not None:
            self._connection.publish(seq, message)

    def busy(self) -> bool:
        """Whether what was sent still waits for the network: without acknowledgements the one sign of a slow broker."""
        return self._connection is not None and self._connection.client.want_write()

    def acknowledge(self, received: Received) -> None:
        """Tells the broker that a message is taken care of; for a link with manual acknowledgement."""
        if self._connection is not None and received.qos:
            self._connection.client.ack(received.mid, received.qos)

    def stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            outcome = connection.outcome()
            connection.close()
            self.dropped += connection.dropped
            self._learn(connection, outcome)

    def _learn(self, connection: Connection, outcome: Outcome) -> None:
        """Chooses what the next ``start`` tries."""
        broker, mqtt5 = connection.broker, connection.mqtt5
        self._try_old = False
        if outcome.answered:
            (self._spoke_5 if mqtt5 else self._spoke_old).add(broker)
        if outcome.refuses_version and mqtt5:
            self._old.add(broker)
        elif outcome.hung_up and mqtt5 and broker not in self._spoke_5:
            self._try_old = True
        elif outcome.held_s >= STEADY_S and outcome.ended:
            self._next = 0
        elif not (outcome.answered and connection.guess):
            self._next = (self._next + 1) % len(self._brokers)
