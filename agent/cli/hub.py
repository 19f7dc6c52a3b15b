"""``axond hub``: the other end, which stores what devices send."""

import argparse
import json
import math
import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from rich.table import Table

from agent import log, wire
from agent.cli.command import Command, CommandError, add_json, cells, console, print_json, whole
from agent.topics import ROOT, ROOT_PATTERN
from drivers.extras import how_to_install

if TYPE_CHECKING:
    from agent.hub.reader import HubReader


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = sub.add_parser("run", help="store what devices send, until SIGTERM")
    devices = sub.add_parser("devices", help="devices that were ever heard of")
    results = sub.add_parser("results", help="stored results, oldest first")
    ledger = sub.add_parser("ledger", help="is every result here that should be")
    accept = sub.add_parser("accept", help="take note of what is wrong with a boot: it fails nothing any more")
    events = sub.add_parser("events", help="what devices said of themselves, alarms for example, oldest first")
    acts = ((run, _serve), (devices, _devices), (results, _results), (ledger, _ledger))
    for action, act in (*acts, (accept, _accept), (events, _events)):
        action.add_argument(
            "--db", required=True, metavar="FILE|URL", help="SQLite file, or postgresql://HOST/DATABASE"
        )
        action.set_defaults(act=act)
    run.add_argument("--host", default="127.0.0.1", help="broker (default: 127.0.0.1)")
    run.add_argument("--port", type=whole(1, 65535), help="broker's port (default: 1883, with TLS 8883)")
    run.add_argument("--topic-root", default=ROOT, help=f"default: {ROOT}")
    run.add_argument("--client-id", default="axond-hub", help="default: axond-hub; with --shared it gets an ending")
    run.add_argument("--shared", action="store_true", help="one of several hubs on the same broker and database")
    run.add_argument(
        "--keep-days", type=whole(1, 36500), metavar="N", help="remove results older than that (default: keep all)"
    )
    run.add_argument("--username")
    run.add_argument("--password-file", type=Path, metavar="FILE")
    run.add_argument("--ca-file", type=Path, metavar="FILE", help="use TLS and trust this authority only")
    run.add_argument("--cert-file", type=Path, metavar="FILE")
    run.add_argument("--key-file", type=Path, metavar="FILE")
    run.add_argument("--log-format", choices=("auto", "text", "json", "journal"), default="auto")
    results.add_argument("--device", required=True)
    results.add_argument("--stream", help="default: all")
    results.add_argument("--limit", type=whole(1, 10**9), default=100, help="newest of each stream (default: 100)")
    results.add_argument("--since", type=_time_us, metavar="TIME", help="received from then, as 2025-01-31T12:00:00Z")
    results.add_argument("--until", type=_time_us, metavar="TIME", help="received before then")
    ledger.add_argument("--device", help="default: all")
    accept.add_argument("--device", required=True)
    accept.add_argument("--boot", required=True)
    accept.add_argument("--stream", help="default: all")
    events.add_argument("--device", help="default: all")
    events.add_argument("--limit", type=whole(1, 10**9), default=100, help="the newest (default: 100)")
    for action in (devices, results, ledger, events):
        add_json(action)


def _time_us(text: str) -> int:
    """An argparse type: a moment of ISO 8601, in UTC unless it says otherwise, as Unix microseconds."""
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no time; expected for example 2025-01-31T12:00:00Z") from error
    return round((at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp() * 1e6)


def _run(options: argparse.Namespace) -> int:
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ModuleNotFoundError as error:
        raise CommandError(f"the hub needs SQLAlchemy, which is missing: {how_to_install('hub')}") from error
    from agent.hub.database import label, why

    try:
        code: int = options.act(options)
    except SQLAlchemyError as error:
        raise CommandError(f"hub store {label(options.db)}: {why(error)}") from error
    except wire.WireError as error:
        raise CommandError(f"hub store {label(options.db)}: {error}") from error
    return code


def _open(options: argparse.Namespace) -> "HubReader":
    from agent.hub.reader import HubReader

    return HubReader.open_for_reading(options.db)


def _serve(options: argparse.Namespace) -> int:
    from agent.hub.service import Hub
    from agent.mqtt import Broker, default_port
    from agent.notify import Pulse, notify

    log.set_up("info", options.log_format)
    for file in (options.password_file, options.ca_file, options.cert_file, options.key_file):
        if file:
            file.open("rb").close()
    if not re.fullmatch(ROOT_PATTERN, options.topic_root):
        raise CommandError(
            f"--topic-root {options.topic_root!r}: expected levels of a-z, 0-9, '_' and '-' with '/' between"
        )
    if not options.host or not options.client_id:
        raise CommandError("--host and --client-id must not be empty")
    if (options.username is None) != (options.password_file is None):
        raise CommandError("--username and --password-file go together")
    broker = Broker(
        host=options.host,
        port=options.port or default_port(options.ca_file),
        username=options.username or "",
        password_file=options.password_file,
        ca_file=options.ca_file,
        cert_file=options.cert_file,
        key_file=options.key_file,
    )
    stop = Event()
    os.umask(0o027)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    how = {"root": options.topic_root, "client_id": options.client_id, "shared": options.shared}
    Hub(broker, options.db, **how, keep_days=options.keep_days).run(stop, Pulse().beat)
    notify("STOPPING=1")
    return 0


def _devices(options: argparse.Namespace) -> int:
    with closing(_open(options)) as store:
        devices = store.devices()
    if options.json:
        print_json([asdict(device) for device in devices])
        return 0
    table = Table(
        "device", "state", "agent", "boot", "last heard", "rejected messages", "alarms", "events", "last event"
    )
    for d in devices:
        status = {key: str(d.status.get(key, "-")) for key in ("state", "agent", "boot")}
        last = " ".join(str(d.last_event[key]) for key in ("event", "state", "stream") if key in d.last_event)
        counts = (d.rejected, d.alarms, d.events)
        table.add_row(*cells(d.name, *status.values(), wire.iso_time(d.last_us), *counts, last or "-"))
    console().print(table)
    return 0


def _results(options: argparse.Namespace) -> int:
    with closing(_open(options)) as store:
        chosen = [options.stream] if options.stream else store.streams(options.device)
        rows = [
            {"stream": s, **row}
            for s in chosen
            for row in store.results(options.device, s, options.limit, since_us=options.since, until_us=options.until)
        ]
    if options.json:
        for row in rows:
            sys.stdout.write(_line(row) + "\n")
        return 0
    fused = any("quality" in row for row in rows)
    table = Table(
        "stream", "seq", "captured", "give or take", "label", "score", *(("quality", "missing") if fused else ())
    )
    for row in rows:
        t_us = row.get("t_us")
        captured = wire.iso_time(t_us) if isinstance(t_us, int) else "-"
        more = (row.get("quality", "-"), row.get("missing", "-")) if fused else ()
        unc_ms = row["t_unc_ms"]
        within = "nobody knows" if unc_ms is None else f"{unc_ms:g} ms"
        table.add_row(*cells(row["stream"], row["seq"], captured, within, row.get("label"), row.get("score"), *more))
    console().print(table)
    return 0


def _ledger(options: argparse.Namespace) -> int:
    with closing(_open(options)) as store:
        lines = store.ledger(options.device)
    failed = any(line.is_open for line in lines)
    if options.json:
        print_json([{**asdict(line), "problem": line.problem, "open": line.is_open} for line in lines])
        return 1 if failed else 0
    table = Table("device", "boot", "stream", "stored", "expired", "missing", "upto", "ahead", "came again", "problem")
    for n in lines:
        counts = (n.stored, n.expired, n.missing, n.upto, n.ahead, n.duplicates)
        note = f"accepted {wire.iso_time(n.accepted_us)}: " if n.problem and not n.is_open else ""
        table.add_row(*cells(n.device, n.boot, n.stream, *counts, note + (n.problem or "-")))
    console().print(table)
    return 1 if failed else 0


def _accept(options: argparse.Namespace) -> int:
    from agent.hub.store import HubStore

    with closing(_open(options)) as store:
        lines = [line for line in store.ledger(options.device) if line.boot == options.boot and line.is_open]
    lines = [line for line in lines if options.stream in (None, line.stream)]
    if not lines:
        raise CommandError(
            f"device {options.device}, boot {options.boot}: nothing to accept; axond hub ledger says what is wrong"
        )
    with closing(HubStore.open(options.db)) as store:
        store.accept(lines)
    for line in lines:
        sys.stdout.write(f"accepted: device {line.device}, boot {line.boot}, stream {line.stream}: {line.problem}\n")
    return 0


def _events(options: argparse.Namespace) -> int:
    with closing(_open(options)) as store:
        events = store.events(options.device, options.limit)
    if options.json:
        print_json([asdict(event) for event in events])
        return 0
    table = Table("device", "number", "received", "event")
    for one in events:
        what = ", ".join(f"{key} {value}" for key, value in one.event.items())
        table.add_row(*cells(one.device, one.number, wire.iso_time(one.received_us), what))
    console().print(table)
    return 0


def _line(row: Mapping[str, wire.Value]) -> str:
    """One result as JSON, which knows neither NaN nor infinities: they become null."""
    try:
        return json.dumps(row, allow_nan=False)
    except ValueError:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        return json.dumps(finite)


COMMAND = Command(
    "hub",
    "store what devices send, and look at it",
    """The hub stores each result once, in a SQLite file or in PostgreSQL, and tells each device how far it got.
Several hubs may share one database: start each with --shared. libpq's own places for a password (~/.pgpass,
a service file) keep it out of the command line.

  axond hub run --host broker.example --db hub.db --keep-days 365
  axond hub run --host broker.example --db postgresql://hub@db.example/axond --shared
  axond hub devices --db hub.db
  axond hub results --db hub.db --device node-7
  axond hub ledger --db hub.db        exit code 1 if the books do not agree
  axond hub accept --db hub.db --device node-7 --boot 9f3c0a12     a person knows; the exit code is 0 again
  axond hub events --db hub.db
""",
    _configure,
    _run,
)
