"""The two lanes against a model of the file, by chance and by hand."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.outbox import Outbox
from agent.outbox_leases import FRESH_FULL, READY_FULL, Leases
from agent.outbox_ranges import Ranges
from agent.record import Priority, Record
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]


def record(number: int) -> Record:
    return Record(number, "b1", "kw", number, number, int(Priority.RESULT), False, 0, 0, b"%d" % number)


class FileModel:
    """What the outbox and its file do around the leases: ids, deletion with a commit, eviction, reading."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.leases = Leases()
        self.stored: dict[int, Record] = {}
        self.leased: dict[int, Record] = {}
        self.settled: set[int] = set()
        self.next_id = 1

    def commit(self) -> None:
        evict = self.chance.random() < 0.3
        settled, self.leases.settled = self.leases.settled, []
        given_up, self.leases.given_up = self.leases.given_up, []
        new = [record(self.next_id + i) for i in range(self.chance.choice([0, 1, 2, 10, 90, 700]))]
        self.next_id += len(new)
        offered = self.leases.withdraw() if evict else None
        keep = self.leases.untouchable() | set(settled)
        changed: dict[int, Record | None] = {}
        if evict:
            victims = [one for one in sorted(self.stored) if one not in keep][: self.chance.randrange(200)]
            for victim in victims:
                gap = replace(self.stored[victim], is_gap=True, payload=b"gap")
                changed[victim] = gap if self.chance.random() < 0.3 else None
        self.stored.update((gap.id, gap) for gap in given_up)
        for one in settled:
            del self.stored[one]
        for one, gap_or_none in changed.items():
            if gap_or_none is None:
                del self.stored[one]
            else:
                self.stored[one] = gap_or_none
        self.stored.update((one.id, one) for one in new)
        if offered is not None:
            self.leases.offer_again(offered, changed)
        self.leases.added(new)

    def refill(self) -> None:
        if self.leases.settled:
            return
        after, limit = self.leases.next_read()
        found = [self.stored[one] for one in sorted(self.stored) if one > after][:limit]
        self.some_leased()
        self.leases.read(found, limit)

    def some_leased(self) -> None:
        count, backlog = self.chance.randrange(1, 120), self.chance.choice([None, 0, 1, 50])
        for one in self.leases.lease(count, backlog):
            assert one.id not in self.leased and one.id not in self.settled, "leased twice"
            self.leased[one.id] = one

    def some(self) -> list[Record]:
        picked = self.chance.sample(sorted(self.leased), self.chance.randrange(len(self.leased) + 1))
        return [self.leased.pop(one) for one in picked]

    def step(self) -> None:
        move = self.chance.randrange(7)
        if move == 0:
            self.commit()
        elif move == 1 and self.leases.wants_more():
            self.refill()
        elif move == 2:
            accepted = self.some()
            assert len(self.leases.accept(accepted)) == len(accepted)
            self.settled |= {one.id for one in accepted}
        elif move == 3:
            self.leases.release(self.some())
        elif move == 4 and self.leased:
            given = self.leased.pop(self.chance.choice(sorted(self.leased)))
            assert self.leases.give_up(replace(given, is_gap=True, payload=b"gap"))
        else:
            self.some_leased()
        assert len(self.leases.fresh) <= FRESH_FULL
        assert len(self.leases.backlog) <= READY_FULL + 2 * 120 * 40
        for lane in (self.leases.fresh, self.leases.backlog):
            assert all(a.id < b.id for a, b in pairwise(lane))


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_each_stored_record_is_handed_out_once_as_it_is(seed: int) -> None:
    model = FileModel(seed)
    for _ in range(300):
        model.step()
    model.leases.release(list(model.leased.values()))
    model.leased.clear()
    model.commit()
    expected = dict(model.stored)
    handed: dict[int, Record] = {}
    idle = 0
    while idle < 2:
        records = model.leases.lease(100, None)
        for one in records:
            assert one.id not in handed
            handed[one.id] = one
        idle = 0 if records else idle + 1
        model.leases.accept(records)
        if model.leases.wants_more():
            for settled in model.leases.settled:
                del model.stored[settled]
            model.leases.settled = []
            after, limit = model.leases.next_read()
            model.leases.read([model.stored[one] for one in sorted(model.stored) if one > after][:limit], limit)
    assert handed == expected


def test_fresh_records_go_before_the_backlog_and_the_backlog_is_rationed() -> None:
    leases = Leases()
    leases.read([], 1)
    leases.added(map(record, range(1, 1001)))
    assert len(leases.fresh) + len(leases.backlog) == FRESH_FULL + READY_FULL, "what memory holds is bounded"
    first = leases.lease(FRESH_FULL + 3, 2)
    assert [one.id for one in first] == [*range(1001 - FRESH_FULL, 1001), 1, 2]
    assert [leases.lane(one) for one in first[-3:]] == ["fresh", "backlog", "backlog"]
    assert not leases.leasable(0) and leases.leasable(1) and leases.leasable(None)
    leases.added([record(1001)])
    assert [one.id for one in leases.lease(10, 0)] == [1001]
    leases.release([first[-1], first[0]])
    again = leases.lease(2, None)
    assert [(one.id, leases.lane(one)) for one in again] == [(1001 - FRESH_FULL, "fresh"), (2, "backlog")]


def test_the_newest_results_come_first_after_an_outage(tmp_path: Path, running: Start) -> None:
    outbox = Outbox(tmp_path / "o.db", boot="b1")
    running(outbox)
    for number in range(900):
        outbox.put(f"s{number}", {"n": number})
    eventually(lambda: outbox.depth().batches == 900, "stored")
    outbox.put("late", {"n": 1}, priority=Priority.ALARM)
    eventually(lambda: outbox.depth().batches == 901, "stored")
    streams: list[str] = []
    while len(streams) < 901:
        records = outbox.lease(50, 10.0, backlog=None if len(streams) >= FRESH_FULL else 0)
        assert records, "more is stored"
        streams += [one.stream for one in records]
        outbox.settle(records)
    names = [*(f"s{number}" for number in range(900)), "late"]
    assert streams == names[-FRESH_FULL:] + names[:-FRESH_FULL]


def test_the_lowest_number_held_is_known_without_the_file(tmp_path: Path, running: Start) -> None:
    path = tmp_path / "o.db"
    outbox = Outbox(path, boot="b1")
    first = running(outbox)
    key = ("b1", "kw")
    assert outbox.lowest_held(key) is None
    for number in range(4):
        outbox.put("kw", {"n": number}, priority=Priority.ALARM)
        eventually(lambda number=number: outbox.depth().batches == number + 1, "stored")  # type: ignore[misc]
    records = outbox.lease(4, 5.0)
    outbox.settle([records[1]])
    assert outbox.lowest_held(key) == 1
    outbox.settle([records[0]])
    assert outbox.lowest_held(key) == 3
    first.stop()
    outbox = Outbox(path, boot="b2")
    running(outbox)
    assert outbox.opened.wait(10)
    assert outbox.lowest_held(key) == 3
    outbox.settle(outbox.lease(2, 5.0))
    assert outbox.lowest_held(key) is None


@pytest.mark.parametrize("seed", range(20))
def test_ranges_are_sets_of_numbers(seed: int) -> None:
    chance = random.Random(seed)
    ranges, model = Ranges(), set[int]()
    for _ in range(400):
        first = chance.randrange(1, 60)
        last = first + chance.randrange(8)
        if chance.random() < 0.5:
            ranges.add(first, last)
            model |= set(range(first, last + 1))
        else:
            ranges.remove(first, last)
            model -= set(range(first, last + 1))
        listed = list(ranges)
        assert {n for a, b in listed for n in range(a, b + 1)} == model
        assert all(a[1] + 1 < b[0] for a, b in pairwise(listed)), "they touch or overlap"
        assert ranges.count == len(model) and ranges.lowest == min(model, default=None)
        inside = {n for a, b in ranges.common(first - 3, last + 3) for n in range(a, b + 1)}
        assert inside == model & set(range(first - 3, last + 4))
