"""``axond hub``: the other end, which stores what devices send."""

import argparse
import json
import os
import re
import signal
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from threading import Event

from rich.table import Table

from agent import log, wire
from agent.cli.command import Command, CommandError, add_json, cells, console, print_json, whole
from agent.hub.store import HubStore
from agent.topics import ROOT, ROOT_PATTERN


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = sub.add_parser("run", help="store what devices send, until SIGTERM")
    devices = sub.add_parser("devices", help="devices that were ever heard of")
    results = sub.add_parser("results", help="stored results, oldest first")
    ledger = sub.add_parser("ledger", help="is every result here that should be")
    for action, act in ((run, _serve), (devices, _devices), (results, _results), (ledger, _ledger)):
        action.add_argument("--db", type=Path, required=True, metavar="FILE", help="the hub's SQLite file")
        action.set_defaults(act=act)
    run.add_argument("--host", default="127.0.0.1", help="broker (default: 127.0.0.1)")
    run.add_argument("--port", type=whole(1, 65535), help="broker's port (default: 1883, with TLS 8883)")
    run.add_argument("--topic-root", default=ROOT, help=f"default: {ROOT}")
    run.add_argument("--client-id", default="axond-hub", help="default: axond-hub; one per running hub")
    run.add_argument("--username")
    run.add_argument("--password-file", type=Path, metavar="FILE")
    run.add_argument("--ca-file", type=Path, metavar="FILE", help="use TLS and trust this authority only")
    run.add_argument("--cert-file", type=Path, metavar="FILE")
    run.add_argument("--key-file", type=Path, metavar="FILE")
    run.add_argument("--log-format", choices=("auto", "text", "json", "journal"), default="auto")
    results.add_argument("--device", required=True)
    results.add_argument("--stream", help="default: all")
    results.add_argument("--limit", type=whole(1, 10**9), default=100, help="newest of each stream (default: 100)")
    ledger.add_argument("--device", help="default: all")
    for action in (devices, results, ledger):
        add_json(action)


def _run(options: argparse.Namespace) -> int:
    try:
        code: int = options.act(options)
    except (sqlite3.Error, OSError, wire.WireError) as error:
        raise CommandError(str(error) if isinstance(error, OSError) else f"hub store {options.db}: {error}") from error
    return code


def _serve(options: argparse.Namespace) -> int:
    from agent.hub.service import Hub
    from agent.mqtt import Broker, default_port

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
    Hub(broker, options.db, root=options.topic_root, client_id=options.client_id).run(stop)
    return 0


def _devices(options: argparse.Namespace) -> int:
    with closing(HubStore.open_for_reading(options.db)) as store:
        devices = store.devices()
    if options.json:
        print_json([asdict(device) for device in devices])
        return 0
    table = Table("device", "state", "agent", "boot", "last heard", "rejected messages")
    for d in devices:
        status = {key: str(d.status.get(key, "-")) for key in ("state", "agent", "boot")}
        table.add_row(*cells(d.name, *status.values(), wire.iso_time(d.last_us), d.rejected))
    console().print(table)
    return 0


def _results(options: argparse.Namespace) -> int:
    with closing(HubStore.open_for_reading(options.db)) as store:
        streams = dict.fromkeys(line.stream for line in store.ledger(options.device))
        chosen = [options.stream] if options.stream else list(streams)
        rows = [{"stream": s, **row} for s in chosen for row in store.results(options.device, s, options.limit)]
    if options.json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
        return 0
    fused = any("quality" in row for row in rows)
    table = Table("stream", "seq", "captured", "label", "score", *(("quality", "missing") if fused else ()))
    for row in rows:
        t_us = row.get("t_us")
        captured = wire.iso_time(t_us) if isinstance(t_us, int) else "-"
        more = (row.get("quality", "-"), row.get("missing", "-")) if fused else ()
        table.add_row(*cells(row["stream"], row["seq"], captured, row.get("label"), row.get("score"), *more))
    console().print(table)
    return 0


def _ledger(options: argparse.Namespace) -> int:
    with closing(HubStore.open_for_reading(options.db)) as store:
        lines = store.ledger(options.device)
    problems = [line for line in lines if line.problem]
    if options.json:
        print_json([{**asdict(line), "problem": line.problem} for line in lines])
        return 1 if problems else 0
    table = Table("device", "boot", "stream", "stored", "missing", "upto", "came again", "problem")
    for n in lines:
        counts = (n.stored, n.missing, n.upto, n.duplicates)
        table.add_row(*cells(n.device, n.boot, n.stream, *counts, n.problem or "-"))
    console().print(table)
    return 1 if problems else 0


COMMAND = Command(
    "hub",
    "store what devices send, and look at it",
    """The hub stores results idempotently in SQLite and tells each device how far it got.

  axond hub run --host broker.example --db hub.db
  axond hub devices --db hub.db
  axond hub results --db hub.db --device node-7
  axond hub ledger --db hub.db        exit code 1 if the books do not agree
""",
    _configure,
    _run,
)
