"""The support bundle: what somebody who helps needs to see, and no text that a person, a sensor or a log wrote."""

import gzip
import io
import json
import re
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.doctor.finding import Finding
from agent.doctor.redact import COUNTS, Redactor
from agent.doctor.scene import UNIT, Scene, first_line, there
from agent.outbox_file import file_bytes, set_asides
from agent.outbox_reader import OutboxUnreadable, totals
from agent.outbox_store import audit
from agent.wire import iso_time, wall_us

LOG_LINES = 300
LOG_S = 10.0
README = """A support bundle of axond, made on {now}.

doctor.json   what axond doctor found
config.json   the configuration: keys, numbers and fixed choices
status.json   what the running agent says of itself; null if none runs
outbox.json   how much waits, and the ledger; no results
journal.json  the last lines of the service: when, how bad, and from which line of the program; not their text
usb.json      the devices on USB; of serial numbers only a tag

Texts are replaced by their length and a tag. Equal texts have equal tags within this bundle; the key of the tags was
random and is kept nowhere. Names, addresses, passwords, paths and results are not in here.
"""
_HEX = re.compile(r"[0-9a-f]{4}")
_MESSAGE_ID = re.compile(r"[0-9a-f]{32}")


def make(scene: Scene, findings: list[Finding]) -> bytes:
    """A .tar.gz."""
    redact = Redactor()
    documents: dict[str, Any] = {
        "doctor.json": [redact.finding(finding) for finding in findings],
        "config.json": redact.config(scene.document),
        "status.json": redact.status(scene.status),
        "outbox.json": _outbox(scene, redact),
        "journal.json": list(_journal(redact)),
        "usb.json": list(_usb(scene, redact)),
    }
    parts = {"README.txt": README.format(now=iso_time(wall_us()))}
    parts |= {name: json.dumps(document, indent=1) for name, document in documents.items()}
    return packed({name: text.encode() for name, text in parts.items()})


def packed(parts: dict[str, bytes]) -> bytes:
    """The files in a folder of their own; without user names, times and modes of this machine."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as squeezed, tarfile.open(fileobj=squeezed, mode="w") as tar:
        for name, content in parts.items():
            entry = tarfile.TarInfo(f"axond-support/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _outbox(scene: Scene, redact: Redactor) -> dict[str, Any]:
    path = scene.outbox
    try:
        if not there(path):
            return {"there": False}
        ledger = audit(path)
        numbers = totals(path)
    except (OutboxUnreadable, sqlite3.Error, OSError) as error:
        return {"there": True, "unreadable": type(error).__name__}
    return {
        "there": True,
        "bytes": file_bytes(path),
        "set_aside": len(set_asides(path)),
        "totals": {name: value for name, value in numbers.items() if name in COUNTS},
        "ledger": {
            f"#{redact.tag(boot)}/#{redact.tag(stream)}": {
                key: getattr(counts, key) for key in ("produced", "delivered", "pending", "evicted", "refused")
            }
            for (boot, stream), counts in ledger.items()
        },
    }


def _journal(redact: Redactor) -> Iterator[dict[str, Any]]:
    """Which lines of the program spoke: with its source at hand that tells what they said, and not about whom."""
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        return
    try:
        done = subprocess.run(
            [journalctl, "-u", UNIT, "-o", "json", "-n", str(LOG_LINES), "--no-pager", "--quiet"],
            capture_output=True, text=True, errors="replace", timeout=LOG_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in done.stdout.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield journal_line(entry, redact)


def journal_line(entry: dict[str, Any], redact: Redactor) -> dict[str, Any]:
    """What is shown of one entry of ``journalctl -o json``."""
    stamp, priority, line = (_number(entry.get(key)) for key in ("__REALTIME_TIMESTAMP", "PRIORITY", "CODE_LINE"))
    message_id = str(entry.get("MESSAGE_ID"))
    return {
        "ts": iso_time(stamp) if stamp is not None else None,
        "priority": priority,
        "logger": _ours(str(entry.get("AXOND_LOGGER", "")), redact),
        "line": line,
        "message_id": message_id if _MESSAGE_ID.fullmatch(message_id) else None,
        "message": redact.hidden(entry.get("MESSAGE")),
    }


def _ours(logger: str, redact: Redactor) -> str:
    """A module's name, if it is a file of this program."""
    root = Path(__file__).resolve().parents[2]
    parts = logger.split(".")
    known = parts[0] in ("agent", "drivers", "models") and all(part.isidentifier() for part in parts)
    return logger if known and (root / Path(*parts)).with_suffix(".py").is_file() else redact.hidden(logger)


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, str) and value.isdecimal() else None


def _usb(scene: Scene, redact: Redactor) -> Iterator[dict[str, Any]]:
    for folder in sorted((scene.root / "sys/bus/usb/devices").glob("*")):
        vendor, product = first_line(folder / "idVendor"), first_line(folder / "idProduct")
        if _HEX.fullmatch(vendor) and _HEX.fullmatch(product):
            speed = first_line(folder / "speed")
            yield {
                "id": f"{vendor}:{product}",
                "mbit_s": int(speed) if speed.isdecimal() else None,
                "serial": redact.hidden(first_line(folder / "serial")),
                "sleeps": first_line(folder / "power/control") == "auto",
            }
