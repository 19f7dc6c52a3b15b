"""The outbox with odd rows and in odd moments: what cannot be stored, what is refused, and how often it does things."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Semaphore
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agent import outbox_evict
from agent.ledger import Counts, Entry
from agent.outbox import Outbox
from agent.outbox_books import Books
from agent.outbox_evict import AGE_CHECK_S, AGE_STEP_S, AgeWatch
from agent.outbox_file import set_asides
from agent.outbox_reader import heads, problems
from agent.outbox_store import OutboxLimits, OutboxStore, audit
from agent.record import Priority
from agent.wire import MAX_COLUMNS, SystemClock, decode
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]
SMALL = OutboxLimits(max_bytes=1 << 20)
NOTHING_JSON_CARRIES = {
    "a number of 5000 digits": {"n": 10**5000},
    "no mapping": [1, 2],
    "None": None,
    "too many columns": {f"c{number}": number for number in range(MAX_COLUMNS + 1)},
    "more than a record takes": {"text": np.random.default_rng(1).bytes(600_000).hex()},
}


@pytest.mark.parametrize("name", NOTHING_JSON_CARRIES)
def test_what_cannot_be_stored_is_refused_alone(tmp_path: Path, running: Start, name: str) -> None:
    outbox = Outbox(tmp_path / "o.db", boot="b1", limits=SMALL)
    odd: Any = NOTHING_JSON_CARRIES[name]
    for payload in ({"n": 1}, odd, {"n": 2}):
        outbox.put("kw", payload)
    run = running(outbox)
    eventually(lambda: not outbox.unwritten, "the rest is stored")
    rows = [row["n"] for record in outbox.lease(10, 1.0) for row in decode(record.payload).rows]
    run.stop()
    assert rows == [1, 2]
    assert outbox.ledger()["b1", "kw"] == audit(tmp_path / "o.db")["b1", "kw"] == Counts(3, pending=2, refused=1)
    assert list(problems(tmp_path / "o.db")) == []


def test_a_number_without_a_bare_form_and_a_time_beyond_all_clocks_are_stored(tmp_path: Path, running: Start) -> None:
    outbox = Outbox(tmp_path / "o.db", boot="b1")
    running(outbox)
    outbox.put("kw", {"n": np.longdouble("0.5"), "t_ns": 1 << 80}, priority=Priority.ALARM)
    (record,) = outbox.lease(1, 5.0)
    assert decode(record.payload).rows[0]["n"] == "0.5"


def test_an_alarm_behind_a_full_group_is_next(tmp_path: Path, running: Start) -> None:
    limits = OutboxLimits(max_bytes=1 << 20, commit_interval_s=60.0)
    outbox = Outbox(tmp_path / "o.db", boot="b1", limits=limits)
    bulk = np.random.default_rng(1)
    for _ in range(8):
        outbox.put("kw", {"text": bulk.bytes(9_000).hex()})
    outbox.put("kw", {"n": 1}, priority=Priority.ALARM)
    running(outbox)
    eventually(lambda: outbox.opened.is_set() and not outbox.unwritten, "all is stored at once", 5.0)


def test_a_walk_for_what_is_too_old_takes_its_time_unless_it_finds_some() -> None:
    watch, clock = AgeWatch(3600.0), SystemClock()
    for end, wait_s in (((64, False), AGE_STEP_S), ((128, True), 0.0), ((0, False), AGE_CHECK_S)):
        walk: Any = SimpleNamespace(expire=lambda limit, after_id, end=end: end)
        watch.expire(walk, "b1", clock)
        now_s = time.monotonic()
        assert watch.is_due(now_s + wait_s) and not watch.is_due(now_s + wait_s - 0.1)


def test_a_look_for_what_is_too_old_is_no_commit(
    tmp_path: Path, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once spent the commits that were saved up for a result after a pause."""
    monkeypatch.setattr(outbox_evict, "AGE_CHECK_S", 0.01)
    outbox = Outbox(tmp_path / "o.db", boot="b1", limits=OutboxLimits(max_age_s=3600, commit_interval_s=60.0))
    looks, committed = [], []
    is_due, spent = outbox._age.is_due, outbox._pace.committed
    monkeypatch.setattr(outbox._age, "is_due", lambda now_s: looks.append(now_s) or is_due(now_s))
    monkeypatch.setattr(outbox._pace, "committed", lambda now_s: committed.append(now_s) or spent(now_s))
    running(outbox)
    eventually(lambda: len(looks) > 20, "it looked")
    assert not committed


def test_what_was_refused_while_a_damaged_file_was_rebuilt_stays_counted() -> None:
    books = Books("b1")
    for full in (False, True, True):
        books.admit("kw", full)
    books.admit("imu", full=True)
    books.renumber(Counter(kw=1))
    assert books.boot == "b1-2"
    assert books.copy() == {("b1-2", "kw"): Counts(3, pending=1, refused=2), ("b1-2", "imu"): Counts(1, refused=1)}
    assert books.touched == set(books.entries)


def test_an_account_that_the_file_has_forgotten_is_not_written_again() -> None:
    books = Books("b2")
    books.touched.add(("b1", "kw"))
    books.load({("b2", "kw"): Entry()}, 0, Counter())
    assert list(books.take(())) == []


def test_a_disk_that_refuses_the_rebuilt_file_does_not_have_it_rebuilt_again(
    tmp_path: Path, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "o.db"
    first = Outbox(path, boot="b1")
    run = Running(first)
    first.put("kw", {"n": 1}, priority=Priority.ALARM)
    eventually(lambda: first.opened.is_set() and not first.unwritten, "stored")
    run.stop()
    path.write_bytes(b"x" + path.read_bytes()[1:])
    opened: list[bool] = []
    real = OutboxStore.open

    def full(*arguments: Any) -> OutboxStore:
        opened.append(bool(set_asides(path)))
        if 0 < sum(opened) <= 2:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(OutboxStore, "open", full)
    again = Outbox(path, boot="b2")
    running(again)
    eventually(again.opened.is_set, "open", 10.0)
    assert sum(opened) == 3 and len(set_asides(path)) == 1 and again.depth().damaged_files == 1


def test_gap_records_of_a_stream_with_alarms_join_when_these_go(quick_disk: Path, running: Start) -> None:
    """Each kept the class of its batch and only met those of its own: in the end they filled the file, one by one."""
    durable, limits = Semaphore(0), OutboxLimits(max_bytes=1 << 20, commit_interval_s=0.001)
    outbox = Outbox(quick_disk / "mixed.db", boot="b1", limits=limits, on_durable=lambda _: durable.release())
    run = running(outbox)
    bulk = np.random.default_rng(1)
    for number in range(400):
        priority = Priority.ALARM if number % 2 else Priority.RESULT
        outbox.put("kw", {"n": number, "text": bulk.bytes(5000).hex()}, priority=priority)
        assert durable.acquire(timeout=5.0)
    run.stop()
    kept = Counter(record.is_gap for record, _ in heads(quick_disk / "mixed.db"))
    assert kept[False] > 40 and kept[True] <= kept[False] + 2
