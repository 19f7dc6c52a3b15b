"""Answers HTTP requests on a few addresses, in one thread, whatever clients do.

Everything is bounded: connections, their time, the length of what they say. When too many are open the oldest is closed
in favour of the newest, so who never finishes a request keeps nobody else out.
"""

import errno
import logging
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from threading import Event

from agent.outage import Backoff, Outage

TICK_S = 0.5
TALK_S = 5.0
"""For a whole request and its answer. A scrape takes milliseconds."""
MOST_CLIENTS = 16
BACKLOG = 16
HEAD_BYTES = 8192
RETRY_FIRST_S = 1.0
RETRY_LONGEST_S = 30.0

_log = logging.getLogger(__name__)


class _Listener:
    """One address: bound, or waiting for the next try."""

    def __init__(self, host: str, port: int) -> None:
        self.address = host, port
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.socket: socket.socket | None = None
        self.backoff = Backoff(RETRY_FIRST_S, RETRY_LONGEST_S)
        self.due_s = 0.0
        self.outage = Outage(_log, f"http answers on {self.name} again")

    def open(self) -> socket.socket:
        ipv6 = ":" in self.address[0]
        made = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ipv6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(self.address)
            made.listen(BACKLOG)
            made.setblocking(False)
        except OSError:
            made.close()
            raise
        return made

    def failed(self, error: OSError, now_s: float) -> None:
        self.due_s = now_s + self.backoff.next_s()
        self.outage.failed(f"nothing can listen on {self.name}: {_reason(error)}")


class _Client:
    """One connection: first it says something, then it is answered, then it may hang up."""

    def __init__(self, connection: socket.socket, end_s: float) -> None:
        self.connection = connection
        self.end_s = end_s
        self.said = bytearray()
        self.answer: memoryview | None = None


class HttpServer:
    """Worker. ``answer`` gives the whole response to a request's head, on the worker's thread."""

    critical = False
    name = "http"

    def __init__(self, addresses: Sequence[tuple[str, int]], answer: Callable[[bytes], bytes]) -> None:
        """``answer`` is also given what is too long for a head; it never returns nothing."""
        self._listeners = [_Listener(*address) for address in addresses]
        self._answer = answer

    @property
    def trouble(self) -> str | None:
        """Where nothing can listen now, in one sentence; None while all is well."""
        return next((one.outage.sentence for one in self._listeners if one.outage.sentence), None)

    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        clients: dict[socket.socket, _Client] = {}
        with DefaultSelector() as selector:
            try:
                while not stop.is_set():
                    beat()
                    self._listen(selector)
                    for key, _ in selector.select(TICK_S):
                        if isinstance(key.data, _Listener):
                            self._accept(selector, key.data, clients)
                        elif key.data.connection in clients and not self._talk(selector, key.data):
                            _close(selector, clients.pop(key.data.connection))
                    now_s = time.monotonic()
                    for late in [client for client in clients.values() if client.end_s < now_s]:
                        _close(selector, clients.pop(late.connection))
            finally:
                for client in clients.values():
                    client.connection.close()
                for listener in self._listeners:
                    if listener.socket is not None:
                        listener.socket.close()
                        listener.socket = None

    def _listen(self, selector: DefaultSelector) -> None:
        now_s = time.monotonic()
        for listener in self._listeners:
            if listener.socket is not None or now_s < listener.due_s:
                continue
            try:
                listener.socket = listener.open()
            except OSError as error:
                listener.failed(error, now_s)
                continue
            selector.register(listener.socket, EVENT_READ, listener)
            listener.backoff.reset()
            listener.outage.over()
            if ip_address(listener.address[0]).is_loopback:
                _log.info("http answers on %s", listener.name)
            else:
                _log.warning("http answers on %s, and it asks nobody who they are: others can read it", listener.name)

    def _accept(self, selector: DefaultSelector, listener: _Listener, clients: dict[socket.socket, _Client]) -> None:
        if listener.socket is None:
            return
        try:
            connection, _ = listener.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it went away between our being told and our asking
            return
        except OSError as error:  # no descriptors, perhaps: it would be ready again at once, without an end
            selector.unregister(listener.socket)
            listener.socket.close()
            listener.socket = None
            listener.failed(error, time.monotonic())
            return
        connection.setblocking(False)
        if len(clients) >= MOST_CLIENTS:
            _close(selector, clients.pop(next(iter(clients))))
        client = clients[connection] = _Client(connection, time.monotonic() + TALK_S)
        selector.register(connection, EVENT_READ, client)

    def _talk(self, selector: DefaultSelector, client: _Client) -> bool:
        """Goes on with a connection that is ready; False when it is over."""
        try:
            if client.answer:
                client.answer = client.answer[client.connection.send(client.answer) :]
                if not client.answer:
                    # Closed at once, what it still says would make the kernel take back what we have said.
                    client.connection.shutdown(socket.SHUT_WR)
                    selector.modify(client.connection, EVENT_READ, client)
                return True
            part = client.connection.recv(4096)
        except BlockingIOError:
            return True
        except OSError:  # it went away
            return False
        if client.answer is not None:
            return bool(part)
        client.said += part
        whole = b"\r\n\r\n" in client.said or b"\n\n" in client.said or len(client.said) > HEAD_BYTES
        if whole:
            client.answer = memoryview(self._answer(bytes(client.said)))
            selector.modify(client.connection, EVENT_WRITE, client)
        return whole or bool(part)


def _close(selector: DefaultSelector, client: _Client) -> None:
    selector.unregister(client.connection)
    client.connection.close()


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; give one of them another port (http.listen)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address (http.listen)"
    if error.errno == errno.EACCES:
        return "only root may use ports below 1024; take another one (http.listen)"
    return error.strerror or str(error)
