"""Certificates: do they still hold, and does the key fit?"""

import ssl
from collections.abc import Iterator
from pathlib import Path

from agent.certificates import BadCertificate, Certificate, certificates
from agent.doctor.finding import Finding, Word
from agent.doctor.scene import Scene
from agent.wire import iso_time, wall_us

SOON_S = 30 * 86400
DAY_S = 86400


def look(scene: Scene) -> Iterator[Finding]:
    """Those of the uplink and of the mirrors."""
    settings = scene.settings
    tables = [("uplink", settings.uplink), *((f"mirrors.{name}", m.settings) for name, m in settings.mirrors.items())]
    for table, values in tables:
        for key in ("ca_file", "cert_file"):
            path: Path | None = getattr(values, key, None)
            if path is not None:
                yield from _file(path, f"{table}.{key}", mine=scene.runner.is_me)
        cert, private = getattr(values, "cert_file", None), getattr(values, "key_file", None)
        if cert is not None and private is not None:
            yield from _pair(cert, private, table, mine=scene.runner.is_me)


def _file(path: Path, where: str, *, mine: bool) -> Iterator[Finding]:
    try:
        found = certificates(path)
    except (BadCertificate, OSError) as error:
        yield Finding(
            "certificates.unreadable", "note" if isinstance(error, PermissionError) and not mine else "problem",
            "{sentence}", where,
            "put a certificate in PEM form there", ("openssl x509 -in {path} -noout -subject -dates",),
            {"sentence": str(error), "path": str(path)},
        )  # fmt: skip
        return
    if where.endswith("ca_file") and len(found) > 1:
        yield from _authorities(path, where, found)
        return
    for one in found:
        yield _dates(path, where, one)


def _authorities(path: Path, where: str, found: list[Certificate]) -> Iterator[Finding]:
    """One of them signed the broker's certificate; the step of TLS tells if that one has ended."""
    now_s = wall_us() // 1_000_000
    yield _dates(path, where, max(found, key=lambda one: one.not_after_s))
    ended = sum(one.not_after_s < now_s for one in found)
    if 0 < ended < len(found):
        yield Finding(
            "certificates.some_ended", "note", "{ended} of {count} authorities in {path} have ended", where,
            "name only the authority of your broker: the others may vouch for somebody else", (),
            {"ended": ended, "count": len(found), "path": str(path)},
        )  # fmt: skip


def _dates(path: Path, where: str, one: Certificate) -> Finding:
    now_s = wall_us() // 1_000_000
    facts: dict[str, object] = {
        "path": str(path), "subject": one.subject, "end": _date(one.not_after_s),
        "begin": _date(one.not_before_s), "days": (one.not_after_s - now_s) // DAY_S,
    }  # fmt: skip
    show = ("openssl x509 -in {path} -noout -subject -dates",)
    if one.not_after_s < now_s:
        return Finding(
            "certificates.expired", "problem", "the certificate of {subject} in {path} ended on {end}", where,
            "have a new one signed, put it there, and restart the agent", show, facts,
        )  # fmt: skip
    if one.not_before_s > now_s:
        return Finding(
            "certificates.not_yet", "problem", "the certificate of {subject} in {path} begins on {begin} only", where,
            "is the clock of this machine right?", (*show, "timedatectl"), facts,
        )  # fmt: skip
    if one.not_after_s < now_s + SOON_S:
        return Finding(
            "certificates.soon", "warning", "the certificate of {subject} in {path} ends in {days} days, on {end}",
            where, "have a new one signed in time", show, facts,
        )  # fmt: skip
    return Finding(
        "certificates.hold", "ok", "the certificate of {subject} in {path} holds for {days} days", where, facts=facts
    )


def _date(unix_s: int) -> Word:
    return Word(iso_time(unix_s * 1_000_000)[:10])


def _pair(cert: Path, private: Path, table: str, *, mine: bool) -> Iterator[Finding]:
    facts: dict[str, object] = {"cert": str(cert), "key": str(private)}
    where = f"{table}.key_file"
    compare = ("openssl x509 -in {cert} -noout -pubkey | sha256sum", "openssl pkey -in {key} -pubout | sha256sum")
    try:
        # Without a password of ours OpenSSL would ask for one on the terminal.
        ssl.create_default_context().load_cert_chain(cert, private, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or ""
        if "MISMATCH" in reason:
            yield Finding(
                "certificates.key_mismatch", "problem", "the key {key} does not belong to the certificate {cert}",
                where, "put the key there that the certificate was asked for with; these two say the same then",
                compare, facts,
            )  # fmt: skip
        else:
            yield Finding(
                "certificates.key_unusable", "problem",
                "the key {key} cannot be used ({reason}); one with a password cannot",
                where, "put the plain key there, for its user alone", ("openssl pkey -in {key} -noout",),
                {**facts, "reason": reason or "no key"},
            )  # fmt: skip
    except OSError as error:
        yield Finding(
            "certificates.unreadable", "problem" if mine else "note", "{key} cannot be read ({reason})", where,
            "look as the user that runs axond, or as root", (), {**facts, "reason": error.strerror or ""},
        )  # fmt: skip
    else:
        yield Finding("certificates.key_fits", "ok", "the key {key} belongs to {cert}", where, facts=facts)
