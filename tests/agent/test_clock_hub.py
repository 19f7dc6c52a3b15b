"""The hub and time: stamps corrected by what devices tell later, and nothing lost by a clock of its own that leaps."""

import json
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from agent import wire
from agent.clock_epochs import Fix, Knowledge, from_document
from agent.hub import clocks
from agent.hub.database import Target
from agent.hub.parse import parse
from agent.hub.retention import DAY_US, Retention, Stretch
from agent.hub.store import Arrivals, HubStore
from agent.link import Received
from tests.agent.test_hub_store import arrivals, batch

TRUE_US = 1_790_000_000_000_000
SECOND_US = 1_000_000


class Clock1970(wire.SystemClock):
    """Says 1970 and knows nothing."""

    def offset_us(self) -> int:
        return 60 * SECOND_US

    def uncertainty_ms(self) -> float | None:
        return None

    def epoch(self) -> str:
        return "k1"


def early(seq0: int, boot: str = "b1") -> bytes:
    rows: list[tuple[int, wire.Row]] = [(0, {"t_ns": (100 + seq) * 10**9, "n": seq}) for seq in (seq0, seq0 + 1)]
    return wire.encode(boot, "kw", seq0, rows, Clock1970())


def told(known: Knowledge, epoch: str = "k1") -> Arrivals:
    return Arrivals(clocks={"d1": {epoch: known}})


@pytest.fixture
def store(target: Target) -> Iterator[HubStore]:
    with closing(HubStore.open(target)) as opened:
        yield opened


def stamps(store: HubStore) -> list[tuple[object, object]]:
    return [(row["t_us"], row["t_unc_ms"]) for row in store.results("d1", "kw")]


def test_rows_that_are_stored_get_the_right_time_when_it_is_known(store: HubStore) -> None:
    store.store(arrivals(early(1), early(3, "b2")))
    assert stamps(store) == [((160 + seq) * SECOND_US, None) for seq in (1, 2, 3, 4)]
    store.store(told(Knowledge(least_us=TRUE_US)))
    least = [(TRUE_US + (100 + seq) * SECOND_US, None) for seq in (1, 2, 3, 4)]
    assert stamps(store) == least, "at least"
    store.store(told(Knowledge((Fix(101 * SECOND_US, TRUE_US + 5_000_000, 2.0),))))
    assert [unc for _, unc in stamps(store)] == [2.0, 2.0, 3.0, 3.0]
    assert [t_us for t_us, _ in stamps(store)] == [t_us + 5_000_000 for t_us, _ in least]  # type: ignore[operator]
    store.store(told(Knowledge(least_us=TRUE_US)))
    assert [unc for _, unc in stamps(store)] == [2.0, 2.0, 3.0, 3.0], "who knew more is not forgotten"
    store.store(Arrivals(clocks={"d2": {"k1": Knowledge((Fix(0, 7, 1.0),))}}))
    assert [unc for _, unc in stamps(store)] == [2.0, 2.0, 3.0, 3.0], "another device's clock is no business of ours"


def test_what_a_device_claims_of_its_clock_stops_nobody_who_reads(store: HubStore) -> None:
    """A column may have the name of what the hub adds, and no number is too large to be looked at."""
    rows: list[tuple[int, wire.Row]] = [(0, {"t_ns": 10**11, "t_unc_ms": "abc"})]
    store.store(arrivals(wire.encode("b1", "kw", 1, rows, Clock1970())))
    assert stamps(store) == [(160 * SECOND_US, None)]
    store.store(told(Knowledge((Fix(2**52, 2**52, 1e12),))))
    (row,) = store.results("d1", "kw")
    assert isinstance(row["t_unc_ms"], float) and row["t_unc_ms"] > 1e12


def test_only_so_many_epochs_of_a_device_are_kept(store: HubStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "KEPT", 3)
    for number in range(5):
        monkeypatch.setattr("agent.hub.store.wall_us", lambda now_us=TRUE_US + number: now_us)
        store.store(told(Knowledge(least_us=number), f"k{number}"))
    with store._engine.begin() as connection:
        assert sorted(clocks.load(connection, "d1")) == ["k2", "k3", "k4"]


def test_of_many_epochs_only_those_that_are_told_are_read(store: HubStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that all come back at once each tell of their clocks, and results wait meanwhile."""
    known = {f"k{number}": Knowledge((Fix(number, TRUE_US, 1.0),)) for number in range(100)}
    store.store(Arrivals(clocks={"d1": known}))
    read: list[object] = []
    monkeypatch.setattr(clocks, "from_document", lambda body: read.append(body) or from_document(body))
    store.store(told(Knowledge((Fix(5, TRUE_US, 2.0),)), "k7"))
    assert len(read) == 1
    with store._engine.begin() as connection:
        now = clocks.load(connection, "d1")
    assert now == {**known, "k7": Knowledge((Fix(5, TRUE_US, 2.0),))}


def test_a_report_that_is_none_is_rejected_and_counted() -> None:
    def parsed(payload: object) -> str:
        return parse("axond/v1", Received("axond/v1/d1/up/clock", json.dumps(payload).encode())).kind

    assert parsed({"epochs": {"k1": {"fixes": [[1, 2, 3.0]]}}}) == ""
    assert parsed({"epochs": {"k1": {"fixes": [[1, 2, "x"]]}}}) == "bad clock"
    assert parsed([]) == "bad clock"


def test_boots_stay_in_order_when_the_clock_of_the_hub_leaps(store: HubStore, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = {"zz": 0, "b1": -1, "aa": 87_660, "c": 0}
    for boot, hour in hours.items():
        monkeypatch.setattr("agent.hub.store.wall_us", lambda at_us=TRUE_US + hour * 3600 * SECOND_US: at_us)
        store.store(arrivals(batch(1, 1, boot)))
    assert [row["boot"] for row in store.results("d1", "kw")] == list(hours)
    store.store(arrivals(batch(1, 1, "y"), batch(1, 1, "x")))
    assert [row["boot"] for row in store.results("d1", "kw")] == [*hours, "y", "x"], "within a group, too"


def test_a_store_of_before_gets_what_it_lacks(target: Target) -> None:
    with closing(HubStore.open(target)) as old:
        old.store(arrivals(batch(1, 2)))
        with old._engine.begin() as connection:
            connection.execute(text("DROP TABLE clocks"))
            connection.execute(text("DROP TABLE trusted"))
    with pytest.raises(FileNotFoundError, match="older axond"):
        HubStore.open_for_reading(target)
    with closing(HubStore.open(target)) as new:
        assert [row["seq"] for row in new.results("d1", "kw")] == [1, 2]
    HubStore.open_for_reading(target).close()


HOUR_US = 3600 * SECOND_US


def trusted(at_us: int) -> list[Stretch]:
    return [Stretch.trusted(at_us)]


@pytest.mark.parametrize(
    ("known", "removes"),
    [
        pytest.param([], False, id="nothing known"),
        pytest.param(trusted(TRUE_US - HOUR_US), True, id="an hour ago"),
        pytest.param(trusted(TRUE_US + HOUR_US), True, id="an hour back"),
        pytest.param(trusted(TRUE_US - 2 * DAY_US), False, id="two days on"),
        pytest.param(trusted(TRUE_US + DAY_US), False, id="a day back"),
        pytest.param([Stretch(TRUE_US - 25 * HOUR_US, TRUE_US - HOUR_US)], True, id="a day of it"),
        pytest.param([Stretch(TRUE_US - 23 * HOUR_US, TRUE_US - HOUR_US)], False, id="not yet a day"),
        pytest.param([Stretch(TRUE_US - 9 * DAY_US, TRUE_US - 2 * DAY_US)], False, id="long ago"),
        pytest.param([*trusted(TRUE_US - 9 * DAY_US), Stretch(TRUE_US - DAY_US, TRUE_US)], True, id="anew"),
    ],
)
def test_what_is_removed_needs_a_clock_that_goes_on(known: list[Stretch], removes: bool) -> None:
    retention = Retention(30, known, TRUE_US)
    assert retention.before_us(TRUE_US) == (TRUE_US - 30 * DAY_US if removes else None)


class Ticking:
    """A machine's clocks, which go on as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wall_us: int) -> None:
        self.wall_us = wall_us
        self._now_ns = 10**12
        monkeypatch.setattr(time, "monotonic_ns", lambda: self._now_ns)

    def go_on(self, by_us: int) -> None:
        self.wall_us += by_us
        self._now_ns += by_us * 1000


def test_a_clock_that_was_never_set_is_never_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Ticking(monkeypatch, 60 * SECOND_US)
    retention = Retention(30, [], clock.wall_us)
    assert retention.before_us(clock.wall_us) is None
    clock.go_on(2 * DAY_US)
    assert retention.before_us(clock.wall_us) is None, "1970 for days: there is no time service"


def test_a_leap_while_the_hub_runs_removes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Ticking(monkeypatch, TRUE_US)
    retention = Retention(30, trusted(TRUE_US), TRUE_US)
    assert retention.before_us(TRUE_US + 50 * SECOND_US) is not None, "a little is nothing"
    clock.wall_us += 3650 * DAY_US
    assert retention.before_us(clock.wall_us) is None
    clock.go_on(DAY_US * 999 // 1000)
    assert retention.before_us(clock.wall_us) is None
    clock.go_on(DAY_US * 2 // 1000)
    assert retention.before_us(clock.wall_us) is not None, "it stayed for a day: so it is right"


def test_a_store_of_a_hub_that_never_watched_its_clock_loses_nothing_to_a_wrong_one(
    store: HubStore, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is wrong just when the hub is upgraded, or told to forget for the first time; then it is set right."""
    monkeypatch.setattr("agent.hub.store.wall_us", lambda: TRUE_US)
    store.store(arrivals(batch(1)))
    clock = Ticking(monkeypatch, TRUE_US + 3650 * DAY_US)
    retention = Retention(30, store.stretches, clock.wall_us)
    for _ in range(20):
        clock.go_on(HOUR_US)
        assert retention.before_us(clock.wall_us) is None
        store.watch_clock(retention.stretch(clock.wall_us))
    clock.wall_us -= 3650 * DAY_US
    with closing(HubStore.open(target)) as again:
        assert again.trusted_us is None
        retention = Retention(30, again.stretches, clock.wall_us)
        assert retention.before_us(clock.wall_us) is None, "it has just come back from far away"
        clock.go_on(DAY_US)
        assert retention.before_us(clock.wall_us) is not None


def test_a_hub_that_is_switched_off_every_night_earns_its_trust(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, trusted_on = Ticking(monkeypatch, TRUE_US), []
    for day in range(3):
        with closing(HubStore.open(target)) as store:
            retention = Retention(30, store.stretches, clock.wall_us)
            for _ in range(10):
                if retention.before_us(clock.wall_us) is None:
                    store.watch_clock(retention.stretch(clock.wall_us))
                else:
                    store.trust(clock.wall_us)
                    trusted_on.append(day)
                clock.go_on(HOUR_US)
        clock.go_on(14 * HOUR_US)
    assert trusted_on == [1] * 10 + [2] * 10


def test_what_came_at_times_that_cannot_be_is_kept_as_long_as_the_rest(
    store: HubStore, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seq, at_us in ((1, 60 * SECOND_US), (2, TRUE_US - 40 * DAY_US), (3, TRUE_US + 3650 * DAY_US)):
        monkeypatch.setattr("agent.hub.store.wall_us", lambda at_us=at_us: at_us)
        store.store(arrivals(batch(seq)))
    store.trust(TRUE_US)
    assert store.trusted_us == TRUE_US
    assert store.expire(TRUE_US - 30 * DAY_US, 100) == 1
    assert [row["seq"] for row in store.results("d1", "kw")] == [1, 3], "of 1970, and of in ten years: it came just now"
    monkeypatch.setattr("agent.hub.store.wall_us", lambda: 70 * SECOND_US)
    with closing(HubStore.open(target)) as later:
        later.store(arrivals(batch(4)))
    assert store.expire(TRUE_US - 30 * DAY_US, 100) == 0, "a hub that starts in 1970 knows better"
    assert store.expire(TRUE_US + SECOND_US, 100) == 3
