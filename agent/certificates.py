"""When certificates end: reads the dates and names of X.509 certificates, no more.

The standard library shows these only for authorities (``SSLContext.get_ca_certs``), not for a device's own certificate,
and a library for the whole of X.509 is too much for three fields.
"""

import ssl
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

_BEGIN = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"
_SEQUENCE, _SET, _OID, _EXPLICIT_VERSION = 0x30, 0x31, 0x06, 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_COMMON_NAME = bytes((0x55, 0x04, 0x03))


class BadCertificate(Exception):
    """One sentence: which file, and what is wrong with it."""


class Certificate(NamedTuple):
    """One certificate of a file. Times are seconds since 1970."""

    subject: str
    """Its common name, else all names with commas."""
    not_before_s: int
    not_after_s: int


def certificates(path: Path) -> list[Certificate]:
    """All certificates in a PEM file, in their order; keys in it are passed over. Raises BadCertificate and OSError."""
    text = path.read_text(encoding="latin-1")
    found = []
    for number, block in enumerate(_blocks(text), 1):
        try:
            found.append(_certificate(ssl.PEM_cert_to_DER_cert(block)))
        except (ValueError, IndexError) as error:
            raise BadCertificate(f"{path}: certificate {number} is damaged or cut off") from error
    if not found:
        raise BadCertificate(f"{path}: no certificate in PEM form ({_BEGIN}) is in it")
    return found


def _blocks(text: str) -> Iterator[str]:
    start = text.find(_BEGIN)
    while start >= 0:
        end = text.find(_END, start)
        # One without an end is cut off: it is shown to the decoder, which says so.
        yield text[start : end + len(_END)] if end >= 0 else text[start:]
        start = text.find(_BEGIN, start + 1)


def _certificate(der: bytes) -> Certificate:
    """RFC 5280, 4.1: Certificate -> TBSCertificate -> version?, serial, algorithm, issuer, validity, subject."""
    fields = list(_parts(_inside(_inside(der, _SEQUENCE), _SEQUENCE)))
    if fields[0][0] == _EXPLICIT_VERSION:
        fields = fields[1:]
    (_, validity), (_, subject) = fields[3:5]
    not_before, not_after = _parts(validity)
    return Certificate(_name(subject), _time_s(*not_before), _time_s(*not_after))


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of the values of a DER sequence (X.690, 8.1). ValueError, IndexError for what is none."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("a value is longer than what holds it")
        yield tag, data[at : at + length]
        at += length


def _inside(data: bytes, tag: int) -> bytes:
    """The content of the first value, which must have this tag."""
    found, content = next(_parts(data), (None, b""))
    if found != tag:
        raise ValueError(f"tag {found}, expected {tag}")
    return content


def _time_s(tag: int, text: bytes) -> int:
    """RFC 5280, 4.1.2.5: UTCTime of 1950 to 2049, GeneralizedTime beyond."""
    digits = text.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        digits = ("20" if int(digits[:2]) < 50 else "19") + digits
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"tag {tag} is no time")
    return int(datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc).timestamp())


def _name(rdns: bytes) -> str:
    """RFC 5280, 4.1.2.4: a sequence of sets of attribute and value."""
    values = []
    for tag, rdn in _parts(rdns):
        for _, pair in _parts(rdn) if tag == _SET else ():
            (kind, oid), (_, value) = _parts(pair)
            text = value.decode("utf-8", "replace")
            if kind == _OID and oid == _COMMON_NAME:
                return text
            values.append(text)
    return ", ".join(values)
