"""The demo's judge: results against the truth of a looped stimulus."""

import numpy as np

from hil.demo.score import Result, Truth, score_motion, score_words
from hil.demo.stimuli import Span, Stimulus

S = 1_000_000_000
START = 5 * S
WORDS = Stimulus("made", np.zeros((40, 1), np.int16), 10.0, (Span(5, 10, "one"), Span(20, 25, "two")))
"""Four seconds at 10 Hz, played again and again: "one" at 0.5 s, "two" at 2.0 s."""


def word(at_s: float, label: str, length_s: float = 1.0) -> Result:
    return Result("digits", START + int(at_s * S), START + int((at_s + length_s) * S), label, 1.0)


def test_words_are_found_in_every_lap() -> None:
    truth = Truth(WORDS, START)
    assert truth.label(word(0.4, "?")) == "one"
    assert truth.label(word(1.9, "?")) == "two"
    assert truth.label(word(4.4, "?")) == "one"
    assert truth.label(word(4000 + 1.9, "?")) == "two"
    assert truth.label(word(3.0, "?")) is None
    assert [number for number, _, _ in truth.spans(START, START + 8 * S)] == [0, 1, 2, 3]


def test_each_word_counts_once_and_missed_words_count() -> None:
    results = [word(0.4, "one"), word(0.9, "two", 0.2), word(3.0, "one", 0.5), word(4.4, "seven")]
    score = score_words(results, Truth(WORDS, START), START, START + 8 * S)
    assert (score.results, score.correct, score.missed, score.spurious) == (4, 1, 2, 1)
    assert score.scored == 4, "one, two, one, two were played"
    assert score.accuracy == 0.25


def test_words_that_may_still_be_on_their_way_do_not_count() -> None:
    score = score_words([word(0.4, "one")], Truth(WORDS, START), START, START + int(3.1 * S))
    assert (score.scored, score.missed) == (1, 0)


def test_motion_counts_where_one_label_fills_the_window() -> None:
    motion = Stimulus("made", np.zeros((100, 6), np.int16), 50.0, (Span(0, 50, "walking"), Span(50, 100, "sitting")))
    truth = Truth(motion, START)
    results = [
        Result("activity", START + int(a * S), START + int(b * S), label, 1.0)
        for a, b, label in ((0, 0.9, "walking"), (0.5, 1.5, "walking"), (1.1, 1.9, "walking"), (2.1, 2.9, "walking"))
    ]
    score = score_motion(results, truth)
    assert (score.results, score.scored, score.correct, score.ambiguous) == (4, 3, 2, 1)
