"""What must be true afterwards: every committed result is in the hub's store, none twice, and all books agree.

Read through ``axond hub`` and ``axond outbox``, as a person would, and from the ledger that an outbox file holds.
"""

import json
import sqlite3
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agent.cli.command import CommandError
from agent.ledger import Counts
from agent.outbox_store import audit
from agent.record import Key
from hil.chaos.part import axond
from hil.chaos.site import DEVICE, STREAM

Committed: TypeAlias = dict[Key, int]
"""Boot and stream -> the highest number that an outbox file has held; numbers begin with 1 and have no holes."""
COMMAND_S = 120.0
ALL = str(10**9)


def committed(state: Path) -> Committed:
    """What the outbox of a killed, stopped or running agent has committed so far."""
    path = state / "outbox.db"
    if not path.exists():
        return {}
    try:
        return {key: counts.produced - counts.refused for key, counts in ledger(state).items()}
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # the file is just being made
            return {}
        raise CommandError(f"{path} cannot be read: {error}") from error


def unbalanced(state: Path) -> list[str]:
    """A sentence for each boot and stream whose numbers do not add up in the outbox file."""
    return [
        f"the outbox's ledger of boot {boot} does not balance: {counts}"
        for (boot, _), counts in ledger(state).items()
        if not counts.balanced()
    ]


def ledger(state: Path) -> Mapping[Key, Counts]:
    """The outbox's own account of each boot and stream that its file knows."""
    return audit(state / "outbox.db")


def hub_ledger(hub_db: Path) -> list[dict[str, Any]]:
    """What ``axond hub ledger`` says of every boot; empty while there is no store."""
    done = _run("hub", "ledger", "--db", str(hub_db), "--device", DEVICE, "--json")
    if not done.stdout:
        return []
    lines: list[dict[str, Any]] = json.loads(done.stdout)
    return lines


def lacking(expected: Mapping[Key, int], ledger: list[dict[str, Any]]) -> dict[Key, int]:
    """Results of ``expected`` that the hub has not stored, by boot and stream."""
    stored = {(line["boot"], line["stream"]): int(line["stored"]) for line in ledger}
    return {key: count - stored.get(key, 0) for key, count in expected.items() if stored.get(key, 0) < count}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the store holds, compared with what was committed."""

    committed: int
    stored: int
    lost: int
    stored_twice: int
    duplicates: int
    """Results that came to the hub more than once; not stored again."""
    boots: int
    faults: list[str]


def judge(expected: Mapping[Key, int], hub_db: Path, state: Path, rate_hz: int) -> Verdict:
    """``expected`` was committed, by an agent whose sensor gives ``rate_hz`` results a second. Raises CommandError."""
    ledger = hub_ledger(hub_db)
    faults = [f"boot {line['boot']}: {line['problem']}" for line in ledger if line["problem"]]
    faults += unbalanced(state)
    found: dict[str, list[tuple[int, int]]] = {}
    for row in hub_results(hub_db):
        found.setdefault(row["boot"], []).append((row["seq"], row["t_us"]))
    lost = twice = 0
    for (boot, _), count in expected.items():
        numbers = [seq for seq, _ in found.get(boot, [])]
        lost += len(set(range(1, count + 1)) - set(numbers))
    for boot, rows in found.items():
        again = doubled(rows, rate_hz)
        twice += again
        if again:
            faults.append(f"boot {boot}: {again} results are stored twice")
    missing = lacking(expected, ledger)
    if lost or missing:
        faults.append(f"{lost} results that were committed are not in the store; its ledger lacks {missing}")
    stored = sum(map(len, found.values()))
    duplicates = sum(int(line["duplicates"]) for line in ledger)
    return Verdict(sum(expected.values()), stored, lost, twice, duplicates, len(expected), faults)


def doubled(rows: list[tuple[int, int]], rate_hz: int) -> int:
    """How many of these results of one boot, number and capture time (us), are not new: the number is there already, or
    the moment is; the sensor measures on an exact grid.
    """
    step_us = 1e6 / rate_hz
    numbers = {seq for seq, _ in rows}
    moments = {round((t_us - rows[0][1]) / step_us) for _, t_us in rows}
    return 2 * len(rows) - len(numbers) - len(moments)


def hub_results(hub_db: Path) -> list[dict[str, Any]]:
    """Every result that the hub stored, as ``axond hub results`` tells them. Raises CommandError."""
    done = _run("hub", "results", "--db", str(hub_db), "--device", DEVICE, "--stream", STREAM, "--limit", ALL, "--json")
    if done.returncode:
        raise CommandError(f"axond hub results: {done.stderr.strip()[-500:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(axond(*arguments), capture_output=True, text=True, timeout=COMMAND_S, check=False)
