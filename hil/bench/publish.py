"""Publishing as fast as it goes: with the agent's link, and with the least of C that can do it."""

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue

from agent.cli.command import CommandError
from agent.link import FIRST_ERROR, Acked, Birth, Connected, Disconnected, Event, Message, Received
from agent.mqtt import Broker, PahoLink

WINDOW = 100
WAIT_S = 20.0
C_SOURCE = Path(__file__).with_name("publisher.c")


class Publisher:
    """The agent's link with a window of its own; ``with`` connects it."""

    def __init__(self, port: int, client_id: str, subscriptions: tuple[str, ...] = ()) -> None:
        self._link = PahoLink(Broker("127.0.0.1", port), client_id)
        self._birth = Birth(subscriptions)
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._seq = count(1)
        self.under_way = 0
        """Messages that the broker has not acknowledged."""

    def __enter__(self) -> "Publisher":
        self._link.start(self._events, self._birth, None)
        event = self._events.get(timeout=WAIT_S)
        if not isinstance(event, Connected):
            raise CommandError(f"no connection to the broker: {event}")
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def send(self, message: Message) -> None:
        """Does not wait."""
        self._link.send(next(self._seq), message)
        self.under_way += 1

    def listen(self, timeout_s: float) -> Received | None:
        """What comes next; None for an acknowledgement by the broker, or for nothing. Raises CommandError."""
        try:
            event = self._events.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(event, Disconnected):
            raise CommandError(event.sentence)
        if isinstance(event, Acked):
            if event.code >= FIRST_ERROR:
                raise CommandError(f"the broker refuses: {event.name}")
            self.under_way -= 1
        return event if isinstance(event, Received) else None

    def flood(self, message: Callable[[int], Message], seconds: float) -> float:
        """Keeps ``WINDOW`` messages under way; acknowledged messages a second."""
        sent, begin_s = 0, time.monotonic()
        while (spent_s := time.monotonic() - begin_s) < seconds:
            while self.under_way < WINDOW:
                self.send(message(sent))
                sent += 1
            self.listen(WAIT_S)
            while not self._events.empty():  # all that came, as the uplink takes it
                self.listen(0)
        rate = (sent - self.under_way) / spent_s
        self.settle()
        return rate

    def settle(self) -> None:
        """Until the broker has acknowledged everything. Raises CommandError."""
        end_s = time.monotonic() + WAIT_S
        while self.under_way:
            self.listen(0.1)
            if time.monotonic() > end_s:
                raise CommandError(f"{self.under_way} messages are not acknowledged in {WAIT_S:g} s")


def build_c_publisher(folder: Path) -> Path | None:
    """Compiles the baseline; None without a C compiler. Raises CommandError when the compiler refuses it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    program = folder / "publisher"
    done = subprocess.run([compiler, "-O2", "-o", program, C_SOURCE], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"{C_SOURCE} does not compile: {done.stderr[:500]}")
    return program


def c_rate(program: Path, port: int, topic: str, payload: bytes, seconds: float) -> float:
    """Acknowledged messages a second of the baseline, with the same window and payload. Raises CommandError."""
    body = program.with_name("payload")
    body.write_bytes(payload)
    arguments: Sequence[str | Path] = [program, str(port), topic, body, str(WINDOW), str(seconds)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds + WAIT_S, check=False)
    if done.returncode:
        raise CommandError(f"the C publisher failed: {done.stderr.strip()}")
    return float(done.stdout)
