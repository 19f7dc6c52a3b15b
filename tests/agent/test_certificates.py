"""Dates and names of certificates, against the real OpenSSL, and any bytes in their place."""

import base64
import ssl
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.certificates import BadCertificate, Certificate, certificates


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca`` is an authority, ``leaf`` a device that it signed; ``far`` ends beyond 2049, ``nameless`` has no CN."""
    made = tmp_path_factory.mktemp("certificates")
    try:
        _openssl(made, "version")
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    for name, subject, days in (
        ("ca", "/O=Works/CN=ca", "20"),
        ("far", "/CN=far away", "20000"),
        ("nameless", "/C=CH/O=Works", "1"),
    ):
        _openssl(
            made,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", subject, "-days", days),
        )
    _openssl(
        made,
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8"),
        *("-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=gerät 7"),
    )
    _openssl(
        made,
        *("x509", "-req", "-in", "leaf.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", "leaf.crt", "-days", "3"),
    )
    return made


def _openssl(folder: Path, *arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def _as_openssl_says(path: Path) -> tuple[int, int]:
    dates = _openssl(path.parent, "x509", "-in", path.name, "-noout", "-startdate", "-enddate").split("\n")
    begin, end = (datetime.strptime(line.partition("=")[2], "%b %d %H:%M:%S %Y %Z") for line in dates[:2])
    return tuple(int(one.replace(tzinfo=timezone.utc).timestamp()) for one in (begin, end))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "subject"), [("ca", "ca"), ("leaf", "gerät 7"), ("far", "far away"), ("nameless", "CH, Works")]
)
def test_as_openssl_says(folder: Path, name: str, subject: str) -> None:
    path = folder / f"{name}.crt"
    assert certificates(path) == [Certificate(subject, *_as_openssl_says(path))]


def test_a_chain_is_read_in_its_order_and_the_key_beside_it_is_passed_over(folder: Path, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_text("".join((folder / part).read_text() for part in ("leaf.key", "leaf.crt", "ca.crt")))
    assert [one.subject for one in certificates(chain)] == ["gerät 7", "ca"]
    assert certificates(chain)[1:] == certificates(folder / "ca.crt")


def test_the_authorities_of_this_machine_are_read_as_openssl_reads_them() -> None:
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if not bundle.exists():
        pytest.skip("this machine has no bundle of authorities")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(bundle)
    expected = sorted(ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs())
    assert sorted({one.not_after_s for one in certificates(bundle)}) == sorted(set(expected))


def test_a_file_without_certificate_or_with_half_of_one_is_named(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text((folder / "ca.key").read_text())
    with pytest.raises(BadCertificate, match=r"other\.pem: no certificate"):
        certificates(other)
    whole = (folder / "ca.crt").read_text()
    for cut in (60, len(whole) // 2, len(whole) - 30):
        other.write_text(whole[:cut])
        with pytest.raises(BadCertificate, match=r"other\.pem: certificate 1 is damaged"):
            certificates(other)


@given(data=st.binary(max_size=200), at=st.integers(0, 300), whole=st.booleans())
def test_any_bytes_are_one_clear_error_or_a_certificate(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, whole: bool
) -> None:
    der = ssl.PEM_cert_to_DER_cert((folder / "ca.crt").read_text())
    damaged = data if whole else der[:at] + data + der[at + len(data) :]
    path = tmp_path_factory.getbasetemp() / "any.pem"
    body = base64.encodebytes(damaged).decode()
    path.write_text(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    try:
        found = certificates(path)
    except BadCertificate as error:
        assert "any.pem: certificate 1 is damaged" in str(error)
    else:
        assert len(found) == 1
