"""What is known of the wall clock: kept over restarts, bounded where nobody knew, never a lie."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import wire
from agent.clock import FILE, SAVE_S, ClockKeeper, DeviceClock, read_table
from agent.clock_epochs import (
    MAX_EPOCHS,
    MAX_FIXES,
    Epoch,
    Fix,
    Knowledge,
    from_document,
    knowledge,
    parse_report,
    restamp,
    to_document,
)
from agent.clock_leap import SETTLED_NS, Leaps
from agent.outbox import Outbox
from agent.topics import Topics
from agent.uplink_reports import CLOCK_QUIET_S, CLOCK_S, Reports

SECOND_US = 1_000_000
TRUE_US = 1_790_000_000 * SECOND_US
"""The true time at which the first kernel of a test starts."""


class MadeClock(DeviceClock):
    """Says what it is told to say."""

    def __init__(self, kernel: str = "k1", true_us: int = TRUE_US) -> None:
        super().__init__()
        self.kernel = kernel
        self.true_us = true_us
        """The right offset."""
        self.now_s = 5.0
        self.wrong_s = -float(TRUE_US // SECOND_US)
        self.sure_ms: float | None = None

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    def said_us(self) -> int:
        return self.true_us + round(self.wrong_s * 1e6)

    def slept_us(self) -> int:
        return 0

    def uncertainty_ms(self) -> float | None:
        return self.sure_ms

    def epoch(self) -> str:
        return self.kernel

    def known(self, sure_ms: float = 2.0) -> None:
        self.wrong_s, self.sure_ms = 0.0, sure_ms

    def set_by_hand(self, wrong_s: float) -> None:
        self.wrong_s, self.sure_ms = wrong_s, None


def keeper(folder: Path, clock: MadeClock) -> ClockKeeper:
    made = ClockKeeper(folder, clock)
    made.load()
    return made


def looks(made: ClockKeeper, clock: MadeClock, seconds: int) -> None:
    for _ in range(seconds):
        clock.now_s += 1
        made.look()


def finish(made: ClockKeeper) -> None:
    """A clean stop."""
    made._save()


def test_the_last_known_time_is_the_least_at_the_next_start(tmp_path: Path) -> None:
    clock = MadeClock()
    clock.known()
    first = keeper(tmp_path, clock)
    looks(first, clock, 100)
    finish(first)
    clock = MadeClock("k2", TRUE_US + 5000 * SECOND_US)
    second = keeper(tmp_path, clock)
    state = second.state()
    assert (state.source, state.known, state.uncertainty_ms) == ("wrong", False, None)
    assert state.last_known_us == TRUE_US + 105 * SECOND_US
    assert state.at_least_us == pytest.approx(TRUE_US + 110 * SECOND_US, abs=SECOND_US)
    assert state.trouble is not None and "1970-01-01T" in state.trouble and "or later" in state.trouble
    stamp_us = clock.offset_us() + clock.monotonic_ns() // 1000
    assert stamp_us == state.at_least_us, "results are stamped with the least, and not as of 1970"
    clock.known()
    looks(second, clock, 1)
    assert second.state().known and second.state().at_least_us is None and second.state().trouble is None
    assert clock.offset_us() == clock.true_us


def test_a_clock_that_was_never_set_says_so_and_bounds_nothing(tmp_path: Path) -> None:
    clock = MadeClock()
    state = keeper(tmp_path, clock).state()
    assert (state.source, state.last_known_us, state.at_least_us) == ("wrong", None, None)
    assert clock.offset_us() == clock.said_us()
    clock.wrong_s = 60.0
    assert keeper(tmp_path, clock).state().source == "unsynchronised", "set by a battery or by hand: it may be right"


def test_a_clock_that_is_set_back_by_hand_is_wrong_and_is_not_believed(tmp_path: Path) -> None:
    clock = MadeClock()
    clock.known()
    made = keeper(tmp_path, clock)
    looks(made, clock, 3)
    clock.set_by_hand(-3600.0)
    looks(made, clock, 3)
    state = made.state()
    assert (state.source, state.steps, state.last_step_ms) == ("wrong", 1, -3_600_000.0)
    assert state.trouble is not None and "was set back" in state.trouble
    (known,) = read_epochs(made).values()
    assert known.at(8 * SECOND_US) == Fix(8 * SECOND_US, TRUE_US, 2.0)


def read_epochs(made: ClockKeeper) -> dict[str, Knowledge]:
    return parse_report(made.report()[1])


def test_a_later_known_clock_overrules_an_earlier_one(tmp_path: Path) -> None:
    clock = MadeClock()
    clock.wrong_s, clock.sure_ms = 3.15e8, 1.0
    made = keeper(tmp_path, clock)
    looks(made, clock, 10)
    clock.known()
    looks(made, clock, 10)
    (known,) = read_epochs(made).values()
    assert {fix.offset_us for fix in known.fixes} == {TRUE_US}
    finish(made)
    assert keeper(tmp_path, MadeClock("k2")).state().last_known_us == TRUE_US + 25 * SECOND_US


def test_a_restart_without_a_known_clock_tells_what_earlier_runs_knew(tmp_path: Path) -> None:
    clock = MadeClock()
    clock.known()
    first = keeper(tmp_path, clock)
    looks(first, clock, 1)  # and then kill -9
    clock.set_by_hand(-100.0)
    again = keeper(tmp_path, clock)
    assert read_epochs(again)["k1"].fixes
    clock = MadeClock("k2", TRUE_US + 1000 * SECOND_US)
    assert read_epochs(keeper(tmp_path, clock))["k2"].least_us is not None


def test_of_each_known_stretch_the_first_and_last_fix_stay_and_there_are_never_many(tmp_path: Path) -> None:
    clock = MadeClock()
    made = keeper(tmp_path, clock)
    for _ in range(3):
        clock.set_by_hand(0.0)
        looks(made, clock, 10)
        clock.known()
        looks(made, clock, 10)
    clock.set_by_hand(0.0)
    looks(made, clock, 1)
    (known,) = read_epochs(made).values()
    assert [fix.mono_us // SECOND_US for fix in known.fixes] == [16, 25, 36, 45, 56, 65]
    for _ in range(50):
        clock.sure_ms = None if clock.sure_ms else 2.0
        looks(made, clock, 2)
    (known,) = read_epochs(made).values()
    assert len(known.fixes) == MAX_FIXES
    assert (known.fixes[0].mono_us, known.fixes[-1].mono_us) == (16 * SECOND_US, 164 * SECOND_US)


def test_the_flash_is_spared_and_what_counts_is_written_at_once(tmp_path: Path) -> None:
    clock = MadeClock()
    made = keeper(tmp_path, clock)
    written = set()
    for second in range(1500):
        clock.sure_ms = 2.0 if second > 10 and second % 7 else None
        clock.wrong_s = 0.0 if second > 10 else clock.wrong_s
        looks(made, clock, 1)
        if (tmp_path / FILE).exists():
            written.add((tmp_path / FILE).read_bytes())
        assert bool(written) == (second > 10), "as soon as the time is known"
    assert len(written) == 1500 // SAVE_S


def test_more_starts_than_are_kept_leave_the_floor(tmp_path: Path) -> None:
    clock = MadeClock()
    clock.known()
    made = keeper(tmp_path, clock)
    looks(made, clock, 5)
    finish(made)
    for number in range(MAX_EPOCHS + 5):
        clock = MadeClock(f"x{number}")
        made = keeper(tmp_path, clock)
        finish(made)
    assert len(json.loads((tmp_path / FILE).read_text())["epochs"]) == MAX_EPOCHS
    assert made.state().last_known_us == TRUE_US + 10 * SECOND_US
    assert made.state().at_least_us is not None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"v":1}', '{"floor_us":null,"epochs":7}', '{"floor_us":null,"epochs":[{}]}', "[" * 9999,
     '{"floor_us":1e400,"epochs":[]}', '{"floor_us":null,"epochs":[{"id":"a","kernel":"a","slept_us":0,"end_us":0,'
     '"fixes":[[1,2]]}]}', "\xff", "9" * 5000, f'{{"floor_us":1{"0" * 400},"epochs":[]}}',
     *(f'{{"floor_us":null,"epochs":[{{"id":"a","kernel":"a","slept_us":0,"end_us":{end},"fixes":[[1,2,3.0]]}}]}}'
       for end in ("1" + "0" * 400, "1e308", '"7"', "true", "null"))],
)  # fmt: skip
def test_a_damaged_file_is_said_and_replaced(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text(text, "latin-1")
    with caplog.at_level(logging.WARNING):
        made = keeper(tmp_path, MadeClock())
    assert any("cannot be read" in line for line in caplog.messages)
    assert read_table(tmp_path) == {}
    finish(made)
    assert json.loads((tmp_path / FILE).read_text())["epochs"]


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = keeper(tmp_path / "none", MadeClock())
    with caplog.at_level(logging.WARNING):
        finish(made)
        finish(made)
    assert len([line for line in caplog.messages if "cannot be written" in line]) == 1


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Epoch], list[int]]:
    """Epochs of a device as it really went, and the true offset of each."""
    epochs, truth, offset_us, kernel, slept_us, mono_us = [], [], TRUE_US, 0, 0, 0
    for number in range(draw(st.integers(1, 8))):
        if number and draw(st.booleans()):
            sleep_us = draw(st.integers(1, 10**10))
            slept_us, offset_us = slept_us + sleep_us, offset_us + sleep_us
        elif number:
            offset_us += mono_us + draw(st.integers(0, 10**11))
            kernel, slept_us, mono_us = kernel + 1, 0, 0
        begin_us = mono_us
        mono_us += draw(st.integers(1, 10**10))
        fixes = []
        for at_us in sorted(draw(st.lists(st.integers(begin_us, mono_us), max_size=2))):
            unc_ms = draw(st.floats(0.1, 50.0))
            error_us = draw(st.integers(-round(unc_ms * 900), round(unc_ms * 900)))
            fixes.append(Fix(at_us, offset_us + error_us, unc_ms))
        epochs.append(Epoch(f"e{number}", f"k{kernel}", slept_us, mono_us, fixes))
        truth.append(offset_us)
    return epochs, truth


@settings(max_examples=50)
@given(histories())
def test_whatever_happened_the_truth_is_within_what_is_claimed(history: tuple[list[Epoch], list[int]]) -> None:
    epochs, truth = history
    table = knowledge(epochs, TRUE_US)
    for epoch, true_us in zip(epochs, truth, strict=True):
        known = table[epoch.id]
        assert from_document(json.loads(json.dumps(to_document(known)))) == known
        best = known.at(epoch.end_us)
        if best is None:
            assert known.least_us is not None and known.least_us <= true_us + 1
        else:
            assert abs(best.offset_us - true_us) <= best.uncertainty_ms * 1000 + 2
            assert best.uncertainty_ms < 1e9


def test_a_sleep_is_bridged_exactly() -> None:
    asleep = Epoch("k1", "k1", 0, 100 * SECOND_US, [Fix(50 * SECOND_US, TRUE_US, 1.0)])
    awake = Epoch("k1-3600", "k1", 3600 * SECOND_US, 200 * SECOND_US)
    after = Epoch("k2", "k2", 0, SECOND_US, [Fix(0, TRUE_US + 9000 * SECOND_US, 1.0)])
    known = knowledge([asleep, awake, after])["k1-3600"]
    assert known.least_us == pytest.approx(TRUE_US + 3600 * SECOND_US, abs=50_000)


def batch(epoch: str = "k1", offset_us: int = 0, unc_ms: float | None = None) -> wire.Batch:
    """Three results of 10, 11 and 12 s of CLOCK_MONOTONIC."""
    times = tuple(offset_us + number * SECOND_US for number in (10, 11, 12))
    return wire.Batch("b1", "kw", 1, 3, times, {}, unc_ms, offset_us=offset_us, epoch=epoch)


@pytest.mark.parametrize(
    ("stamped", "known", "t_us", "unc_ms"),
    [
        (batch(), Knowledge((Fix(10 * SECOND_US, TRUE_US, 2.0),)), TRUE_US, 2.0),
        (batch(), Knowledge((Fix(2010 * SECOND_US, TRUE_US, 2.0),)), TRUE_US, 1002.0),
        (batch(offset_us=TRUE_US + 500, unc_ms=1.0), Knowledge((Fix(0, TRUE_US, 2.0),)), TRUE_US + 500, 1.0),
        (batch(offset_us=TRUE_US + 10**13, unc_ms=1.0), Knowledge((Fix(10**7, TRUE_US, 2.0),)), TRUE_US, 2.0),
        (batch(), Knowledge(least_us=TRUE_US), TRUE_US, None),
        (batch(offset_us=TRUE_US + 7), Knowledge(least_us=TRUE_US), TRUE_US + 7, None),
        (batch(), Knowledge(least_us=TRUE_US, most_us=TRUE_US + 2000), TRUE_US + 1000, 1.0),
        (batch(epoch="k9"), Knowledge((Fix(0, TRUE_US, 2.0),)), 0, None),
        (batch(epoch=""), Knowledge((Fix(0, TRUE_US, 2.0),)), 0, None),
    ],
    ids=["1970", "long after", "agrees", "vouched for and wrong", "at least", "later", "between", "other", "old axond"],
)
def test_stamps_are_corrected_by_what_is_known(
    stamped: wire.Batch, known: Knowledge, t_us: int, unc_ms: float | None
) -> None:
    better = restamp(stamped, {"k1": known, "": Knowledge((Fix(0, 1, 1.0),))})
    assert better.t_us == tuple(t_us + number * SECOND_US for number in (10, 11, 12))
    assert better.uncertainty_ms == unc_ms
    assert restamp(better, {"k1": known}).t_us == better.t_us, "twice is once"


def test_leaps_are_counted_and_slow_creeping_too() -> None:
    leaps = Leaps()
    assert [leaps.look(n, us) for n, us in enumerate((0, 5, -9_999, 9_999, 10_000, 10_001))] == [0, 0, 0, 0, 10_000, 0]
    assert (leaps.count, leaps.last_us) == (1, 10_000)
    assert not leaps.is_settled(SETTLED_NS) and leaps.is_settled(SETTLED_NS + 4)
    assert not Leaps().is_settled(SETTLED_NS * 9), "never looked at"


def test_the_hub_is_told_at_once_on_change_and_now_and_then(tmp_path: Path) -> None:
    clock = MadeClock()
    made = keeper(tmp_path, clock)
    outbox = Outbox(tmp_path / "o.db", boot="b1")
    how = {"info": dict, "metrics": dict, "agent_version": "1", "region": "", "interval_s": 1e9}
    reports = Reports(outbox, Topics("axond/v1", "d1"), **how, clock=made)  # type: ignore[arg-type]
    reports.begin()

    def told(now_s: float) -> list[str]:
        return [
            message.topic.rpartition("/")[2] for message in reports.due(now_s, 100) if "metrics" not in message.topic
        ]

    assert told(100.0) == [], "nothing is known"
    clock.known()
    looks(made, clock, 1)
    assert told(101.0) == [], "not more often than now and then"
    assert told(100.0 + CLOCK_QUIET_S) == ["clock", "event"]
    assert told(200.0) == []
    clock.set_by_hand(-3600.0)
    looks(made, clock, 1)
    (clocks, leap) = list(reports.due(300.0, 100))
    assert clocks.retain and clocks.qos == 1, "a hub that comes later hears it"
    event = json.loads(leap.payload)
    assert (event["event"], event["state"], event["by_ms"], event["steps"]) == ("clock", "leapt", -3_600_000.0, 2)
    assert told(300.0 + CLOCK_S - 1) == []
    assert told(300.0 + CLOCK_S) == ["clock"]
    reports.begin()
    assert told(300.0 + CLOCK_S + 1) == ["clock"], "each connection begins with it"


@pytest.mark.parametrize(
    "document",
    [{}, {"epochs": []}, {"epochs": {"": {}}}, {"epochs": {"a b": {}}}, {"epochs": {"a": []}},
     {"epochs": {str(n): {} for n in range(MAX_EPOCHS + 1)}}, {"epochs": {"a": {"fixes": [[0, 0, 1.0]] * 17}}},
     {"epochs": {"a": {"fixes": [[0, 0]]}}}, {"epochs": {"a": {"fixes": [[0, 0, -1]]}}},
     {"epochs": {"a": {"fixes": [[0.5, 0, 1]]}}}, {"epochs": {"a": {"fixes": [[0, 2**60, 1]]}}},
     {"epochs": {"a": {"fixes": [[True, 0, 1]]}}}, {"epochs": {"a": {"least_us": "x"}}},
     {"epochs": {"a": {"least_us": 2, "most_us": 1}}}],
)  # fmt: skip
def test_a_report_from_a_stranger_does_no_harm(document: dict[str, object]) -> None:
    with pytest.raises(wire.WireError):
        parse_report(document)


def test_the_clock_of_this_machine() -> None:
    clock = wire.SystemClock()
    assert clock.epoch() == clock.epoch() != ""
    assert wire.decode(wire.encode("b1", "kw", 1, [(0, {"n": 1})], clock)).epoch == clock.epoch()
    assert not clock.is_settled(), "not within a day of the first look"
