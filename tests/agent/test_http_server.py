"""The HTTP server on real sockets: who says nothing, too much, or hangs up, keeps nobody else from an answer."""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from agent.supervisor import Supervisor
from agent.web import server
from agent.web.server import MOST_CLIENTS, HttpServer
from tests.brokers import free_port
from tests.conftest import eventually

WAIT_S = 10.0
BIG = b"x" * 20_000_000


def answer(head: bytes) -> bytes:
    return BIG if head.startswith(b"big") else b"answer to " + head.split(b"\n")[0]


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(server, "TICK_S", 0.05)  # so that it stops soon
    made = Supervisor()
    yield made
    assert made.stop(lambda _: True, 5.0) == []
    assert made.restarts() == {}


@pytest.fixture
def serve(supervisor: Supervisor) -> Callable[..., HttpServer]:
    def start(*addresses: tuple[str, int]) -> HttpServer:
        made = HttpServer(addresses, answer)
        supervisor.start(made)
        return made

    return start


def connect(host: str, port: int) -> socket.socket:
    """As soon as somebody listens."""
    end_s = time.monotonic() + WAIT_S
    while True:
        try:
            return socket.create_connection((host, port), timeout=WAIT_S)
        except ConnectionRefusedError:
            if time.monotonic() > end_s:
                raise


def rest(client: socket.socket) -> bytes:
    """All that still comes."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def ask(port: int, head: bytes = b"one\r\n\r\n", host: str = "127.0.0.1") -> bytes:
    with connect(host, port) as client:
        client.sendall(head)
        return rest(client)


@contextmanager
def taken(port: int) -> Iterator[None]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


def test_answers_on_every_address(serve: Callable[..., HttpServer]) -> None:
    four, six = free_port(), free_port()
    made = serve(("127.0.0.1", four), ("::1", six))
    assert ask(four) == b"answer to one\r"
    if _has_ipv6():
        assert ask(six, host="::1") == b"answer to one\r"
        assert made.trouble is None
    else:
        eventually(lambda: made.trouble is not None, "said")


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def test_a_head_that_comes_byte_by_byte_and_a_body_that_nobody_reads(serve: Callable[..., HttpServer]) -> None:
    port = free_port()
    serve(("127.0.0.1", port))
    with connect("127.0.0.1", port) as client:
        for byte in b"slow\r\nX: y\r\n\r\n":
            client.send(bytes([byte]))
        client.sendall(b"a body" * 1000)
        assert rest(client) == b"answer to slow\r"


def test_a_long_answer_to_a_slow_reader_is_whole(serve: Callable[..., HttpServer]) -> None:
    port = free_port()
    serve(("127.0.0.1", port))
    with connect("127.0.0.1", port) as client:
        client.sendall(b"big\n\n")
        assert ask(port) == b"answer to one\r"
        assert rest(client) == BIG


def test_who_never_finishes_keeps_nobody_out(serve: Callable[..., HttpServer]) -> None:
    port = free_port()
    serve(("127.0.0.1", port))
    assert ask(port) == b"answer to one\r"
    with ExitStack() as stack:
        silent = [stack.enter_context(connect("127.0.0.1", port)) for _ in range(3 * MOST_CLIENTS)]
        for client in silent:
            client.sendall(b"GET /met")
        begin_s = time.monotonic()
        assert ask(port) == b"answer to one\r"
        assert time.monotonic() - begin_s < server.TALK_S / 2
        # Closed by us with what they had said unread or read: an end or a reset, both are over.
        silent[0].settimeout(WAIT_S)
        with suppress(ConnectionResetError):
            assert silent[0].recv(1) == b""


def test_time_for_a_request_is_limited(serve: Callable[..., HttpServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TALK_S", 0.2)
    port = free_port()
    serve(("127.0.0.1", port))
    with connect("127.0.0.1", port) as client:
        client.sendall(b"GET /")
        assert client.recv(1) == b""


def test_hanging_up_at_any_moment_harms_nobody(serve: Callable[..., HttpServer]) -> None:
    port = free_port()
    serve(("127.0.0.1", port))
    for said in (b"", b"GET", b"one\r\n\r\n", b"big\n\n"):
        with connect("127.0.0.1", port) as client:
            # Without lingering: the server gets a reset instead of an end.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(said)
    assert ask(port) == b"answer to one\r"


def test_a_taken_port_is_said_and_used_when_it_is_free(
    serve: Callable[..., HttpServer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "RETRY_FIRST_S", 0.05)
    port, other = free_port(), free_port()
    with taken(port):
        made = serve(("127.0.0.1", port), ("127.0.0.1", other))
        assert ask(other) == b"answer to one\r"
        assert made.trouble == (
            f"nothing can listen on 127.0.0.1:{port}: another program listens there; "
            "give one of them another port (http.listen)"
        )
    eventually(lambda: made.trouble is None, "listens")
    assert ask(port) == b"answer to one\r"
    assert [record.levelno for record in caplog.records if f":{port}" in record.message].count(logging.WARNING) == 1


def test_an_address_that_the_machine_does_not_have(serve: Callable[..., HttpServer]) -> None:
    made = serve(("192.0.2.1", free_port()))
    eventually(lambda: made.trouble is not None, "said")
    assert made.trouble is not None and "does not have that address" in made.trouble


def test_open_to_others_is_warned_of(serve: Callable[..., HttpServer], caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    serve(("0.0.0.0", port))
    assert ask(port) == b"answer to one\r"
    assert "asks nobody who they are" in caplog.text
