"""The outbox against kill -9 and a full disk: what was said to be stored is stored."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.outbox import Outbox
from agent.outbox_store import OutboxLimits, audit
from agent.record import Priority
from agent.wire import decode
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]

PRODUCER = """
import sys, threading
from pathlib import Path
from agent.outbox import Outbox, Priority
from agent.outbox_store import OutboxLimits

def tell(rows):
    sys.stdout.write("".join(f"{row.payload['n']}\\n" for row in rows))
    sys.stdout.flush()

limits = OutboxLimits(max_queued_rows=1_000_000)
outbox = Outbox(Path(sys.argv[1]), boot=sys.argv[2], on_durable=tell, limits=limits)
threading.Thread(target=outbox.run, args=(threading.Event(), lambda: None), daemon=True).start()
outbox.opened.wait(30)
for n in range(1_000_000):
    outbox.put("kw", {"n": n}, priority=Priority.ALARM if n % 7 == 0 else Priority.RESULT)
    if n % 50 == 0:
        for record in outbox.lease(2, 0.01)[:1]:
            sys.stdout.write(f"settled {record.boot} {record.seq0} {record.seq1}\\n")
            sys.stdout.flush()
            outbox.settle([record])
"""


def produce_and_kill(path: Path, boot: str, lines: int) -> tuple[set[int], set[tuple[str, int]]]:
    """Runs a producer, kills it after so many lines; what it said was stored, and what it settled."""
    stored: set[int] = set()
    settled: set[tuple[str, int]] = set()
    with subprocess.Popen([sys.executable, "-c", PRODUCER, path, boot], stdout=subprocess.PIPE, text=True) as producer:
        assert producer.stdout is not None
        for number, line in enumerate(producer.stdout):
            words = line.split()
            if words[0] == "settled":
                settled |= {(words[1], seq) for seq in range(int(words[2]), int(words[3]) + 1)}
            elif line.endswith("\n"):
                stored.add(int(words[0]))
            if number == lines:
                producer.send_signal(signal.SIGKILL)
    assert stored, "the producer never stored anything"
    return stored, settled


def test_nothing_that_was_stored_is_lost_by_kill_9(tmp_path: Path, running: Start) -> None:
    path = tmp_path / "o.db"
    chance = random.Random(20)
    stored: dict[str, set[int]] = {}
    settled: set[tuple[str, int]] = set()
    for round_number in range(6):
        boot = f"b{round_number}"
        stored[boot], freed = produce_and_kill(path, boot, chance.randrange(20, 1500))
        settled |= freed
        assert all(counts.balanced() for counts in audit(path).values())

    outbox = Outbox(path, boot="last")
    running(outbox)
    found: dict[tuple[str, int], int] = {}
    while records := outbox.lease(100, 1.0):
        for record in records:
            for row in decode(record.payload).rows:
                key = (record.boot, row["seq"])
                assert key not in found, "no number is used twice"
                found[key] = row["n"]
        outbox.settle(records)
    for boot, numbers in stored.items():
        # The row n has the number n + 1, because the producer refuses nothing.
        missing = {n for n in numbers if (boot, n + 1) not in found and (boot, n + 1) not in settled}
        assert not missing
    assert all(seq == n + 1 for (_, seq), n in found.items())


def fill_and_recover(path: Path, running: Start, make_room: Callable[[], None], most_rows: int) -> None:
    """Puts until the disk is full, makes room, and expects every row that was not refused."""
    bulk = random.Random(2)
    outbox = Outbox(path, boot="b1", limits=OutboxLimits(max_queued_rows=50))
    first = running(outbox)
    for number in range(most_rows):
        outbox.put("kw", {"n": number, "t": bulk.randbytes(10_000).hex()}, priority=Priority.ALARM)
        eventually(lambda: outbox.trouble or not outbox.unwritten, "stored or full")
        if outbox.trouble:
            break
    assert outbox.trouble is not None and str(path) in outbox.trouble
    for number in range(60):
        outbox.put("kw", {"late": number}, priority=Priority.RESULT)
    refused = outbox.depth().refused
    assert refused > 0, "the queue is bounded"
    make_room()
    eventually(lambda: outbox.trouble is None, "writes again")
    eventually(lambda: not outbox.unwritten, "all stored")
    rows = 0
    while records := outbox.lease(100, 0.5):
        assert records[0].seq0 == rows + 1
        rows += sum(record.rows for record in records)
        outbox.settle(records)
    counts = outbox.ledger()["b1", "kw"]
    assert (counts.produced, counts.delivered, counts.refused) == (rows + refused, rows, refused)
    first.stop()
    assert audit(path)["b1", "kw"] == counts


def test_a_full_disk_is_survived(tmp_path: Path, running: Start) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("may not mount a small disk")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (1 << 20))
        fill_and_recover(disk / "o.db", running, ballast.unlink, 200)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_room_made_just_before_the_stop_is_used(tmp_path: Path, running: Start) -> None:
    """However long the back-off had become."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    outbox = Outbox(tmp_path / "o.db", boot="b1")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, hard))
        run = running(outbox)
        rows = 0
        while outbox.trouble is None:
            outbox.put("kw", {"n": rows, "noise": os.urandom(600).hex()})
            rows += 1
            time.sleep(0.001)
        outbox._disk.retry_at_s = time.monotonic() + 3600
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        run.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert outbox.unwritten == 0
    counts = audit(tmp_path / "o.db")["b1", "kw"]
    assert (counts.produced, counts.pending) == (rows, rows)


def test_a_file_that_may_not_grow_is_survived(tmp_path: Path, running: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        fill_and_recover(
            tmp_path / "o.db", running, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)), 200
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
