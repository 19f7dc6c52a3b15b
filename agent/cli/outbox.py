"""``axond outbox``: what waits on this device to be delivered."""

import argparse
import json
import sqlite3
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from agent import config, wire
from agent.cli.command import Command, CommandError, add_config, add_json, cells, console, print_json
from agent.cli.status import ledger_line
from agent.outbox_reader import OutboxUnreadable, records
from agent.outbox_store import audit


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    stats = sub.add_parser("stats", help="how much waits, and the ledger")
    ls = sub.add_parser("ls", help="the stored batches, oldest first")
    export = sub.add_parser("export", help="every pending result as one JSON line")
    for action, run in ((stats, _stats), (ls, _ls), (export, _export)):
        add_config(action)
        action.set_defaults(act=run)
    for action in (stats, ls):
        add_json(action)


def _run(options: argparse.Namespace) -> int:
    path = config.load(options.config).device.state_dir / "outbox.db"
    try:
        code: int = options.act(options, path)
    except OutboxUnreadable as error:
        raise CommandError(str(error)) from error
    except (sqlite3.Error, wire.WireError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    return code


def _stats(options: argparse.Namespace, path: Path) -> int:
    pending = list(records(path))
    ledger = {f"{boot}/{stream}": counts for (boot, stream), counts in audit(path).items()}
    facts: dict[str, Any] = {
        "path": str(path),
        "bytes": sum(p.stat().st_size for p in path.parent.glob(path.name + "*") if not p.name.endswith("-shm")),
        "batches": sum(not r.is_gap for r in pending),
        "gap_records": sum(r.is_gap for r in pending),
        "rows": sum(r.rows for r in pending if not r.is_gap),
        "ledger": {key: {**asdict(counts), "balanced": counts.balanced()} for key, counts in ledger.items()},
    }
    if options.json:
        print_json(facts)
        return 0
    print(
        f"{path}: {facts['rows']} results in {facts['batches']} batches, {facts['gap_records']} gap records, ", end=""
    )
    print(f"{facts['bytes'] / 1024:.0f} KiB on disk")
    for key, counts in facts["ledger"].items():
        print(f"  {key}: {ledger_line(counts)}")
    return 0


def _ls(options: argparse.Namespace, path: Path) -> int:
    rows = [
        {
            "id": r.id,
            "boot": r.boot,
            "stream": r.stream,
            "seq": [r.seq0, r.seq1],
            "kind": "gap" if r.is_gap else "results",
            "created": wire.iso_time(r.created_us),
            "bytes": len(r.payload),
        }
        for r in records(path)
    ]
    if options.json:
        print_json(rows)
        return 0
    table = Table("id", "boot", "stream", "seq", "kind", "created", "bytes")
    for row in rows:
        seq = f"{row['seq'][0]}-{row['seq'][1]}"  # type: ignore[index]  # a list of two, made just above
        table.add_row(*cells(*(seq if key == "seq" else value for key, value in row.items())))
    console().print(table)
    return 0


def _export(options: argparse.Namespace, path: Path) -> int:
    for record in records(path):
        batch = wire.decode(record.payload)
        for row in batch.rows:
            sys.stdout.write(json.dumps({"boot": batch.boot, "stream": batch.stream, **row}) + "\n")
    return 0


COMMAND = Command(
    "outbox",
    "what waits to be delivered",
    """Look into the outbox of this configuration, read-only; the agent may be running.

  axond outbox stats --config axond.toml
  axond outbox ls --config axond.toml
  axond outbox export --config axond.toml > pending.jsonl
""",
    _configure,
    _run,
)
