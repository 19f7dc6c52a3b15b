"""What the demo's event camera sees: the digit that is said, when it is said."""

import numpy as np
import pytest

from hil.demo import sights
from hil.demo.stimuli import Span, Stimulus
from models.datasets.load import find
from models.datasets.nmnist import SIDE

WORDS = Stimulus("made", np.zeros((24_000, 1), np.int16), 8000.0, (Span(4000, 7000, "7"), Span(16_000, 19_000, "1")))


@pytest.fixture
def no_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sights, "find", lambda name: None)


def in_words(sight: sights.Sight) -> list[np.ndarray]:
    """The events from the beginning of each word on, for 0.4 s."""
    return [(sight.t_us >= s.start * 125) & (sight.t_us < s.start * 125 + 400_000) for s in WORDS.truth]


def test_each_word_is_shown_while_it_is_said(no_recordings: None) -> None:
    sight = sights.shown(WORDS, seed=3)
    assert sight.source.startswith("made: digits")
    assert np.all(np.diff(sight.t_us) >= 0)
    assert sight.t_us[-1] == 3_000_000 - 1, "the loop is as long as the words'"
    first, second = in_words(sight)
    assert first.sum() + second.sum() == len(sight.t_us) - 1
    assert 1000 < min(first.sum(), second.sum()) < max(first.sum(), second.sum()) < 10_000
    assert max(sight.x.max(), sight.y.max()) < SIDE
    assert set(sight.on) == {0, 1}


def test_digits_look_different() -> None:
    pictures = []
    for digit in range(10):
        events = sights.made_digit(digit, np.random.default_rng(1))
        pictures.append(np.histogram2d(events["y"], events["x"], bins=SIDE, range=[[0, SIDE]] * 2)[0].ravel())
    alike = np.corrcoef(pictures) - np.eye(10)
    assert alike.max() < 0.98
    again = sights.made_digit(4, np.random.default_rng(1))
    assert np.array_equal(again, sights.made_digit(4, np.random.default_rng(1)))


@pytest.mark.skipif(find("event_nmnist") is None, reason="no recordings: event_nmnist is not on this machine")
def test_recorded_digits() -> None:
    sight = sights.shown(WORDS, seed=3)
    assert sight.source.startswith("recordings (")
    assert all(part.sum() > 500 for part in in_words(sight))
