"""``axond outbox``: what waits on this device to be delivered."""

import argparse
import sqlite3
import sys
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

from rich.table import Table

from agent import config, wire
from agent.cli.command import Command, CommandError, add_config, add_json, cells, console, print_json
from agent.cli.status import ledger_line
from agent.outbox_export import FORMATS, NoParquet, write_csv, write_jsonl, write_parquet
from agent.outbox_file import claimed, file_bytes, ready_path
from agent.outbox_pages import problem
from agent.outbox_reader import OutboxUnreadable, heads, problems, torn_at_rest, totals, wear
from agent.outbox_store import audit
from agent.record import Priority, Record


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    stats = sub.add_parser("stats", help="how much waits, the ledger, and what was written to the flash")
    ls = sub.add_parser("ls", help="the stored batches, oldest first")
    fsck = sub.add_parser("fsck", help="is the file whole, and do the books balance? exit code 1 if not")
    export = sub.add_parser("export", help="every pending result")
    vacuum = sub.add_parser("vacuum", help="give unused room back to the file system; no agent may be running")
    for action, run in ((stats, _stats), (ls, _ls), (fsck, _fsck), (export, _export), (vacuum, _vacuum)):
        add_config(action)
        action.set_defaults(act=run)
    for action in (stats, ls, fsck):
        add_json(action)
    export.add_argument("--format", choices=FORMATS, default="jsonl", help="default: jsonl, one JSON object a line")
    export.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")


def _run(options: argparse.Namespace) -> int:
    path = config.load(options.config, whole=False).device.state_dir / "outbox.db"
    try:
        if options.act in (_stats, _ls, _export) and (torn := torn_at_rest(path)) is not None:
            print(f"axond: {path}: {torn}; an agent that starts on it saves more than is shown here", file=sys.stderr)
        code: int = options.act(options, path)
    except (OutboxUnreadable, NoParquet) as error:
        raise CommandError(str(error)) from error
    except (sqlite3.Error, wire.WireError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    return code


def _stats(options: argparse.Namespace, path: Path) -> int:
    batches = gaps = rows = 0
    for record, _ in heads(path):
        batches, gaps = batches + (not record.is_gap), gaps + record.is_gap
        rows += 0 if record.is_gap else record.rows
    ledger = {f"{boot}/{stream}": counts for (boot, stream), counts in audit(path).items()}
    numbers = totals(path)
    flash = wear(numbers)
    facts: dict[str, Any] = {
        "path": str(path),
        "bytes": file_bytes(path),
        "batches": batches,
        "gap_records": gaps,
        "rows": rows,
        "damage": {name: numbers.get(name, 0) for name in ("damaged_files", "salvaged", "lost", "unproven")},
        "flash": {
            "written_bytes": flash.written_bytes,
            "bytes_per_result": round(flash.bytes_per_result, 1),
            "bytes_per_day": round(flash.bytes_per_day),
        },
        "ledger": {key: {**asdict(counts), "balanced": counts.balanced()} for key, counts in ledger.items()},
    }
    if options.json:
        print_json(facts)
        return 0
    print(
        f"{path}: {facts['rows']} results in {facts['batches']} batches, {facts['gap_records']} gap records, ", end=""
    )
    print(f"{facts['bytes'] / 1024:.0f} KiB on disk")
    print(
        f"  written to the flash: {flash.written_bytes / 1048576:.1f} MiB, {flash.bytes_per_result:.0f} bytes a "
        f"result, {flash.bytes_per_day / 1048576:.0f} MiB a day of running"
    )
    if numbers.get("damaged_files"):
        damage = facts["damage"]
        print(
            f"  damaged files: {damage['damaged_files']}, results saved from them {damage['salvaged']}, "
            f"lost {damage['lost']}, streams with unreadable accounts {damage['unproven']}"
        )
    for key, counts in facts["ledger"].items():
        print(f"  {key}: {ledger_line(counts)}")
    return 0


def _ls(options: argparse.Namespace, path: Path) -> int:
    if options.json:
        print_json([{**_summary(r, size), "seq": [r.seq0, r.seq1]} for r, size in heads(path)])
        return 0
    table = Table("id", "boot", "stream", "seq", "kind", "class", "created", "bytes")
    for r, size in heads(path):
        table.add_row(*cells(*{**_summary(r, size), "seq": f"{r.seq0}-{r.seq1}"}.values()))
    console().print(table)
    return 0


def _summary(record: Record, size_bytes: int) -> dict[str, object]:
    """A line of ``ls``; how its numbers are shown is the caller's business."""
    return {
        "id": record.id,
        "boot": record.boot,
        "stream": record.stream,
        "seq": None,
        "kind": "gap" if record.is_gap else "results",
        "class": Priority(record.priority).name.lower(),
        "created": wire.iso_time(record.created_us),
        "bytes": size_bytes,
    }


def _fsck(options: argparse.Namespace, path: Path) -> int:
    found = list(problems(path))
    if options.json:
        print_json({"path": str(path), "problems": found})
    else:
        print("\n".join(found) or f"{path} is whole, and its books balance")
    if found and not options.json:
        print("an agent that starts on it saves what can be read and reports the rest", file=sys.stderr)
    return 1 if found else 0


def _export(options: argparse.Namespace, path: Path) -> int:
    if options.output is None:
        _write_export(options.format, path, sys.stdout.buffer)
        return 0
    try:
        out = options.output.open("wb")
    except OSError as error:
        raise CommandError(f"{options.output}: cannot be written ({error.strerror})") from error
    with out:
        _write_export(options.format, path, out)
    return 0


def _write_export(form: str, path: Path, out: BinaryIO) -> None:
    if form == "parquet":
        write_parquet(path, out)
        return
    text = TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    try:
        (write_csv if form == "csv" else write_jsonl)(path, text)
    finally:
        text.detach()


def _vacuum(options: argparse.Namespace, path: Path) -> int:
    if not path.exists():
        raise OutboxUnreadable(f"no outbox {path} to vacuum: has an agent run with this state_dir?")
    try:
        with claimed(path):
            _refuse_damaged(path)
            before_bytes = file_bytes(path)
            connection = sqlite3.connect(path, isolation_level=None)
            try:
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error
    print(f"{path}: {before_bytes / 1024:.0f} KiB before, {file_bytes(path) / 1024:.0f} KiB now")
    return 0


def _refuse_damaged(path: Path) -> None:
    """What SQLite cannot read it would drop here without a word; the agent saves what can be saved, and counts."""
    found = "it was just rebuilt" if ready_path(path).exists() else problem(path)
    if found is not None:
        raise CommandError(f"{path}: {found}; start the agent once, it saves what can be read and reports the rest")


COMMAND = Command(
    "outbox",
    "what waits to be delivered",
    """Look into the outbox of this configuration, read-only; the agent may be running (but for vacuum).

  axond outbox stats --config axond.toml
  axond outbox ls --config axond.toml
  axond outbox fsck --config axond.toml
  axond outbox export --config axond.toml > pending.jsonl
  axond outbox export --format parquet --output pending.parquet --config axond.toml
  axond outbox vacuum --config axond.toml
""",
    _configure,
    _run,
)
