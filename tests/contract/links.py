"""Every link there is, and a link without a broker for tests that want to say what the broker answers."""

from queue import SimpleQueue

from agent.link import Acked, Birth, Connected, Death, Event, Message


class ListLink:
    """A ``Link`` into a list. The broker takes everything unless a test sets ``code`` or ``mute``."""

    def __init__(self, receive_max: int = 65535) -> None:
        self.receive_max = receive_max
        self.sent: list[tuple[int, Message]] = []
        self.births: list[Birth] = []
        self.deaths: list[Death | None] = []
        self.code = 0
        self.mute = False
        self._events: SimpleQueue[Event] | None = None

    def start(self, events: "SimpleQueue[Event]", birth: Birth, death: Death | None) -> None:
        self._events = events
        self.births.append(birth)
        self.deaths.append(death)
        self.post(Connected(self.receive_max))

    def send(self, seq: int, message: Message) -> None:
        if self._events is None:
            return
        self.sent.append((seq, message))
        if message.qos and not self.mute:
            self.post(Acked(seq, self.code, "set by the test" if self.code else "Success"))

    def stop(self) -> None:
        self._events = None

    def post(self, event: Event) -> None:
        """What the broker does next."""
        if self._events is not None:
            self._events.put(event)
