"""TLS with certificates on both sides, against a real mosquitto: who is let in, and what is said to the others."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pytest

from agent.link import Birth, Connected, Disconnected, Event
from agent.mqtt import Broker, PahoLink
from tests.brokers import Mosquitto, free_port

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
"""paho drops its socket when a handshake fails."""

# Python 3.13 takes RFC 5280 at its word and wants these extensions.
_NAMES = "subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"


class Authority:
    """A certificate authority in a folder, and the certificates that it has signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "names").write_text(_NAMES)
        self._openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def sign(self, name: str, *options: str, subject: str = "") -> None:
        self._openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
            *("-subj", f"/CN={subject or name}"),
        )
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.crt", "-extfile", "names", *options),
        )

    def path(self, name: str) -> Path:
        return self.folder / name

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of broker and device."""
    try:
        authority = Authority(tmp_path_factory.mktemp("ours"))
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    for name in ("localhost", "d1"):
        authority.sign(name)
    return authority


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory, ours: Authority) -> Authority:
    """Somebody else's authority, which knows a device of the same name."""
    authority = Authority(tmp_path_factory.mktemp("foreign"))
    for name in ("localhost", "d1"):
        authority.sign(name)
    return authority


@pytest.fixture
def port(make_broker: Callable[..., Mosquitto], ours: Authority) -> int:
    """Of a broker that wants a certificate."""
    port = free_port()
    folder = ours.folder
    make_broker(
        extra=f"listener {port} 127.0.0.1\ncafile {folder}/ca.crt\ncertfile {folder}/localhost.crt\n"
        f"keyfile {folder}/localhost.key\nrequire_certificate true\nallow_anonymous true"
    )
    return port


@pytest.fixture
def answer() -> Iterator[Callable[[Broker], Event]]:
    """What an attempt to connect leads to."""
    with ExitStack() as stack:

        def attempt(broker: Broker) -> Event:
            link, events = PahoLink(broker, "d1"), SimpleQueue[Event]()
            stack.callback(link.stop)
            link.start(events, Birth(), None)
            return events.get(timeout=20)

        yield attempt


def mutual(port: int, ours: Authority, certificate: Authority, host: str = "localhost") -> Broker:
    return Broker(
        host,
        port,
        ca_file=ours.path("ca.crt"),
        cert_file=certificate.path("d1.crt"),
        key_file=certificate.path("d1.key"),
    )


def test_both_sides_show_a_certificate(port: int, ours: Authority, answer: Callable[[Broker], Event]) -> None:
    assert isinstance(answer(mutual(port, ours, ours)), Connected)


def test_a_device_without_a_certificate_is_refused(
    port: int, ours: Authority, answer: Callable[[Broker], Event]
) -> None:
    refused = answer(Broker("localhost", port, ca_file=ours.path("ca.crt")))
    assert isinstance(refused, Disconnected) and "cert_file" in refused.sentence


def test_a_device_with_a_foreign_certificate_is_refused(
    port: int, ours: Authority, foreign: Authority, answer: Callable[[Broker], Event]
) -> None:
    refused = answer(mutual(port, ours, foreign))
    assert isinstance(refused, Disconnected) and "cert_file" in refused.sentence


def test_a_broker_with_a_foreign_certificate_is_refused(
    make_broker: Callable[..., Mosquitto], ours: Authority, foreign: Authority, answer: Callable[[Broker], Event]
) -> None:
    port, folder = free_port(), foreign.folder
    make_broker(
        extra=f"listener {port} 127.0.0.1\ncafile {folder}/ca.crt\ncertfile {folder}/localhost.crt\n"
        f"keyfile {folder}/localhost.key\nallow_anonymous true"
    )
    refused = answer(mutual(port, ours, ours))
    assert isinstance(refused, Disconnected) and "not trusted" in refused.sentence


def test_a_certificate_out_of_its_time_is_told_from_a_clock_that_is_not_set(
    make_broker: Callable[..., Mosquitto], ours: Authority, answer: Callable[[Broker], Event]
) -> None:
    port, folder = free_port(), ours.folder
    ours.sign("over", "-days", "-1", subject="localhost")
    make_broker(
        extra=f"listener {port} 127.0.0.1\ncafile {folder}/ca.crt\ncertfile {folder}/over.crt\n"
        f"keyfile {folder}/over.key\nallow_anonymous true"
    )
    refused = answer(mutual(port, ours, ours))
    assert isinstance(refused, Disconnected) and "has expired" in refused.sentence
    assert "the clock says" in refused.sentence or "by the clock of this device" in refused.sentence


def test_the_host_name_is_checked(port: int, ours: Authority, answer: Callable[[Broker], Event]) -> None:
    refused = answer(mutual(port, ours, ours, host="127.0.0.1"))
    assert isinstance(refused, Disconnected) and "not trusted" in refused.sentence


def test_a_missing_or_wrong_authority_is_a_sentence(
    port: int, ours: Authority, answer: Callable[[Broker], Event]
) -> None:
    refused = answer(Broker("localhost", port, ca_file=ours.path("d1.crt")))
    assert isinstance(refused, Disconnected) and "not trusted" in refused.sentence
    refused = answer(Broker("localhost", port, ca_file=ours.path("none.crt")))
    assert isinstance(refused, Disconnected) and "cannot r" in refused.sentence
