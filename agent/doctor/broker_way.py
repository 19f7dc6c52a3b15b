"""The first steps to a broker: its name, a connection, TLS. The first that fails is the last."""

import os
import socket
import ssl
import time
from collections.abc import Generator
from contextlib import closing, suppress

from agent.doctor.finding import Finding, Word
from agent.doctor.scene import Scene
from agent.mqtt_broker import CONNECT_S, Broker, unreachable

ALERT_S = 0.3
"""In TLS 1.3 a broker that does not take our certificate says so just after the handshake."""


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._begin_ns = time.monotonic_ns()

    @property
    def ms(self) -> float:
        return round((time.monotonic_ns() - self._begin_ns) / 1e6, 1)


def way(scene: Scene, broker: Broker, where: str) -> Generator[Finding, None, bool]:
    """``where``: the key of the host. Returns whether the broker can be spoken to."""
    facts: dict[str, object] = {"host": broker.host, "port": broker.port}
    watch = Stopwatch()
    try:
        addresses = socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        yield failed(
            "dns", where, {**facts, "ms": watch.ms, "sentence": getattr(error, "strerror", None) or str(error)},
            "the name {host} is not known here: {sentence}",
            "check the spelling, the network, and the name server", ("getent hosts {host}", "resolvectl status"),
        )  # fmt: skip
        return False
    count = len({address[4][0] for address in addresses})
    yield passed("dns", where, {**facts, "ms": watch.ms, "count": count}, "{host} has {count} addresses")
    watch = Stopwatch()
    try:
        raw = socket.create_connection((broker.host, broker.port), CONNECT_S)
    except OSError as error:
        yield failed(
            "tcp", where, {**facts, "ms": watch.ms, "sentence": unreachable(broker, error)}, "{sentence}",
            "does a broker run there, is the port right, does a firewall stand between?",
            ("nc -vz {host} {port}", "ip route get {host}"),
        )  # fmt: skip
        return False
    with closing(raw):
        yield passed("tcp", where, {**facts, "ms": watch.ms}, "{host}:{port} takes connections")
        files = (broker.ca_file, broker.cert_file, broker.key_file, broker.password_file)
        locked = next((file for file in files if file and not os.access(file, os.R_OK)), None)
        if locked is not None and not scene.runner.is_me:
            yield Finding(
                "broker.not_tried", "note", "TLS and login are not tried: {file} is not for this user", where,
                "look as root", ("sudo axond doctor --config {path}",),
                {**facts, "file": str(locked), "path": str(scene.path)},
            )  # fmt: skip
            return False
        if broker.ca_file:
            found = _tls(broker, raw, where, facts)
            yield found
            if found.level != "ok":
                return False
    return True


def _tls(broker: Broker, raw: socket.socket, where: str, facts: dict[str, object]) -> Finding:
    watch = Stopwatch()
    try:
        with broker.tls_context().wrap_socket(raw, server_hostname=broker.host) as secured:
            version = secured.version()
            secured.settimeout(ALERT_S)
            with suppress(TimeoutError):  # silence is consent
                if not secured.recv(1):
                    raise ssl.SSLError("the broker closed the connection right after the handshake")
    except (OSError, ValueError) as error:
        return failed(
            "tls", where, {**facts, "ms": watch.ms, "sentence": unreachable(broker, error), "ca": str(broker.ca_file)},
            "{sentence}",
            "ca_file must be the authority that signed the broker's certificate, and host a name in it; cert_file must "
            "be signed by an authority that the broker trusts",
            ("openssl s_client -connect {host}:{port} -CAfile {ca} -verify_return_error </dev/null",),
        )  # fmt: skip
    return passed(
        "tls", where, {**facts, "ms": watch.ms, "version": Word(version)}, "{version}, and its certificate is trusted"
    )


def passed(step: str, where: str, facts: dict[str, object], seen: str) -> Finding:
    """A step that went well; ``facts`` have the ``ms`` that it took."""
    return Finding(f"broker.{step}", "ok", seen + " ({ms:g} ms)", where, facts=facts)


def failed(
    step: str, where: str, facts: dict[str, object], seen: str, remedy: str, commands: tuple[str, ...]
) -> Finding:
    """A step that did not."""
    return Finding(f"broker.{step}", "problem", seen + " ({ms:g} ms)", where, remedy, commands, facts)
