"""A damaged outbox file: what can be read is delivered as it was, what is lost is told with its numbers.

``AXOND_DAMAGE=full`` runs 200 truncations and 1 000 flipped bytes in place of 40 and 200.
"""

import logging
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.outbox import Outbox
from agent.outbox_pages import wal_frames
from agent.outbox_store import OutboxLimits
from agent.record import Key, Priority, Record
from agent.wire import decode
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]
FULL = os.environ.get("AXOND_DAMAGE") == "full"
TRUNCATIONS, FLIPS, PER_TEST = (200, 1000, 50) if FULL else (40, 200, 10)
LIMITS = OutboxLimits(max_bytes=8 << 20)


@dataclass(frozen=True)
class Specimen:
    """A file with known content."""

    folder: Path
    content: dict[tuple[str, str, int], str]
    """Boot, stream and number -> what was put."""
    pending: dict[Key, set[int]]
    """Numbers of results that are not acknowledged."""
    gaps: dict[Key, set[int]]
    settled: dict[Key, int]
    """Results that were delivered."""

    def copy(self, to: Path) -> Path:
        shutil.copytree(self.folder, to)
        return to / "o.db"


@pytest.fixture(scope="module")
def specimens(quick_disk: Path) -> dict[str, Specimen]:
    """``closed`` has no WAL, ``killed`` has most of its content there."""
    chance = random.Random(5)
    made = quick_disk / "made"
    outbox = Outbox(made / "o.db", boot="b1", limits=LIMITS)
    run = Running(outbox)
    assert outbox.opened.wait(10)
    content: dict[tuple[str, str, int], str] = {}
    pending: dict[Key, set[int]] = {("b1", "kw"): set(), ("b1", "imu"): set()}
    gaps: dict[Key, set[int]] = {("b1", "kw"): set(), ("b1", "imu"): set()}
    delivered = {("b1", "kw"): 0, ("b1", "imu"): 0}
    commits = 150
    for commit in range(commits):
        streams = ["kw"] if commit % 3 else ["kw", "imu"]
        for stream in streams:
            for _ in range(chance.choice([1, 1, 5, 20])):
                seq = 1 + sum(key[1] == stream for key in content)
                text = chance.randbytes(chance.choice([5, 20, 200] if stream == "kw" else [1500])).hex()
                content["b1", stream, seq] = text
                pending["b1", stream].add(seq)
                outbox.put(stream, {"text": text})
        outbox.put("kw", {"text": "alarm"}, priority=Priority.ALARM)
        seq = 1 + sum(key[1] == "kw" for key in content)
        content["b1", "kw", seq] = "alarm"
        pending["b1", "kw"].add(seq)
        eventually(lambda: not outbox.unwritten, "stored")
        if commit in (20, 40, 60):
            records = outbox.lease(500, 1.0)
            settled = records[3 : 3 + commit // 4]
            for record in settled:
                pending[record.key] -= set(range(record.seq0, record.seq1 + 1))
                gaps[record.key] -= set(range(record.seq0, record.seq1 + 1))
                delivered[record.key] += record.rows
            poison = records[-2]
            numbers = set(range(poison.seq0, poison.seq1 + 1))
            pending[poison.key] -= numbers
            gaps[poison.key] |= numbers
            outbox.give_up(poison, "rejected by the hub")
            outbox.settle(settled, [record for record in records if record not in (*settled, poison)])
    shutil.copytree(made, quick_disk / "killed")
    run.stop()
    (quick_disk / "killed" / "o.db-shm").unlink()
    return {
        "closed": Specimen(made, content, pending, gaps, delivered),
        "killed": Specimen(quick_disk / "killed", content, pending, gaps, delivered),
    }


@dataclass
class Delivered:
    content: dict[tuple[str, str, int], str]
    gaps: dict[Key, set[int]]
    outbox: Outbox


def deliver(path: Path, boot: str) -> Delivered:
    """Runs an outbox on the file until it is drained; new results are taken meanwhile."""
    outbox = Outbox(path, boot=boot, limits=LIMITS)
    run = Running(outbox)
    for number in range(3):
        outbox.put("new", {"text": f"new {number}"})
    eventually(lambda: outbox.opened.is_set() and not outbox.unwritten, "open")
    got = Delivered({}, {}, outbox)
    while not outbox.wait_drained(0.0):
        records = eventually(lambda: outbox.lease(100, 0.1) or outbox.wait_drained(0.0), "drained")
        if records is True:
            break
        for record in records:
            enter(got, record)
        outbox.settle(records)
    run.stop()
    return got


def enter(got: Delivered, record: Record) -> None:
    batch = decode(record.payload)
    assert (batch.boot, batch.stream, batch.seq0, batch.seq1) == (*record.key, record.seq0, record.seq1)
    numbers = set(range(record.seq0, record.seq1 + 1))
    if record.is_gap:
        got.gaps.setdefault(record.key, set()).update(numbers)
    for row in batch.rows:
        key = (record.boot, record.stream, int(row["seq"]))  # type: ignore[arg-type]
        assert got.content.get(key, row["text"]) == row["text"], "sent again, but not the same"
        got.content[key] = str(row["text"])


def check(specimen: Specimen, path: Path, *, certain: bool = True) -> tuple[int, bool]:
    """Delivers what the file still has and compares; how much is lost, and whether that had to be certain and was."""
    got = deliver(path, "b2")
    outbox = got.outbox
    new = sorted(text for (boot, _, _), text in got.content.items() if boot.startswith("b2"))
    assert new == ["new 0", "new 1", "new 2"], "it goes on"
    old = {key: text for key, text in got.content.items() if key[0] == "b1"}
    assert all(specimen.content.get(key) == text for key, text in old.items()), "never put"
    ledger = outbox.ledger()
    assert all(counts.balanced() and counts.pending == 0 for counts in ledger.values())
    depth = outbox.depth()
    lost, told_exactly = 0, True
    for key, pending in specimen.pending.items():
        arrived = {seq for boot, stream, seq in old if (boot, stream) == key}
        missing = pending - arrived
        lost += len(missing)
        if depth.unproven == 0 and key in ledger and certain:
            assert arrived <= pending, "delivered before"
            assert ledger[key].delivered == specimen.settled[key] + len(arrived)
            assert missing | specimen.gaps[key] == got.gaps.get(key, set()), "each loss is told, nothing else is"
        else:
            told_exactly = False
    if told_exactly:
        assert depth.lost == lost
    assert not lost or depth.damaged_files or not certain
    return lost, told_exactly


def in_torn_end(path: Path, offset: int) -> bool:
    """Whether an offset of the WAL lies where nobody can tell damage from a power cut: in its last page."""
    return offset >= wal_frames(path)[-1].offset - 24


def test_an_intact_file_of_either_kind_is_delivered_whole(specimens: dict[str, Specimen], tmp_path: Path) -> None:
    for name, specimen in specimens.items():
        assert check(specimen, specimen.copy(tmp_path / name)) == (0, True)
        assert not list((tmp_path / name).glob("*.corrupt-*"))


@pytest.mark.parametrize("part", range(TRUNCATIONS // PER_TEST))
def test_truncated_files(specimens: dict[str, Specimen], quick_disk: Path, part: int) -> None:
    chance = random.Random(f"truncate {part}")
    for number in range(PER_TEST):
        name = chance.choice(["closed", "killed"])
        path = specimens[name].copy(quick_disk / f"cut-{part}-{number}")
        cut = path.with_name("o.db-wal") if name == "killed" and chance.random() < 0.5 else path
        size = chance.randrange(cut.stat().st_size)
        os.truncate(cut, size)
        try:
            check(specimens[name], path, certain=cut == path)
        except BaseException:
            logging.getLogger(__name__).error("%s of %s cut to %d bytes", cut.name, name, size)
            raise
        shutil.rmtree(path.parent)


@pytest.mark.parametrize("part", range(FLIPS // PER_TEST))
def test_flipped_bytes(specimens: dict[str, Specimen], quick_disk: Path, part: int) -> None:
    chance = random.Random(f"flip {part}")
    certain = 0
    for number in range(PER_TEST):
        name = chance.choice(["closed", "killed"])
        path = specimens[name].copy(quick_disk / f"flip-{part}-{number}")
        hit = path.with_name("o.db-wal") if name == "killed" and chance.random() < 0.7 else path
        content = bytearray(hit.read_bytes())
        offset, value = chance.randrange(len(content)), chance.randrange(1, 256)
        content[offset] ^= value
        hit.write_bytes(content)
        try:
            lost, told = check(specimens[name], path, certain=hit == path or not in_torn_end(hit, offset))
        except BaseException:
            logging.getLogger(__name__).error("byte %d of %s of %s ^ %d", offset, hit.name, name, value)
            raise
        certain += told
        assert lost <= 150, "more than a page of results, for one byte"
        shutil.rmtree(path.parent)
    assert certain >= PER_TEST * 0.8, "the ledger is rarely what is hit"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE batches SET seq1 = 'x' WHERE id = 20",
        "UPDATE batches SET stream = x'6b77' WHERE id = 20",
        "UPDATE batches SET priority = 1.5 WHERE id = 20",
        "UPDATE batches SET id = 9223372036854775807 WHERE id = (SELECT max(id) FROM batches)",
        "UPDATE totals SET value = 'x' WHERE name != 'format'",
    ],
)
def test_a_row_of_other_types_is_damage(specimens: dict[str, Specimen], quick_disk: Path, change: str) -> None:
    """Bytes that say what type a column has may flip as well, and SQLite takes what it reads."""
    path = specimens["closed"].copy(quick_disk / "types")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(change).rowcount > 0
        connection.commit()
    try:
        check(specimens["closed"], path)
    finally:
        shutil.rmtree(path.parent)
