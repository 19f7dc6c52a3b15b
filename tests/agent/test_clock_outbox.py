"""The outbox and time: a leap neither erases, nor makes old, nor reorders what waits."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.clock import FILE, _Memory, _text
from agent.clock_epochs import Epoch, Fix
from agent.outbox import Outbox
from agent.outbox_export import write_jsonl
from agent.outbox_store import OutboxLimits
from agent.record import Priority
from agent.wire import decode
from tests.agent.test_outbox_room import HOUR_NS, MadeClock, all_records, put_stored
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]
TEN_YEARS_US = 3650 * 24 * 3_600_000_000


class LeapingClock(MadeClock):
    """Known at any moment, and believed for long only where a test says so."""

    settled = False

    def is_settled(self) -> bool:
        return self.settled


def filled(path: Path, running: Start, clock: LeapingClock) -> None:
    """Three results of an earlier boot."""
    first = Outbox(path, boot="b1", clock=clock)
    run = running(first)
    for _ in range(3):
        put_stored(first, "kw", Priority.ALARM, 100)
        clock.now_ns += 10**9
    run.stop()


@pytest.mark.parametrize("leap_us", [TEN_YEARS_US, -3_600_000_000])
@pytest.mark.parametrize("restart", ["agent", "machine"])
def test_a_leap_erases_nothing(tmp_path: Path, running: Start, leap_us: int, restart: str) -> None:
    path, clock = tmp_path / "o.db", LeapingClock()
    filled(path, running, clock)
    clock.wall_us += leap_us
    if restart == "machine":
        clock.kernel, clock.now_ns = "cd34", 10**9
    outbox = Outbox(path, boot="b2", limits=OutboxLimits(max_age_s=3600), clock=clock)
    running(outbox)
    put_stored(outbox, "kw", Priority.ALARM, 100)
    clock.wall_us -= 2 * leap_us
    put_stored(outbox, "kw", Priority.ALARM, 100)
    records = all_records(outbox)
    assert [(r.boot, r.seq0, r.is_gap) for r in records] == [
        *(("b1", n, False) for n in (1, 2, 3)),
        *(("b2", n, False) for n in (1, 2)),
    ]
    assert outbox.depth().evicted == 0


def test_of_another_run_in_the_same_epoch_the_monotonic_clock_tells(tmp_path: Path, running: Start) -> None:
    path, clock = tmp_path / "o.db", LeapingClock()
    clock.sure = False
    filled(path, running, clock)
    outbox = Outbox(path, boot="b2", limits=OutboxLimits(max_age_s=3600), clock=clock)
    running(outbox)
    put_stored(outbox, "kw", Priority.RESULT, 100)
    assert outbox.depth().oldest_age_s == pytest.approx(3.0)
    clock.now_ns += HOUR_NS - 10**9 - 10**9 // 2
    outbox._age._at_s = 0.0
    eventually(lambda: outbox.depth().evicted == 2, "given up")
    records = all_records(outbox)
    assert [(r.boot, r.seq0, r.seq1, r.is_gap) for r in records] == [
        ("b1", 1, 2, True), ("b1", 3, 3, False), ("b2", 1, 1, False)
    ]  # fmt: skip
    assert decode(records[0].payload).cause == "age"


def test_of_earlier_machines_nobody_claims_an_age_that_is_not_known(tmp_path: Path, running: Start) -> None:
    path, clock = tmp_path / "o.db", LeapingClock()
    clock.sure, clock.wall_us = False, 60_000_000
    filled(path, running, clock)
    clock.kernel, clock.sure, clock.wall_us = "cd34", True, 1_700_000_000_000_000
    outbox = Outbox(path, boot="b2", clock=clock)
    running(outbox)
    eventually(outbox.leasable, "read back")
    assert outbox.depth().oldest_age_s == 0.0, "made in 1970: not for 53 years"
    clock.now_ns += 5 * 10**9
    assert outbox.depth().oldest_age_s == pytest.approx(5.0), "as long as this run knows it"


def test_what_was_known_then_and_is_now_has_an_age(tmp_path: Path, running: Start) -> None:
    path, clock = tmp_path / "o.db", LeapingClock()
    filled(path, running, clock)
    clock.kernel, clock.wall_us = "cd34", clock.wall_us + 7_000_000
    outbox = Outbox(path, boot="b2", clock=clock)
    running(outbox)
    eventually(outbox.leasable, "read back")
    assert outbox.depth().oldest_age_s == pytest.approx(7.0)


def test_what_is_exported_has_the_times_that_are_known_by_now(tmp_path: Path, running: Start) -> None:
    path, clock = tmp_path / "o.db", LeapingClock()
    clock.sure, clock.wall_us = False, 60_000_000
    began_ns = clock.now_ns
    filled(path, running, clock)

    def exported() -> list[tuple[int, float | None]]:
        out = io.StringIO()
        write_jsonl(path, out)
        return [(row["t_us"], row["t_unc_ms"]) for row in map(json.loads, out.getvalue().splitlines())]

    assert exported() == [(60_000_000, None)] * 3
    offset_us = 1_700_000_000_000_000
    epoch = Epoch(clock.kernel, clock.kernel, 0, began_ns // 1000, [Fix(began_ns // 1000, offset_us, 2.0)])
    (tmp_path / FILE).write_text(_text(_Memory(None, [epoch])))
    times_us = [offset_us + began_ns // 1000 + second * 1_000_000 for second in range(3)]
    assert exported() == list(zip(times_us, (2.0, 2.5, 3.0), strict=True))
