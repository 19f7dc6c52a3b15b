"""What the outbox gives up, and when: by bytes, by class, by age, and for the sake of the file system."""

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from itertools import groupby, pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from agent.outbox import Outbox
from agent.outbox_evict import STRETCH_BYTES
from agent.outbox_store import OutboxLimits, audit
from agent.record import Priority, Record
from agent.wire import decode
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]
BULK = random.Random(3)
HOUR_NS = 3_600_000_000_000


class MadeClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now_ns = 10 * HOUR_NS
        self.wall_us = 1_700_000_000_000_000
        self.sure = True
        self.kernel = "ab12"

    def monotonic_ns(self) -> int:
        return self.now_ns

    def offset_us(self) -> int:
        return self.wall_us - self.now_ns // 1000

    def uncertainty_ms(self) -> float | None:
        return 5.0 if self.sure else None

    def epoch(self) -> str:
        return self.kernel

    def is_settled(self) -> bool:
        return self.sure


def put_stored(outbox: Outbox, stream: str, priority: Priority, size_bytes: int) -> None:
    """One result in a batch of its own."""
    outbox.put(stream, {"t": BULK.randbytes(size_bytes // 2).hex()}, priority=priority)
    eventually(lambda: not outbox.unwritten, "stored")


def all_records(outbox: Outbox) -> list[Record]:
    records: list[Record] = []
    while more := outbox.lease(200, 0.5):
        records += more
    return sorted(records, key=lambda record: record.id)


@pytest.mark.parametrize("max_bytes", [1 << 20, 2 << 20, 4 << 20])
def test_the_quota_holds_at_3000_results_a_second(tmp_path: Path, running: Start, max_bytes: int) -> None:
    path = tmp_path / "o.db"
    outbox = Outbox(path, boot="b1", limits=OutboxLimits(max_bytes=max_bytes))
    run = running(outbox)
    most_bytes, number, pause = 0, 0, Event()
    start_s = time.monotonic()
    while outbox.depth().evicted < 3000:
        while number < (time.monotonic() - start_s) * 3000:
            text = BULK.randbytes(BULK.choice([4, 100, 900])).hex()
            outbox.put(f"s{number % 7}", {"n": number, "t": text}, priority=Priority(number % 7 % 4))
            number += 1
        most_bytes = max(most_bytes, outbox.depth().bytes)
        pause.wait(0.001)
        assert time.monotonic() < start_s + 60, "nothing is given up"
    assert most_bytes <= max_bytes * 1.01
    run.stop()
    stored = audit(path)
    assert all(counts.balanced() for counts in stored.values())
    assert stored["b1", "s3"].evicted == 0, "alarms stay while anything else is there"
    assert stored["b1", "s0"].evicted > 0.9 * stored["b1", "s2"].evicted, "the lowest class goes first"


def test_a_reader_that_does_not_let_go_cannot_make_the_file_grow(tmp_path: Path, running: Start) -> None:
    path = tmp_path / "o.db"
    limits = OutboxLimits(max_bytes=1 << 20, max_queued_rows=100)
    outbox = Outbox(path, boot="b1", limits=limits)
    running(outbox)
    put_stored(outbox, "kw", Priority.RESULT, 100)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM batches").fetchone()
        most_bytes, end_s, pause = 0, time.monotonic() + 30, Event()
        while outbox.trouble is None:
            outbox.put("kw", {"t": BULK.randbytes(2000).hex()}, priority=Priority.ALARM)
            most_bytes = max(most_bytes, outbox.depth().bytes)
            pause.wait(0.002)
            assert time.monotonic() < end_s, "it goes on writing"
        assert "reader" in outbox.trouble and most_bytes <= 1.01 * limits.max_bytes
        reader.execute("COMMIT")
    eventually(lambda: outbox.trouble is None and not outbox.unwritten, "writes again")
    assert outbox.depth().bytes <= limits.max_bytes


def test_the_lowest_class_is_thinned_before_it_goes_and_goes_before_the_next(tmp_path: Path, running: Start) -> None:
    outbox = Outbox(tmp_path / "o.db", boot="b1", limits=OutboxLimits(max_bytes=2 << 20))
    running(outbox)
    for _ in range(60):
        put_stored(outbox, "results", Priority.RESULT, 4000)
        put_stored(outbox, "raw", Priority.RAW, 30_000)
    while outbox.depth().evicted < 12:
        put_stored(outbox, "raw", Priority.RAW, 30_000)
    records = all_records(outbox)
    raw = [record for record in records if record.stream == "raw"]
    assert not any(record.is_gap for record in records if record.stream == "results")
    assert raw[0].seq0 == 1 and all(b.seq0 == a.seq1 + 1 for a, b in pairwise(raw)), "no number is missing"
    stretches = [(is_gap, len(list(group))) for is_gap, group in groupby(raw[:20], lambda record: record.is_gap)]
    assert len(stretches) >= 8 and all(length <= 2 for is_gap, length in stretches if is_gap), stretches
    assert sum(record.rows for record in raw if not record.is_gap) > 30, "the younger half is whole"
    assert STRETCH_BYTES < 30_000

    outbox.settle((), records)
    while outbox.ledger()["b1", "raw"].pending > 3:
        put_stored(outbox, "results", Priority.RESULT, 30_000)
    assert outbox.ledger()["b1", "results"].evicted == 0
    left = [record for record in all_records(outbox) if record.stream == "raw" and not record.is_gap]
    assert left and all(record.seq0 > raw[-1].seq1 - 8 for record in left), "the oldest go first"


@pytest.mark.parametrize("seed", [1, 2])
def test_under_pressure_each_number_is_delivered_or_told(tmp_path: Path, running: Start, seed: int) -> None:
    """Leases, acknowledgements, refusals and evictions at the same time, with a restart in between."""
    path, chance = tmp_path / "o.db", random.Random(seed)
    seen: dict[tuple[str, str], set[int]] = {}
    for boot in ("b1", "b2"):
        outbox = Outbox(path, boot=boot, limits=OutboxLimits(max_bytes=1 << 20, max_age_s=3600))
        run = running(outbox)
        for number in range(2500):
            outbox.put(f"s{number % 4}", {"t": chance.randbytes(700).hex()}, priority=Priority(number % 4))
            if number % 40:
                continue
            records = outbox.lease(chance.randrange(1, 60), 0.02, backlog=chance.choice([None, 3]))
            chance.shuffle(records)
            cut = chance.randrange(len(records) + 1)
            for record in records[:cut]:
                seen.setdefault(record.key, set()).update(range(record.seq0, record.seq1 + 1))
            if records[cut:] and not records[-1].is_gap and chance.random() < 0.3:
                outbox.give_up(records.pop(), "rejected by the hub")
            outbox.settle(records[:cut], records[cut:] if chance.random() < 0.7 else ())
        outbox.release_all()
        run.stop()
        assert outbox.depth().damaged_files == 0 and all(counts.balanced() for counts in audit(path).values())
    outbox = Outbox(path, boot="b3")
    running(outbox)
    eventually(outbox.opened.is_set, "open")
    end_s = time.monotonic() + 30
    while not outbox.wait_drained(0.0):
        assert time.monotonic() < end_s, "not drained"
        records = outbox.lease(100, 0.1)
        for record in records:
            numbers = set(range(record.seq0, record.seq1 + 1))
            assert not numbers & seen.get(record.key, set()), "settled before"
            seen.setdefault(record.key, set()).update(numbers)
        outbox.settle(records)
    for (boot, stream), counts in outbox.ledger().items():
        assert seen[boot, stream] == set(range(1, counts.produced - counts.refused + 1))
        assert counts.balanced() and not counts.pending
    assert sum(counts.evicted for counts in outbox.ledger().values()) > 500, "there was pressure"


def test_with_little_room_on_the_file_system_the_file_does_not_grow(tmp_path: Path, running: Start) -> None:
    limits = OutboxLimits(max_bytes=64 << 20, keep_free_bytes=1 << 60)
    outbox = Outbox(tmp_path / "o.db", boot="b1", limits=limits)
    running(outbox)
    for _ in range(80):
        put_stored(outbox, "kw", Priority.RESULT, 40_000)
    assert outbox.depth().evicted > 10
    assert (tmp_path / "o.db").stat().st_size < 1.3 * (1 << 20)


def test_what_is_too_old_by_the_monotonic_clock_goes(tmp_path: Path, running: Start) -> None:
    clock = MadeClock()
    clock.sure = False
    outbox = Outbox(tmp_path / "o.db", boot="b1", limits=OutboxLimits(max_age_s=3600), clock=clock)
    running(outbox)
    for _ in range(3):
        put_stored(outbox, "kw", Priority.ALARM, 100)
    clock.now_ns += HOUR_NS // 2
    put_stored(outbox, "kw", Priority.RESULT, 100)
    clock.wall_us += 10**15
    assert outbox.depth().evicted == 0
    clock.now_ns += HOUR_NS // 2 + 1
    outbox._age._at_s = 0.0
    eventually(lambda: outbox.depth().evicted == 3, "given up")
    records = all_records(outbox)
    assert [(record.seq0, record.seq1, record.is_gap) for record in records] == [(1, 3, True), (4, 4, False)]
    assert decode(records[0].payload).cause == "age"
    outbox.settle(records)
    assert outbox.ledger()["b1", "kw"].balanced()


@pytest.mark.parametrize(
    "then, now, goes", [(True, True, True), (True, False, False), (False, True, False)], ids=["sure", "lost", "1970"]
)
def test_of_earlier_boots_the_wall_clock_tells_if_it_was_right_and_is(
    tmp_path: Path, running: Start, then: bool, now: bool, goes: bool
) -> None:
    path, clock = tmp_path / "o.db", MadeClock()
    clock.sure = then
    first = Outbox(path, boot="b1", clock=clock)
    run = running(first)
    put_stored(first, "kw", Priority.RESULT, 100)
    run.stop()
    clock.sure, clock.now_ns, clock.kernel = now, 1, "cd34"
    clock.wall_us += 3 * 3_600_000_000
    outbox = Outbox(path, boot="b2", limits=OutboxLimits(max_age_s=3600), clock=clock)
    running(outbox)
    put_stored(outbox, "kw", Priority.RESULT, 100)
    assert sorted((record.boot, record.is_gap) for record in all_records(outbox)) == [("b1", goes), ("b2", False)]
    assert outbox.depth().evicted == goes


def test_no_batch_is_larger_than_a_hub_takes(tmp_path: Path, running: Start) -> None:
    outbox = Outbox(tmp_path / "o.db", boot="b1")
    for number in range(600):
        outbox.put("kw", {"n": number, "t": BULK.randbytes(3000).hex()})
    running(outbox)
    eventually(lambda: not outbox.unwritten, "stored")
    records = all_records(outbox)
    assert max(len(record.payload) for record in records) <= 1 << 19
    assert [row["n"] for record in records for row in decode(record.payload).rows] == list(range(600))
    assert outbox.ledger()["b1", "kw"].balanced()
