"""Which numbers are there: the same as a set would say, whatever comes in whatever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.hub.ranges import MAX_RANGES, Coverage, Range, ScatteredError

SPANS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), max_size=40)


@given(SPANS)
def test_it_knows_what_a_set_knows(spans: list[tuple[int, int]]) -> None:
    coverage, known = Coverage(), set[int]()
    for first, more in spans:
        wanted = set(range(first, first + more + 1))
        parts = coverage.add(first, first + more)
        assert numbers(parts) == wanted - known
        assert parts == sorted(parts)
        known |= wanted
        assert numbers(coverage.ahead) | set(range(1, coverage.upto + 1)) == known
        assert coverage.beyond() == len([n for n in known if n > coverage.upto])
        assert coverage.highest == max(known)
        edges = [coverage.upto, *(edge for one in coverage.ahead for edge in one)]
        assert all(low + 1 < high for low, high in zip(edges[::2], edges[1::2], strict=False)), "ranges that touch"


@given(SPANS, st.randoms(use_true_random=False))
def test_the_order_makes_no_difference(spans: list[tuple[int, int]], random: object) -> None:
    mixed = list(spans)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, other = Coverage(), Coverage()
    for first, more in spans:
        one.add(first, first + more)
    for first, more in mixed:
        other.add(first, first + more)
    assert (one.upto, one.ahead) == (other.upto, other.ahead)


def test_too_many_ranges_are_refused_and_change_nothing() -> None:
    coverage = Coverage()
    for number in range(3, 3 + 2 * MAX_RANGES, 2):
        coverage.add(number, number)
    highest = coverage.highest
    with pytest.raises(ScatteredError, match=f"more than {MAX_RANGES} ranges beyond 0"):
        coverage.add(highest + 2, highest + 9)
    assert (coverage.upto, len(coverage.ahead), coverage.highest) == (0, MAX_RANGES, highest)
    assert coverage.add(4, 4) == [(4, 4)], "what closes a hole makes no range"
    assert coverage.add(1, 2) == [(1, 2)], "what moves the watermark makes none"
    assert (coverage.upto, coverage.ahead[0]) == (5, (7, 7))
    assert coverage.add(highest + 2, highest + 9) == [(highest + 2, highest + 9)]


def numbers(spans: list[Range]) -> set[int]:
    return {number for first, last in spans for number in range(first, last + 1)}
