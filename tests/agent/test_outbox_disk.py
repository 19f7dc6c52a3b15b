"""Disks that fail while the outbox runs, files of the format before, and damage that shows late."""

import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.outbox import Outbox
from agent.outbox_disk import IO_ERRORS, DiskTrouble
from agent.outbox_file import KEPT_ASIDE, finish, new_path, set_asides, take_over
from agent.outbox_pages import wal_path, wal_problem
from agent.outbox_schema import Damaged
from agent.record import Priority
from agent.wire import SystemClock, decode, encode, encode_gap
from tests.conftest import DEADLINE_S, Running, eventually

Start = Callable[[Any], Running]
BULK = random.Random(9)
MS_RDONLY, MS_REMOUNT = 1, 32


def fill(outbox: Outbox, batches: int, size_bytes: int = 400) -> dict[int, str]:
    """So many batches of one result in stream ``kw``; number -> text."""
    content: dict[int, str] = {}
    for _ in range(batches):
        text = BULK.randbytes(size_bytes).hex()
        outbox.put("kw", {"text": text}, priority=Priority.ALARM)
        eventually(lambda: not outbox.unwritten, "stored")
        content[outbox.ledger()[outbox.boot, "kw"].produced] = text
    return content


def drain(outbox: Outbox) -> tuple[dict[tuple[str, int], str], set[tuple[str, int]]]:
    """Everything that is delivered, and every number in a gap record."""
    content: dict[tuple[str, int], str] = {}
    gaps: set[tuple[str, int]] = set()
    end_s = time.monotonic() + DEADLINE_S
    while not outbox.wait_drained(0.0):
        assert time.monotonic() < end_s, f"not drained: {outbox.depth()}"
        records = outbox.lease(100, 0.2)
        for record in records:
            if record.is_gap:
                gaps |= {(record.boot, seq) for seq in range(record.seq0, record.seq1 + 1)}
            content |= {(record.boot, row["seq"]): row["text"] for row in decode(record.payload).rows}  # type: ignore[misc]
        outbox.settle(records)
    return content, gaps


@pytest.mark.parametrize("seed", range(6))
def test_damage_while_running_is_found_and_told(tmp_path: Path, running: Start, seed: int) -> None:
    path, chance = tmp_path / "o.db", random.Random(seed)
    outbox = Outbox(path, boot="b1")
    run = running(outbox)
    content = fill(outbox, 1200 if seed % 2 else 300)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint")
    with path.open("r+b") as file:
        for _ in range(5):
            offset = chance.randrange(8192, path.stat().st_size)
            file.seek(offset)
            old = file.read(64)
            file.seek(offset)
            file.write(bytes(byte ^ 0xA5 for byte in old))
    content |= fill(outbox, 20)
    if not seed % 2:  # what memory has whole is read by nobody before the next start
        run.stop()
        outbox = Outbox(path, boot="b2")
        running(outbox)
        eventually(outbox.opened.is_set, "open")
    arrived, gaps = drain(outbox)
    assert all(content[seq] == text for (_, seq), text in arrived.items())
    lost = {("b1", seq) for seq in content} - arrived.keys()
    assert lost == gaps and len(lost) < 120
    counts = outbox.ledger()["b1", "kw"]
    assert counts.balanced() and counts.pending == 0
    assert (counts.evicted, outbox.depth().lost) == (len(lost), len(lost))
    assert bool(lost) <= bool(outbox.depth().damaged_files)


def test_what_memory_has_is_not_lost_with_the_file(tmp_path: Path, running: Start, caplog: Any) -> None:
    path = tmp_path / "o.db"
    outbox = Outbox(path, boot="b1")
    running(outbox)
    content = fill(outbox, 50)
    leased = outbox.lease(20, 1.0)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x5a" * (path.stat().st_size - 4096))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA user_version = 2")  # a writer besides: SQLite forgets the pages that it had read
    outbox.settle(leased[:10], leased[10:])
    outbox.put("kw", {"text": "after"}, priority=Priority.ALARM)
    eventually(lambda: outbox.depth().damaged_files and not outbox.unwritten, "rebuilt")
    arrived, gaps = drain(outbox)
    settled = {("b1", record.seq0) for record in leased[:10]}
    assert arrived.keys() == {("b1", seq) for seq in (*content, 51)} - settled and not gaps
    assert outbox.depth().lost == 0 and "rebuilt" in caplog.text


VERSION_1 = """
CREATE TABLE batches (id INTEGER PRIMARY KEY, boot TEXT NOT NULL, stream TEXT NOT NULL, seq0 INTEGER NOT NULL,
    seq1 INTEGER NOT NULL, priority INTEGER NOT NULL, is_gap INTEGER NOT NULL, created_us INTEGER NOT NULL,
    created_ns INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE ledger (boot TEXT NOT NULL, stream TEXT NOT NULL, next_seq INTEGER NOT NULL, produced INTEGER NOT NULL,
    delivered INTEGER NOT NULL, evicted INTEGER NOT NULL, refused INTEGER NOT NULL, UNIQUE (boot, stream));
PRAGMA user_version = 1;
"""


def make_version_1(path: Path) -> None:
    """Five results of which the first is delivered and the second evicted, as the first axond left them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA page_size = 4096")
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(VERSION_1)
        for seq, priority in ((3, 0), (4, 1), (5, 2)):
            payload = encode("b1", "kw", seq, [(0, {"text": f"old {seq}"})], SystemClock())
            db.execute(
                "INSERT INTO batches VALUES (?, 'b1', 'kw', ?, ?, ?, 0, 5, 6, ?)", (seq, seq, seq, priority, payload)
            )
        gap = encode_gap("b1", "kw", 2, 2, "quota")
        db.execute("INSERT INTO batches VALUES (2, 'b1', 'kw', 2, 2, 1, 1, 5, 6, ?)", (gap,))
        db.execute("INSERT INTO ledger VALUES ('b1', 'kw', 6, 7, 1, 1, 2)")


def test_a_file_of_format_1_is_brought_to_this_one(tmp_path: Path, running: Start) -> None:
    path = tmp_path / "o.db"
    make_version_1(path)
    outbox = Outbox(path, boot="b2")
    run = running(outbox)
    outbox.put("kw", {"text": "new"})
    eventually(lambda: outbox.opened.is_set() and not outbox.unwritten, "stored")
    run.stop()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT priority FROM batches WHERE boot = 'b1' ORDER BY id").fetchall() == [
            (2,),
            (0,),
            (2,),
            (3,),
        ]
        assert db.execute("SELECT held FROM ledger WHERE boot = 'b1'").fetchone() == ("2-5",)
    outbox = Outbox(path, boot="b3")
    running(outbox)
    eventually(outbox.opened.is_set, "open")
    arrived, gaps = drain(outbox)
    assert arrived == {("b1", 3): "old 3", ("b1", 4): "old 4", ("b1", 5): "old 5", ("b2", 1): "new"}
    assert gaps == {("b1", 2)}
    counts = outbox.ledger()["b1", "kw"]
    assert (counts.produced, counts.delivered, counts.evicted, counts.refused) == (7, 4, 1, 2)


def test_a_damaged_file_of_format_1_is_salvaged_as_far_as_it_goes(tmp_path: Path, running: Start) -> None:
    path = tmp_path / "o.db"
    make_version_1(path)
    content = bytearray(path.read_bytes())
    content[18] = 7
    path.write_bytes(content)
    outbox = Outbox(path, boot="b2")
    running(outbox)
    eventually(outbox.opened.is_set, "open")
    arrived, gaps = drain(outbox)
    assert arrived == {("b1", seq): f"old {seq}" for seq in (3, 4, 5)}
    assert gaps == {("b1", 1), ("b1", 2)}, "whether the first was delivered nobody can tell"
    assert outbox.depth().unproven == 1
    assert outbox.ledger()["b1", "kw"].balanced()


def test_a_changed_account_is_damage(tmp_path: Path, running: Start) -> None:
    path = tmp_path / "o.db"
    outbox = Outbox(path, boot="b1")
    run = running(outbox)
    content = fill(outbox, 5)
    run.stop()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE ledger SET delivered = delivered + 1, produced = produced + 1")
    outbox = Outbox(path, boot="b2")
    running(outbox)
    eventually(outbox.opened.is_set, "open")
    arrived, gaps = drain(outbox)
    assert (sorted(seq for _, seq in arrived), gaps) == (sorted(content), set())
    assert (outbox.depth().damaged_files, outbox.depth().unproven) == (1, 1)


def test_the_exchange_of_files_is_finished_after_a_power_cut(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    for cut_before in ("main", "wal", "ready"):
        path.write_bytes(b"old")
        wal_path(path).write_bytes(b"old wal")
        new_path(path).write_bytes(b"new " + cut_before.encode())
        ready = path.with_name("o.db.ready")
        new_path(path).rename(ready)
        aside = path.with_name(f"o.db.corrupt-{1 + len(set_asides(path))}")
        if cut_before != "main":
            path.rename(aside)
        if cut_before == "ready":
            wal_path(path).rename(wal_path(aside))
        assert take_over(path, 1 << 20) == aside
        assert path.read_bytes() == b"new " + cut_before.encode()
        assert aside.read_bytes() == b"old" and wal_path(aside).read_bytes() == b"old wal"
        assert not ready.exists() and not wal_path(path).exists()
        path.unlink()


def test_damaged_files_are_kept_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    for number in range(1, 7):
        path.write_bytes(b"x" * 1000)
        new_path(path).write_bytes(b"")
        assert finish(path, 1 << 20) == path.with_name(f"o.db.corrupt-{number}")
    assert [one.name for one in set_asides(path)] == ["o.db.corrupt-6", "o.db.corrupt-5", "o.db.corrupt-4"]
    assert len(set_asides(path)) == KEPT_ASIDE
    path.write_bytes(b"x" * (1 << 18))
    new_path(path).write_bytes(b"")
    assert finish(path, 1 << 20) is None, "a quarter of the quota is too much"
    assert path.read_bytes() == b""


def test_only_the_middle_of_a_wal_can_be_damaged(tmp_path: Path, running: Start) -> None:
    made = tmp_path / "made" / "o.db"
    outbox = Outbox(made, boot="b1")
    running(outbox)
    fill(outbox, 12)
    whole = wal_path(made).read_bytes()
    path = tmp_path / "o.db"
    shutil.copy(made, path)
    for cut in (len(whole), len(whole) - 1, len(whole) - 4120, 5000, 32, 10, 0):
        wal_path(path).write_bytes(whole[:cut])
        assert wal_problem(path) is None, f"a power cut leaves {cut} bytes"
    wal_path(path).write_bytes(whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    assert "1 of" in str(wal_problem(path))
    torn = whole[:-2000] + bytes(2000)
    wal_path(path).write_bytes(torn)
    assert wal_problem(path) is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def remount(disk: Path, flags: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{flags}", disk], check=True)


def test_a_disk_that_is_read_only_at_the_start_is_waited_for(small_disk: Path, running: Start) -> None:
    path = small_disk / "o.db"
    outbox = Outbox(path, boot="b1")
    run = running(outbox)
    content = fill(outbox, 3)
    run.stop()
    remount(small_disk, "ro")
    outbox = Outbox(path, boot="b2")
    running(outbox)
    outbox.put("kw", {"text": "late"})
    assert "ead-only" in eventually(lambda: outbox.trouble, "trouble is visible")
    remount(small_disk, "rw")
    eventually(lambda: outbox.opened.is_set() and not outbox.unwritten, "stored")
    assert outbox.trouble is None
    arrived, gaps = drain(outbox)
    assert arrived == {**{("b1", seq): text for seq, text in content.items()}, ("b2", 1): "late"} and not gaps


def test_io_errors_that_do_not_end_are_damage(tmp_path: Path) -> None:
    trouble = DiskTrouble(tmp_path / "o.db")
    for _ in range(IO_ERRORS - 1):
        trouble.failed(sqlite3.OperationalError("disk I/O error"))
    trouble.failed(sqlite3.OperationalError("database is locked"))
    assert trouble.sentence is not None
    with pytest.raises(Damaged, match="in a row"):
        for _ in range(IO_ERRORS):
            trouble.failed(sqlite3.OperationalError("disk I/O error"))
