"""Where a broker is, how to log in, and why it cannot be reached."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from agent.clock import untimely

CONNECT_S = 5.0


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

    def tls_context(self) -> ssl.SSLContext:
        """Reads the certificates anew; ``ssl.SSLError`` or ``OSError`` if they are not right."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context

    def __str__(self) -> str:
        return f"broker {self.host}:{self.port}"


def default_port(ca_file: Path | None) -> int:
    """IANA's ports of MQTT and of MQTT over TLS."""
    return 8883 if ca_file else 1883


def unreachable(broker: Broker, error: OSError | ValueError | RuntimeError) -> str:
    """Why there is no connection, in one sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        wrong = untimely(error) or f"is not trusted: {error.verify_message}; check ca_file and host"
        return f"{broker} shows a certificate that {wrong}"
    if isinstance(error, ssl.SSLError):
        return f"{broker}: no TLS connection: {error.reason or error}; check port, ca_file, cert_file and key_file"
    if isinstance(error, socket.gaierror):
        return f"{broker}: the host name is not known: {error.strerror}"
    if isinstance(error, TimeoutError):
        return f"{broker} does not answer: timed out after {CONNECT_S:.0f} s"
    if isinstance(error, OSError) and error.filename:
        return f"{broker}: cannot read {error.filename}: {error.strerror}"
    return f"cannot reach {broker}: {getattr(error, 'strerror', None) or error}"
