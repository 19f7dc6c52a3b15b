"""What is under way, the hub's word and what it lacks: pure bookkeeping, with made times."""

import json
import random

import pytest

from agent.link import FEW, GATHER_S
from agent.record import Lane, Record
from agent.uplink_flight import (
    BACKLOG_FIRST,
    BACKLOG_SPARED,
    GATHERED_S,
    QUICK_S,
    REORDER_LONGEST_S,
    REORDER_S,
    SLOW_S,
    STALL_FIRST_S,
    STALL_LONGEST_S,
    WINDOW,
    Flight,
    Stall,
)
from agent.uplink_holes import HOLE_S, LONGEST_S, MAX_MARKS, Holes
from agent.uplink_watermark import Watermark, parse_watermark

KEY = ("b1", "kw")


def record(seq0: int, seq1: int = 0, stream: str = "kw") -> Record:
    return Record(seq0, "b1", stream, seq0, seq1 or seq0, 1, False, 0, 0, b"")


def word(**document: object) -> Watermark:
    mark = parse_watermark(json.dumps({"boot": "b1", **document}).encode())
    assert mark is not None
    return mark


def flying(count: int, lane: Lane = "fresh", window: int = WINDOW) -> Flight:
    """Records 1 to ``count`` are sent at second 0."""
    flight = Flight(window)
    for seq in range(1, count + 1):
        flight.add(record(seq), lane, seq, 0.0)
    return flight


def test_a_watermark_covers_what_lies_wholly_in_it() -> None:
    mark = word(upto=10, have=[[12, 15], [20, 20], [30, 40]])
    covered = [(1, 10), (10, 10), (12, 15), (13, 14), (20, 20), (30, 40), (40, 40)]
    open_still = [(10, 12), (11, 11), (12, 16), (15, 20), (20, 21), (19, 20), (29, 30), (41, 41)]
    assert all(mark.covers(*seqs) for seqs in covered)
    assert not any(mark.covers(*seqs) for seqs in open_still)


def test_covers_agrees_with_a_set_of_numbers() -> None:
    chosen = random.Random(7)
    for _ in range(200):
        stored = {seq for seq in range(1, 40) if chosen.random() < 0.6}
        upto = next(seq for seq in range(1, 41) if seq not in stored) - 1
        have = [(s, s) for s in sorted(stored) if s > upto]
        joined: list[list[int]] = []
        for seq, _ in have:
            if joined and joined[-1][1] == seq - 1:
                joined[-1][1] = seq
            else:
                joined.append([seq, seq])
        mark = word(upto=upto, have=joined)
        for seq0 in range(1, 40):
            seq1 = min(39, seq0 + chosen.randrange(5))
            assert mark.covers(seq0, seq1) == (set(range(seq0, seq1 + 1)) <= stored)


@pytest.mark.parametrize(
    "have",
    ["x", {"a": 1}, [1], [[1]], [[1, 2, 3]], [[2, 1]], [["1", 2]], [[True, 2]], [[5, 6], [6, 7]], [[5, 6], [1, 2]]],
)
def test_strange_ranges_make_no_watermark(have: object) -> None:
    assert parse_watermark(json.dumps({"boot": "b1", "upto": 1, "have": have}).encode()) is None


@pytest.mark.parametrize(
    ("have", "lowest_held", "hole"),
    [
        ([], None, None),
        ([], 11, None),
        ([], 5, None),
        ([], 15, (11, 14)),
        ([[13, 20]], None, (11, 12)),
        ([[13, 20]], 11, None),
        ([[13, 20]], 12, (11, 11)),
        ([[13, 20]], 30, (11, 12)),
    ],
)
def test_a_hole_is_what_nobody_has(
    have: list[list[int]], lowest_held: int | None, hole: tuple[int, int] | None
) -> None:
    assert word(upto=10, have=have).hole(lowest_held) == hole


def test_what_the_hub_has_is_taken_out_whatever_its_order() -> None:
    flight = flying(10)
    freed = flight.acknowledged(KEY, word(upto=2, have=[[5, 6], [9, 9]]), 0.1)
    assert [one.seq0 for one in freed] == [1, 2, 5, 6, 9]
    assert (len(flight), flight.room) == (5, WINDOW - 5)
    assert flight.acknowledged(KEY, word(upto=1), 0.2) == [], "a lower word than before is no error"
    assert flight.acknowledged(("b1", "else"), word(upto=9), 0.2) == []
    assert [one.seq0 for one in flight.acknowledged(KEY, word(upto=10), 0.3)] == [3, 4, 7, 8, 10]
    assert len(flight) == 0


def test_only_what_was_overtaken_for_long_enough_is_lost() -> None:
    flight = flying(6)
    flight.acknowledged(KEY, word(upto=1, have=[[4, 4]]), 1.0)
    assert flight.lost(1.0 + REORDER_S - 0.01) == []
    flight.acknowledged(KEY, word(upto=1, have=[[3, 4]]), 1.5)
    assert [sent.record.seq0 for sent in flight.lost(1.0 + REORDER_S)] == [2], "5 and 6 were sent later, 3 has come"


def test_what_is_sent_again_is_waited_for_longer_and_longer() -> None:
    flight = flying(2)
    flight.acknowledged(KEY, word(upto=0, have=[[2, 2]]), 0.0)
    (sent,) = flight.lost(REORDER_S)
    flight.repeat(sent, 3, REORDER_S)
    assert flight.lost(100.0) == [], "nothing that was sent later has come yet"
    flight.add(record(4), "fresh", 4, REORDER_S)
    flight.acknowledged(KEY, word(upto=0, have=[[2, 2], [4, 4]]), 2.0)
    assert flight.lost(2.0 + 2 * REORDER_S - 0.01) == []
    assert flight.lost(2.0 + 2 * REORDER_S) == [sent]


def test_what_is_sent_again_for_days_is_no_overflow() -> None:
    flight = flying(2)
    flight.acknowledged(KEY, word(upto=0, have=[[2, 2]]), 0.0)
    (sent,) = flight.lost(REORDER_S)
    sent.tries = 5000
    assert flight.lost(REORDER_LONGEST_S - 0.01) == [] and flight.lost(REORDER_LONGEST_S) == [sent]


def test_a_round_that_was_lost_halves_the_backlog_once() -> None:
    flight = flying(8, "backlog")
    for seq in range(100, 150):
        flight.add(record(seq), "backlog", seq, 0.0)
        flight.acknowledged(KEY, word(upto=0, have=[[seq, seq]]), 0.0)
    size = flight.backlog_window.size
    for sent in flight.lost(REORDER_S):
        flight.repeat(sent, 1000 + sent.order, REORDER_S)
    assert flight.backlog_window.size == size // 2


def test_a_repeated_record_is_overtaken_by_what_was_sent_after_it_only() -> None:
    flight = flying(3)
    flight.acknowledged(KEY, word(upto=0, have=[[2, 2]]), 0.0)
    (sent,) = flight.lost(REORDER_S)
    flight.repeat(sent, 4, REORDER_S)
    flight.acknowledged(KEY, word(upto=0, have=[[2, 3]]), REORDER_S + 0.1)
    assert flight.lost(1000.0) == []


def test_the_last_of_a_line_is_overtaken_by_other_lines_with_more_patience() -> None:
    flight = flying(2)
    flight.add(record(1, stream="imu"), "fresh", 3, 0.0)
    assert flight.acknowledged(("b1", "imu"), word(upto=1), 1.0)
    assert not flight.lost(1.0 + STALL_FIRST_S)
    assert [sent.record.seq0 for sent in flight.lost(1.0 + STALL_FIRST_S + REORDER_S)] == [1]
    assert flight.acknowledged(KEY, word(upto=0, have=[[2, 2]]), 1.5)
    assert [sent.record.seq0 for sent in flight.lost(1.5 + REORDER_S)] == [1], "its own line says it sooner"


def test_the_backlog_grows_while_it_is_quick_and_is_halved_once_a_round_when_slow() -> None:
    flight = flying(4, "backlog")
    assert (flight.backlog_window.size, flight.backlog_room) == (BACKLOG_FIRST, 0)
    flight.acknowledged(KEY, word(upto=4), QUICK_S / 2)
    assert flight.backlog_room == 8
    for seq in range(5, 13):
        flight.add(record(seq), "backlog", seq, 10.0)
    flight.acknowledged(KEY, word(upto=8), 10.0 + SLOW_S + 0.1)
    assert flight.backlog_window.size == 4, "four slow ones of one round halve it once"
    flight.acknowledged(KEY, word(upto=12), 10.0 + SLOW_S + 0.2)
    assert flight.backlog_window.size == 4
    flight.add(record(13), "backlog", 13, 11.0)
    flight.acknowledged(KEY, word(upto=13), 11.0 + (QUICK_S + SLOW_S) / 2)
    assert flight.backlog_window.size == 5, "answers to so few may have been gathered"
    flight.add(record(14), "backlog", 14, 12.0)
    flight.acknowledged(KEY, word(upto=14), 12.0 + (QUICK_S + SLOW_S) / 2)
    assert flight.backlog_window.size == 5, "between quick and slow it stays"


def test_a_backlog_of_four_and_a_half_is_judged_as_the_four_that_it_sends() -> None:
    """Their answers are gathered: by the measure of many they would all be slow, and it would never grow again."""
    flight = Flight()
    window = flight.backlog_window
    seq = 0
    while window.size < 37:
        seq += 1
        flight.add(record(seq), "backlog", seq, 0.0)
        flight.acknowledged(KEY, word(upto=seq), 0.0)
    for at in (1.0, 2.0, 3.0):
        window.cut(at)
    for at in range(4, 8):
        seq += 1
        flight.add(record(seq), "backlog", seq, float(at))
        flight.acknowledged(KEY, word(upto=seq), at + (QUICK_S + GATHERED_S) / 2)
    assert window.size > BACKLOG_FIRST


def test_a_long_way_to_the_broker_is_not_a_slow_hub() -> None:
    """Over a satellite every answer comes after 0.6 s: the backlog once stayed at a few batches for each of these."""
    way_s, seq, now_s = 0.6, 0, 0.0
    flight = Flight()
    window = flight.backlog_window
    while window.size < 20 and seq < 200:
        seq, now_s = seq + 1, now_s + 1.0
        flight.add(record(seq), "backlog", seq, now_s)
        window.receipted(way_s + GATHER_S / 2, FEW)
        window.receipted(way_s, FEW + 1 if seq > 3 else FEW)
        flight.acknowledged(KEY, word(upto=seq), now_s + way_s + 0.03)
    assert window.size == 20
    flight.add(record(seq + 1), "backlog", seq + 1, now_s)
    window.receipted(way_s + 5.0, FEW + 1)
    flight.acknowledged(KEY, word(upto=seq + 1), now_s + way_s + SLOW_S + 0.1)
    assert window.size == 10, "a busy hub is one, however far away"


def test_the_backlog_leaves_room_for_what_is_fresh_and_never_stops() -> None:
    flight = Flight()
    for seq in range(1, 300):
        flight.add(record(seq), "backlog", seq, 0.0)
        flight.acknowledged(KEY, word(upto=seq), 0.0)
    assert flight.backlog_window.size == WINDOW - BACKLOG_SPARED
    for at in range(1, 20):
        flight.backlog_window.cut(float(at))
    assert flight.backlog_window.size == 1
    assert Flight(window=1).backlog_room == 1


def test_loss_halves_the_backlog_and_repeats_say_nothing_of_the_time() -> None:
    flight = flying(2, "backlog")
    flight.acknowledged(KEY, word(upto=0, have=[[2, 2]]), 0.0)
    size = flight.backlog_window.size
    (sent,) = flight.lost(REORDER_S)
    flight.repeat(sent, 3, REORDER_S)
    assert flight.backlog_window.size == size // 2
    flight.acknowledged(KEY, word(upto=2), REORDER_S + QUICK_S / 2)
    assert (flight.backlog_window.size, flight.backlog) == (size // 2, 0)


def test_what_is_handed_out_a_second_time_is_counted_once() -> None:
    flight = flying(3, "backlog")
    flight.add(record(2), "fresh", 4, 1.0)
    assert (len(flight), flight.backlog) == (3, 2)
    assert [one.seq0 for one in flight.acknowledged(KEY, word(upto=3), 1.1)] == [1, 3, 2]
    assert (len(flight), flight.backlog) == (0, 0)


def test_the_counts_stay_right_through_everything() -> None:
    chosen = random.Random(3)
    flight, order = Flight(), 0
    inside: dict[int, Lane] = {}
    for step in range(3000):
        action = chosen.randrange(6)
        if action <= 2:
            order += 1
            lane: Lane = chosen.choice(("fresh", "backlog"))
            flight.add(record(order), lane, order, float(step))
            inside[order] = lane
        elif action == 3 and inside:
            seq = chosen.choice(list(inside))
            assert flight.remove(record(seq)) is not None
            del inside[seq]
            assert flight.remove(record(seq)) is None
        elif action == 4 and inside:
            low = chosen.choice(list(inside))
            freed = flight.acknowledged(KEY, word(upto=0, have=[[low, low + 5]]), float(step))
            assert {one.seq0 for one in freed} == {seq for seq in inside if low <= seq <= low + 5}
            inside = {seq: lane for seq, lane in inside.items() if not low <= seq <= low + 5}
        elif action == 5:
            for sent in flight.lost(float(step)):
                order += 1
                flight.repeat(sent, order, float(step))
        assert (len(flight), flight.backlog) == (len(inside), sum(lane == "backlog" for lane in inside.values()))
    assert {one.seq0 for one in flight.take(KEY)} == set(inside)
    assert (len(flight), flight.backlog) == (0, 0)


def test_a_stall_waits_longer_each_time_until_something_comes() -> None:
    stall, now_s = Stall(1.0), 0.0
    stall.progress(now_s)
    waits = []
    for _ in range(12):
        begun_s = now_s
        while not stall.is_due(now_s):
            now_s += 0.1
        waits.append(now_s - begun_s)
        stall.repeated(now_s)
    assert 0.8 <= waits[0] <= 1.3 and waits[1] > waits[0] and max(waits) <= STALL_LONGEST_S * 1.2 + 0.2
    assert min(waits[-2:]) >= STALL_LONGEST_S * 0.8
    stall.progress(now_s)
    assert stall.is_due(now_s + 1.3)


def test_only_a_lasting_hole_is_closed_and_at_most_once_a_second() -> None:
    holes = Holes()
    holes.heard(KEY, word(upto=5), complete=False, now_s=0.0)
    assert holes.due(HOLE_S - 0.01) == []
    holes.heard(KEY, word(upto=9), complete=False, now_s=0.5)
    assert holes.due(HOLE_S) == [], "the watermark has moved"
    holes.heard(KEY, word(upto=9, have=[[20, 20]]), complete=False, now_s=1.0)
    assert holes.due(0.5 + HOLE_S) == [KEY]
    assert holes.close(KEY, 15, 2.0) == (10, 14)
    assert holes.due(2.0 + HOLE_S - 0.01) == []
    assert holes.due(2.0 + HOLE_S) == [KEY]
    holes.heard(KEY, word(upto=14), complete=True, now_s=3.0)
    assert holes.due(100.0) == []


def test_a_gap_record_that_changes_nothing_is_sent_less_and_less_often() -> None:
    """A hub that is away while the broker keeps an old watermark once got one a second and stream."""
    holes, now_s, waits = Holes(), 0.0, []
    holes.heard(KEY, word(upto=5), complete=False, now_s=0.0)
    assert not holes.is_told(KEY)
    for _ in range(12):
        begun_s = now_s
        while not holes.due(now_s):
            now_s += 0.25
        waits.append(now_s - begun_s)
        assert holes.close(KEY, 15, now_s) == (6, 14)
        assert holes.is_told(KEY)
    assert waits[:5] == [HOLE_S, HOLE_S, 2 * HOLE_S, 4 * HOLE_S, 8 * HOLE_S] and waits[-1] == LONGEST_S
    holes.heard(KEY, word(upto=6), complete=False, now_s=now_s)
    assert not holes.is_told(KEY)
    assert holes.due(now_s + HOLE_S) == [KEY]


def test_a_watermark_that_was_overtaken_says_nothing() -> None:
    """Hubs side by side: the one that stored first may answer last."""
    holes = Holes()
    holes.heard(KEY, word(upto=20), complete=True, now_s=0.0)
    holes.heard(KEY, word(upto=10, have=[[15, 20]]), complete=False, late=True, now_s=0.1)
    holes.heard(KEY, word(upto=11), complete=False, late=True, now_s=HOLE_S)
    assert holes.is_stored(record(20)) and holes.due(100.0) == []
    holes.heard(KEY, word(upto=21), complete=True, late=True, now_s=HOLE_S)
    holes.heard(KEY, word(upto=10), complete=False, late=True, now_s=HOLE_S + 1.0)
    assert holes.is_stored(record(21)), "it is late again, not still"


@pytest.mark.parametrize(
    ("mark", "late", "after_s"),
    [
        (word(upto=10), True, HOLE_S),
        (word(upto=10, have=[[21, 21]]), True, 0.0),
        (word(upto=10), False, 0.0),
    ],
)
def test_a_hub_that_was_restored_from_a_backup_is_believed(mark: Watermark, late: bool, after_s: float) -> None:
    """It says so again and again, tells of something new, or the broker kept it."""
    holes = Holes()
    holes.heard(KEY, word(upto=20), complete=True, now_s=0.0)
    holes.heard(KEY, mark, complete=False, late=late, now_s=1.0)
    holes.heard(KEY, mark, complete=False, late=late, now_s=1.0 + after_s)
    assert not holes.is_stored(record(20))
    assert holes.close(KEY, 22, 3.0) == (11, mark.have[0][0] - 1 if mark.have else 21)


def test_what_the_device_still_has_is_no_hole() -> None:
    holes = Holes()
    holes.heard(KEY, word(upto=5, have=[[10, 20]]), complete=False, now_s=0.0)
    assert holes.close(KEY, 6, HOLE_S) is None
    assert holes.due(100.0) == []


def test_words_about_any_number_of_boots_are_not_all_kept() -> None:
    holes = Holes()
    for number in range(MAX_MARKS + 10):
        holes.heard((f"b{number}", "kw"), word(upto=1), complete=True, now_s=0.0)
    known = [
        number
        for number in range(MAX_MARKS + 10)
        if holes.is_stored(Record(1, f"b{number}", *record(1).key[1:], 1, 1, 1, False, 0, 0, b""))
    ]
    assert len(known) == MAX_MARKS
