"""Voices made for training: between two speakers, and with foreign accents."""

import shutil
from itertools import pairwise

import numpy as np
import pytest

from models import speech
from models.train import accents, augment
from models.train.between import Levels, _paths, between

STEPS, BANDS = 60, 12
RANGE_DB = -50.0
LONGEST_S = 0.605


def word(rng: np.random.Generator, first: int) -> Levels:
    """Ten sounds of three steps each, from step ``first`` on, in silence; the loudest is at 0 dB."""
    levels = np.full((STEPS, BANDS), RANGE_DB, np.float32)
    sounds = rng.uniform(-40, -1, (10, BANDS))
    sounds.flat[sounds.argmax()] = 0
    levels[first : first + 30] = np.repeat(sounds, 3, axis=0)
    return levels


def begins(levels: Levels) -> int:
    return int(np.flatnonzero(levels.max(axis=1) > RANGE_DB + 1)[0])


def test_between_a_word_and_itself_is_the_word() -> None:
    rng = np.random.default_rng(1)
    words = np.stack([word(rng, first) for first in (3, 9, 20)])
    np.testing.assert_allclose(between(words, words, RANGE_DB, rng), words, atol=1e-3)


def test_between_a_word_and_the_same_later_is_the_word_in_between() -> None:
    rng = np.random.default_rng(2)
    early = np.repeat(word(rng, 5)[None], 40, axis=0)
    late = np.roll(early, 12, axis=1)
    made = between(early, late, RANGE_DB, rng)
    first = np.array([begins(one) for one in made])
    assert first.min() >= 4
    assert first.max() <= 18
    assert len(set(first.tolist())) > 5
    sounds = early[0, 5:35:3]
    for one in made:  # the same sounds in the same order, some of them shorter or left out
        spoken = one[one.max(axis=1) > RANGE_DB + 1]
        away = np.abs(spoken[:, None] - sounds).max(axis=2)
        assert away.min(axis=1).max() < 1e-3
        assert (np.diff(away.argmin(axis=1)) >= 0).all()
        assert len(set(away.argmin(axis=1).tolist())) > 7


def test_levels_go_from_one_speakers_to_the_others_and_little_beyond() -> None:
    rng = np.random.default_rng(3)
    one, other = (np.full((200, STEPS, BANDS), level_db, np.float32) for level_db in (-30.0, -20.0))
    one[:, :, 0] = other[:, :, 0] = 0  # the loudest of both
    made = between(one, other, RANGE_DB, rng)[:, :, 1:]
    assert -32.6 < made.min() < -30.5
    assert -19.5 < made.max() < -17.4
    assert made.mean(axis=(1, 2)).std() > 2
    along, over_bands = np.diff(made[:, [0, -1]].mean(axis=2)), np.diff(made[:, :, [0, -1]].mean(axis=1))
    assert along.std() > 2
    assert over_bands.std() > 2


def test_the_way_between_two_words_is_the_cheapest() -> None:
    rng = np.random.default_rng(4)
    distance = rng.uniform(1, 9, (7, 7, 5)).astype(np.float32)
    at_first, at_second, length = _paths(distance)
    for word in range(5):
        way = list(zip(at_first[word, : length[word]], at_second[word, : length[word]], strict=True))
        assert way[0] == (0, 0)
        assert way[-1] == (6, 6)
        moves = {(int(b[0] - a[0]), int(b[1] - a[1])) for a, b in pairwise(way)}
        assert moves <= {(1, 1), (1, 0), (0, 1)}
        taken = sum(float(distance[i, j, word]) for i, j in way)
        assert taken == pytest.approx(cheapest(distance[:, :, word]), abs=0.2)


def cheapest(distance: Levels) -> float:
    cost = np.full((len(distance) + 1, len(distance) + 1), np.inf)
    cost[0, 0] = 0
    for i, j in np.ndindex(distance.shape):
        cost[i + 1, j + 1] = distance[i, j] + min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
    return float(cost[-1, -1])


def test_half_of_an_epoch_is_mixed_with_donors_of_the_same_label() -> None:
    spoken_digits = pytest.importorskip("models.train.spoken_digits", reason="torch (extra 'train') is not installed")
    rng = np.random.default_rng(5)
    shape = (40, 79, 20)
    mine = spoken_digits.Spectra(np.full(shape, -10, np.float32), rng.integers(0, 10, 40))
    mine.levels_db[:, :, 0] = 0
    donors = spoken_digits.Spectra(np.full(shape, -20, np.float32), np.arange(40) % 10)
    donors.levels_db[:, :, 0] = -donors.labels[:, None]  # of each label another difference
    donors.levels_db[donors.labels == 3] = mine.levels_db[0]
    mixed = mine.mixed(donors, rng)
    changed = (np.abs(mixed.levels_db - mine.levels_db) > 1e-3).any(axis=(1, 2))
    assert (mixed.labels == mine.labels).all()
    assert 8 <= changed.sum() <= 32
    assert not changed[mine.labels == 3].any(), "mixed with what is equal"
    assert (mine.levels_db[:, :, 1:] == -10).all()


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("language", sorted(accents.WORDS))
def test_every_language_says_ten_short_words(language: str) -> None:
    for digit in range(10):
        for spelling in accents.spellings(language, digit):  # one that is read letter by letter takes longer
            sound = np.abs(speech.speak(spelling, language, 8000).astype(float))
            loud = np.flatnonzero(sound > sound.max() / 50)
            assert 0.1 < (loud[-1] - loud[0]) / 8000 < LONGEST_S, spelling
    assert len(accents.WORDS[language].split("|")) == 10


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_only_the_given_variants_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    silent = np.zeros(1, np.int16)
    monkeypatch.setattr(speech, "speak", lambda _text, voice, *_, **__: heard.append(voice) or silent)
    rng = np.random.default_rng(6)
    for _ in range(50):
        accents.speak("fr", 3, 8000, ["", "m3"], rng)
    assert set(heard) == {"fr", "fr+m3"}


def test_a_coarse_converter_has_few_values_near_the_true_ones() -> None:
    wave = np.sin(np.arange(4000.0)) * 9000 + np.random.default_rng(1).normal(0, 500, 4000)
    made = augment.coarse(wave, 20.5)
    assert 30 < len(np.unique(made)) <= 2 * 20 + 1 + 1
    step = np.abs(wave).max() / 20.5
    assert np.abs(made - wave).max() <= step / 2 + 1e-9
    assert not augment.coarse(np.zeros(10), 16).any(), "silence stays"
