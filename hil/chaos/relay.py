"""A TCP relay that brings every byte late: what a long line does, where the kernel has no netem."""

import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

_READ_BYTES = 1 << 16
_HELD_CHUNKS = 4096
"""So many pieces are under way at most; then the sender has to wait."""
_TICK_S = 0.02


class Relay:
    """Forwards connections to ``server`` to the broker; each piece of data arrives ``delay_s`` after it came."""

    def __init__(self, server: socket.socket, broker_port: int, delay_s: float) -> None:
        self.port: int = server.getsockname()[1]
        self._server = server
        self._broker = ("127.0.0.1", broker_port)
        self._delay_s = delay_s
        self._lines: list[_Line] = []
        self.sent_bytes = 0
        """To the broker."""

    def close(self) -> None:
        """Cuts all connections; the thread has ended."""
        for line in self._lines:
            line.close()

    def serve(self, stop: Event) -> None:
        """Until ``stop``, in a thread of its own."""
        while not stop.is_set():
            self._step()

    def _step(self) -> None:
        sources = {line.source: line for line in self._lines if len(line.held) < _HELD_CHUNKS}
        due_s = min((line.held[0][0] for line in self._lines if line.held), default=time.monotonic() + _TICK_S)
        wait_s = min(_TICK_S, max(0.0, due_s - time.monotonic()))
        ready, _, _ = select.select([self._server, *sources], [], [], wait_s)
        for source in ready:
            if source is self._server:
                self._accept()
            else:
                line = sources[source]
                taken = line.take(self._delay_s)
                self.sent_bytes += taken if line.upwards else 0
        for line in self._lines:
            line.give()
        ended = {line.source for line in self._lines if line.ended}
        gone = [line for line in self._lines if line.source in ended or line.sink in ended]
        for line in gone:
            line.close()
            self._lines.remove(line)

    def _accept(self) -> None:
        near, _ = self._server.accept()
        try:
            far = socket.create_connection(self._broker, timeout=1.0)
        except OSError:  # the broker is away: so is the other end of the line
            near.close()
            return
        self._lines += [_Line(near, far, True), _Line(far, near, False)]


class _Line:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        self.source = source
        self.sink = sink
        self.upwards = upwards
        self.held: deque[tuple[float, bytes]] = deque()
        """When it is due, and what."""
        self.ended = False

    def take(self, delay_s: float) -> int:
        """Reads what is there; how many bytes that was."""
        try:
            data = self.source.recv(_READ_BYTES)
        except OSError:
            data = b""
        if data:
            self.held.append((time.monotonic() + delay_s, data))
        else:
            self.ended = True
        return len(data)

    def give(self) -> None:
        while self.held and self.held[0][0] <= time.monotonic():
            try:
                self.sink.sendall(self.held.popleft()[1])
            except OSError:
                self.ended = True
                return

    def close(self) -> None:
        self.source.close()
        self.sink.close()


@contextmanager
def relay(broker_port: int, delay_s: float) -> Iterator[Relay]:
    """A running relay on a port of its own."""
    stop = Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        made = Relay(server, broker_port, delay_s)
        thread = Thread(target=made.serve, args=(stop,), name="relay", daemon=True)
        thread.start()
        try:
            yield made
        finally:
            stop.set()
            thread.join()
            made.close()
