"""The outbox beside bare SQLite with the same durability and the same number of results in a transaction."""

import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

import numpy as np

from agent.cli.command import CommandError
from agent.outbox import Outbox
from agent.outbox_group import Queued
from agent.record import Priority
from agent.wire import Row
from hil.bench.results import made

WAITING = {"group": 64, "flood": 2000}
"""Results that wait to be durable at most: what the outbox does not wait beyond, and as many as it likes to take."""
ROUND_S = 1.0
ALARMS = 200
STEADY_HZ = 200
STEADY_PUTS_HZ = 50
WAIT_S = 20.0
STREAM = "made"
BOOT = "b0"


class Durable:
    """Counts what the outbox has made durable."""

    def __init__(self) -> None:
        self.count = 0
        self.groups = 0
        """Transactions."""
        self._changed = Condition()

    def add(self, rows: Sequence[Queued]) -> None:
        """For ``on_durable``."""
        with self._changed:
            self.count += len(rows)
            self.groups += 1
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        """Until so many in all. Raises CommandError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.count >= count, WAIT_S):
                raise CommandError(f"the outbox made {self.count} of {count} results durable in {WAIT_S:g} s")


def measure(seconds: float) -> dict[str, Any]:
    """Results a second, ms and bytes as the names say; ``_to_raw`` is outbox over raw. Raises CommandError."""
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as scratch:
        folder = Path(scratch)
        rounds = max(2, round(seconds / (3 * ROUND_S * len(WAITING))))
        numbers: dict[str, Any] = {}
        for name, waiting in WAITING.items():
            rates = np.array([_round(folder / f"{name}-{i}", waiting) for i in range(rounds)])
            ours, raw, ready, size = map(float, np.median(rates, axis=0))
            to_raw, to_ready = map(float, np.median(rates[:, :1] / rates[:, 1:3], axis=0))
            numbers |= {
                f"{name}_results_in_a_transaction": round(size),
                f"{name}_outbox_results_per_s": round(ours),
                f"{name}_raw_results_per_s": round(raw),
                f"{name}_raw_without_json_results_per_s": round(ready),
                f"{name}_outbox_to_raw": round(to_raw, 3),
                f"{name}_outbox_to_raw_without_json": round(to_ready, 3),
            }
        numbers |= _alarms(folder / "alarms")
        return numbers | _steady(folder / "steady", max(3.0, seconds / 4))


def _round(folder: Path, waiting: int) -> tuple[float, float, float, float]:
    """On the same disk, one after the other, results a second: the outbox; bare SQLite, which has to make text of each
    result as well; and bare SQLite with the same text for all, made before. Last, how many the outbox put into a
    transaction; bare SQLite gets as many.
    """
    rows = made(waiting, time.monotonic_ns())
    with _outbox(folder) as (outbox, durable):
        done, begin_s = 0, time.monotonic()
        while (spent_s := time.monotonic() - begin_s) < ROUND_S:
            for row in rows[: waiting - (done - durable.count)]:
                outbox.put(STREAM, row)
                done += 1
            durable.wait(done - waiting // 2 if waiting > WAITING["group"] else done)
        durable.wait(done)
        ours, size = done / spent_s, max(1, done // durable.groups)
    part = rows[:size]
    return (
        ours,
        _raw_rate(folder / "raw.db", part),
        _raw_rate(folder / "ready.db", part, json.dumps(rows[0])),
        size,
    )


def _raw_rate(path: Path, rows: Sequence[Row], text: str = "") -> float:
    with _raw(path) as insert:
        done, begin_s = 0, time.monotonic()
        while (spent_s := time.monotonic() - begin_s) < ROUND_S:
            insert(rows, done, text)
            done += len(rows)
        return done / spent_s


def _alarms(folder: Path) -> dict[str, float]:
    """One alarm at a time: milliseconds until it is durable."""
    (row,) = made(1, time.monotonic_ns())
    ours_ns, raw_ns = [], []
    with _outbox(folder) as (outbox, durable), _raw(folder / "raw.db") as insert:
        for i in range(ALARMS):
            begin_ns = time.perf_counter_ns()
            outbox.put(STREAM, row, priority=Priority.ALARM)
            durable.wait(i + 1)
            middle_ns = time.perf_counter_ns()
            insert([row], i)
            ours_ns.append(middle_ns - begin_ns)
            raw_ns.append(time.perf_counter_ns() - middle_ns)
    return {**_percentiles("alarm_durable", ours_ns), **_percentiles("raw_one_row", raw_ns)}


def _steady(folder: Path, seconds: float) -> dict[str, Any]:
    """What the disk is given for results at a usual rate that are delivered at once, and by bare SQLite for as many."""
    share = STEADY_HZ // STEADY_PUTS_HZ
    rows = made(share, time.monotonic_ns())
    steps = round(seconds * STEADY_PUTS_HZ)
    with _outbox(folder) as (outbox, durable):
        begin_bytes, begin_s = _written_bytes(), time.monotonic()
        for step in range(steps):
            time.sleep(max(0.0, begin_s + step / STEADY_PUTS_HZ - time.monotonic()))
            for row in rows:
                outbox.put(STREAM, row)
            outbox.settle(outbox.lease(100, 0.0))
        durable.wait(steps * share)
    ours_bytes = _written_bytes() - begin_bytes
    begin_bytes = _written_bytes()
    with _raw(folder / "raw.db") as insert:
        tenth = made(STEADY_HZ // 10, time.monotonic_ns())
        for i in range(steps * share // len(tenth)):
            insert(tenth, i * len(tenth))
    raw_bytes = _written_bytes() - begin_bytes
    return {
        "steady_results_per_s": STEADY_HZ,
        "written_bytes_per_result": round(ours_bytes / (steps * share), 1),
        "raw_written_bytes_per_result": round(raw_bytes / (steps * share), 1),
    }


@contextmanager
def _outbox(folder: Path) -> Iterator[tuple[Outbox, Durable]]:
    durable, stop = Durable(), Event()
    folder.mkdir(parents=True, exist_ok=True)
    outbox = Outbox(folder / "outbox.db", boot=BOOT, on_durable=durable.add)
    thread = Thread(target=outbox.run, args=(stop, lambda: None), name="outbox", daemon=True)
    thread.start()
    try:
        if not outbox.opened.wait(WAIT_S):
            raise CommandError(f"the outbox did not open: {outbox.trouble}")
        yield outbox, durable
    finally:
        stop.set()
        thread.join(WAIT_S)


@contextmanager
def _raw(path: Path) -> Iterator[Any]:
    """A function that inserts results as JSON, one row each, in one durable transaction, beginning with a number."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE results (boot TEXT, stream TEXT, seq INTEGER, body TEXT, UNIQUE (boot, stream, seq))")

        def insert(rows: Sequence[Row], first: int, text: str = "") -> None:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "INSERT INTO results VALUES (?, ?, ?, ?)",
                [(BOOT, STREAM, first + i, text or json.dumps(row)) for i, row in enumerate(rows)],
            )
            db.execute("COMMIT")

        yield insert


def _percentiles(name: str, took_ns: list[int]) -> dict[str, float]:
    p50, p99 = np.percentile(took_ns, (50, 99)) / 1e6
    return {f"{name}_p50_ms": round(float(p50), 3), f"{name}_p99_ms": round(float(p99), 3)}


def _written_bytes() -> int:
    """What this process gave to block devices so far (``/proc/self/io``); 0 on a tmpfs."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["write_bytes"])
