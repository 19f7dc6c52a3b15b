"""The doctor walks to a real broker and says at which step it fails: name, connection, TLS, login, rights.

One mosquitto with several doors: without TLS, with TLS, and with certificates on both sides.
"""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.doctor import broker_way
from agent.doctor.broker import look
from agent.doctor.configuration import set_up
from tests.agent.doctor_stage import Fault, Stage, check, staged
from tests.brokers import MOSQUITTO, Mosquitto, free_port

pytestmark = [
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]

NAMES = "subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
ACL = "pattern write axond/v1/%u/up/#\npattern read axond/v1/%u/down/#\n"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Doors:
    """A broker that runs, the ports that it listens on, and the folder of certificates."""

    plain: int
    tls: int
    mutual: int
    expired: int
    folder: Path


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> None:
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(folder, "req", "-x509", *NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}",
            "-days", "400", *usage)  # fmt: skip


def sign(folder: Path, by: str, name: str, days: int = 400) -> None:
    openssl(folder, "req", *NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.crt", "-CAkey", f"{by}.key",
            "-CAcreateserial", "-out", f"{name}.crt", "-extfile", "names", "-days", str(days))  # fmt: skip


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("doctor-broker")
    (folder / "names").write_text(NAMES)
    for name in ("ours", "foreign"):
        authority(folder, name)
    for by, name, days in (
        ("ours", "server", 400), ("ours", "stage", 400), ("ours", "other", 400), ("ours", "soon", 7),
        ("ours", "over", -1), ("foreign", "stranger", 400),
    ):  # fmt: skip
        sign(folder, by, name, days)
    ports = [free_port() for _ in range(3)]
    parts = [f"listener {ports[0]} 127.0.0.1", *server(folder, "server")]
    parts += [f"listener {ports[1]} 127.0.0.1", *server(folder, "server"), "require_certificate true"]
    parts += [f"listener {ports[2]} 127.0.0.1", *server(folder, "over")]
    users = {"stage": "right", "other": "right"}
    broker = Mosquitto(folder / "broker", users=users, acl=ACL, extra="\n".join(parts)).start()
    yield Doors(broker.port, *ports, folder)
    broker.stop()


def server(folder: Path, name: str) -> list[str]:
    return [f"cafile {folder}/ours.crt", f"certfile {folder}/{name}.crt", f"keyfile {folder}/{name}.key"]


@pytest.fixture
def stage(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(broker_way, "ALERT_S", 0.1)  # this broker is near
    with staged() as made:
        made.folder.joinpath("password").write_text("right\n")
        made.folder.joinpath("wrong").write_text("s3cr3t-wrong\n")
        made.things["doors"] = doors
        uplink(made)
        yield made


def uplink(stage: Stage, host: str = "localhost", port: int | None = None, more: str = "", **files: str) -> None:
    """The table, with certificates of the module's folder."""
    doors: Doors = stage.things["doors"]
    given = {"username": "stage", "password_file": "password", **files}
    lines = [f'host = "{host}"', f"port = {port or doors.plain}", more]
    for key, value in given.items():
        place = value if key == "username" else str((doors.folder if "." in value else stage.folder) / value)
        lines.append(f'{key} = "{place}"')
    stage.table("uplink", "\n".join(lines))


def closed(stage: Stage) -> None:
    uplink(stage, port=free_port())


def doors_of(stage: Stage) -> Doors:
    found: Doors = stage.things["doors"]
    return found


def tls(stage: Stage, ca: str = "ours.crt", **files: str) -> None:
    uplink(stage, port=doors_of(stage).tls, ca_file=ca, **files)


def mutual(stage: Stage, name: str | None = "stage", key: str | None = None) -> None:
    files = {} if name is None else {"cert_file": f"{name}.crt", "key_file": f"{key or name}.key"}
    uplink(stage, port=doors_of(stage).mutual, ca_file="ours.crt", **files)


def mirror(stage: Stage) -> None:
    stage.table("mirrors.home", f'kind = "homeassistant"\nhost = "localhost"\nport = {free_port()}')


def as_other(stage: Stage) -> None:
    """Another user's rights are not for this device's topics."""
    uplink(stage, username="other")


def encrypted(stage: Stage) -> None:
    folder = doors_of(stage).folder
    openssl(folder, "pkey", "-in", "stage.key", "-aes256", "-passout", "pass:x", "-out", "locked.key")
    mutual(stage, "stage", "locked")


FAULTS = [
    Fault("a name that does not resolve", "broker", "broker.dns", "no-such.invalid",
          lambda s: uplink(s, host="no-such.invalid"), uplink),
    Fault("a port that nobody listens on", "broker", "broker.tcp", "localhost", closed, uplink),
    Fault("a broker with a foreign certificate", "broker", "broker.tls", "localhost",
          lambda s: tls(s, "foreign.crt"), tls),
    Fault("a broker with an expired certificate", "broker", "broker.tls", "expired",
          lambda s: uplink(s, port=doors_of(s).expired, ca_file="ours.crt"), tls),
    Fault("a certificate for another name", "broker", "broker.tls", "127.0.0.1",
          lambda s: uplink(s, "127.0.0.1", doors_of(s).tls, ca_file="ours.crt"), tls),
    Fault("TLS on a port without", "broker", "broker.tls", "localhost",
          lambda s: uplink(s, ca_file="ours.crt"), tls),
    Fault("no certificate where one is wanted", "broker", "broker.tls", "localhost",
          lambda s: mutual(s, None), mutual),
    Fault("a certificate that the broker does not trust", "broker", "broker.tls", "localhost",
          lambda s: mutual(s, "stranger"), mutual),
    Fault("a wrong password", "broker", "broker.auth", "localhost",
          lambda s: uplink(s, password_file="wrong"), uplink),
    Fault("rules that forbid to publish", "broker", "broker.acl", "axond/v1/stage/up/live/axond-doctor", as_other,
          uplink),
    Fault("a fallback that is not there", "broker", "broker.dns", "uplink.fallbacks.0",
          lambda s: uplink(s, more='fallbacks = ["no-such.invalid"]'), uplink),
    Fault("a mirror's broker that is not there", "broker", "broker.tcp", "mirrors.home.host", mirror,
          lambda s: s.table("mirrors.home", f'kind = "homeassistant"\nhost = "localhost"\nport = {doors_of(s).plain}')),
    Fault("a certificate that has ended", "certificates", "certificates.expired", "over.crt",
          lambda s: mutual(s, "over"), mutual),
    Fault("a certificate that ends soon", "certificates", "certificates.soon", "uplink.cert_file",
          lambda s: mutual(s, "soon"), mutual),
    Fault("a key of another certificate", "certificates", "certificates.key_mismatch", "other.key",
          lambda s: mutual(s, "stage", "other"), mutual),
    Fault("a key with a password", "certificates", "certificates.key_unusable", "locked.key", encrypted, mutual),
    Fault("an authority that is no certificate", "certificates", "certificates.unreadable", "ours.key",
          lambda s: tls(s, "ours.key"), tls),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault(stage: Stage, fault: Fault) -> None:
    found = check(stage, fault)
    assert "s3cr3t-wrong" not in str(found.told())


def test_each_step_is_told_with_its_time_and_the_first_failure_is_the_last(stage: Stage) -> None:
    mutual(stage)
    steps = [finding.id for finding in look(set_up(stage.config, stage.root))]
    assert steps == ["broker.dns", "broker.tcp", "broker.tls", "broker.auth", "broker.acl"]
    assert all(finding.level == "ok" and " ms)" in finding.told()["seen"] for finding in stage.look("broker"))
    closed(stage)
    assert [finding.id for finding in look(set_up(stage.config, stage.root))] == ["broker.dns", "broker.tcp"]


def test_a_server_that_never_answers_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.doctor.broker.ANSWER_S", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        uplink(stage, "127.0.0.1", mute.getsockname()[1])
        found = {finding.id: finding for finding in stage.look("broker")}
    assert found["broker.auth"].level == "problem"


def test_a_login_that_the_running_agent_uses_is_left_alone(stage: Stage) -> None:
    """A broker may take the user's name as client id, and a second login would throw the agent out."""
    status = {
        "up_s": 100.0,
        "uplink": {"connected": True, "since_s": 99.0, "error": None, "broker": "b", "sent": 1, "delivered": 1},
    }
    log = doors_of(stage).folder / "broker/mosquitto.log"
    logins = log.read_text().count("New client connected")
    scene = replace(set_up(stage.config, stage.root), status=status)
    assert [finding.id for finding in look(scene)] == [
        "broker.agent_connected", "broker.dns", "broker.tcp", "broker.login_not_tried",
    ]  # fmt: skip
    assert log.read_text().count("New client connected") == logins


@pytest.mark.parametrize(
    ("up_s", "since_s", "said"),
    [(100.0, 5.0, "broker.unsteady"), (8.0, 1.0, "broker.unsteady"), (8.0, 7.5, "broker.agent_connected")],
)
def test_a_fresh_connection_is_watched_unless_it_is_the_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, up_s: float, since_s: float, said: str
) -> None:
    """Of an agent that has just started, too: a rival throws it out from its first second on."""
    uplink = {"connected": True, "since_s": since_s, "error": None, "broker": "b", "sent": 1, "delivered": 1}
    later = {"up_s": up_s, "uplink": uplink | {"error": "connection to b lost: closed by the broker"}}
    monkeypatch.setattr("agent.doctor.broker.asked", lambda _: (later, None))
    scene = replace(set_up(stage.config, stage.root), status={"up_s": up_s, "uplink": uplink})
    assert next(look(scene)).id == said


def test_of_many_authorities_the_last_to_end_counts(stage: Stage) -> None:
    folder = doors_of(stage).folder
    (folder / "many.crt").write_text((folder / "ours.crt").read_text() + (folder / "over.crt").read_text())
    tls(stage, "many.crt")
    found = {finding.id: finding for finding in stage.look("certificates")}
    assert set(found) == {"certificates.hold", "certificates.some_ended"}
    assert "1 of 2" in found["certificates.some_ended"].told()["seen"]
