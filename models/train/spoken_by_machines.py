"""Digits spoken by machines: training hears them beside recordings of few people."""

import numpy as np

from models import speech
from models.datasets.recording import Recording, audio_info
from models.train import accents, flite

RATE_HZ = 8000
INFO = audio_info(RATE_HZ)
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABELS = [str(digit) for digit in range(10)]
FLITE_TAKES = 25
"""Of each word in each of flite's voices: few voices, but made of people's."""
ACCENT_TAKES = {"fr": 28, "de": 28, "el": 28}
"""Of each word in each language, where not ``FEWER_TAKES``: more of the accents that the recordings' speakers have."""
FEWER_TAKES = 14
HELD_OUT_ACCENT = "en-gb-scotland"
HELD_OUT_VARIANTS = speech.VARIANTS[3::6]
"""Every sixth espeak-ng variant, and one accent, is kept for judging."""


def by_flite(rng: np.random.Generator) -> list[Recording]:
    """Digits by flite, at many speeds and pitches."""
    return [
        Recording(f"{word}-{voice}", LABELS[digit], voice, flite.speak(word, voice, RATE_HZ, rng)[:, None], INFO)
        for voice in flite.VOICES
        for digit, word in enumerate(WORDS)
        for _ in range(FLITE_TAKES)
    ]


def held_out(voice: str) -> bool:
    """It is kept for judging."""
    accent, _, variant = voice.partition("+")
    return variant in HELD_OUT_VARIANTS or accent == HELD_OUT_ACCENT


def by_espeak(rng: np.random.Generator) -> tuple[list[Recording], list[Recording]]:
    """Digits by espeak-ng, for training and for judging; no voice is in both."""
    train: list[Recording] = []
    judged: list[Recording] = []
    for voice in speech.voices():
        for digit, word in enumerate(WORDS):
            if rng.random() < 0.5:
                continue
            speed_wpm, pitch = int(rng.integers(110, 230)), int(rng.integers(15, 90))
            data = speech.speak(word, voice, RATE_HZ, speed_wpm=speed_wpm, pitch=pitch)[:, None]
            item = Recording(f"{word}-{voice}", LABELS[digit], voice, data, INFO)
            (judged if held_out(voice) else train).append(item)
    return train, judged


def by_accents(rng: np.random.Generator) -> list[Recording]:
    """Digits in foreign accents."""
    variants = [variant for variant in speech.VARIANTS if variant not in HELD_OUT_VARIANTS]
    return [
        Recording(f"{digit}-{language}", LABELS[digit], language, data[:, None], INFO)
        for language in accents.WORDS
        for digit in range(len(LABELS))
        for _ in range(ACCENT_TAKES.get(language, FEWER_TAKES))
        for data in [accents.speak(language, digit, RATE_HZ, variants, rng)]
    ]
