"""Words that are no digits: who learns to tell these apart as well hears digits better in voices it does not know.

The network is trained with one more class for each of them, which the exported one has not (multi-task learning,
Caruana 1997). Their sounds also make room for a word that it is taught later.
"""

import numpy as np

from models import speech
from models.datasets.recording import Recording, audio_info
from models.train import flite

MADE = (
    *("apple", "banana", "orange", "lemon", "water", "coffee", "sugar", "bread", "butter", "cheese", "table"),
    *("chair", "window", "door", "house", "garden", "street", "river", "mountain", "forest", "bird", "dog", "cat"),
    *("horse", "sheep", "happy", "bed", "wow", "marvin", "sheila", "monday", "friday", "august", "winter", "summer"),
    *("red", "green", "blue", "yellow", "black", "white", "music", "paper", "pencil", "school", "doctor", "hammer"),
    *("engine", "motor", "valve", "open", "close", "begin", "cancel", "louder", "quiet", "morning", "evening"),
    *("people", "woman", "shoe", "zebra", "fish", "wish", "moon", "food", "cool", "goose", "juice", "keep", "meat"),
    *("leaf", "sleep", "mouse", "boy", "voice", "thumb", "teeth", "path"),
)
"""Nearly all sounds of English (not those within mother and measure), and none that is easily taken for a digit."""
BY_PEOPLE = ("alexa", "jarvis", "smart_mirror", "snowboy", "view_glass")
"""Of the recordings ``audio_wakewords``. Its "computer" is left out, to judge with what new words are learned."""
ESPEAK_TAKES = 28
FLITE_TAKES = 4
"""Of each word: in so many of espeak-ng's voices; in each of flite's."""


def by_machines(voices: list[str], rate_hz: int, rng: np.random.Generator) -> list[Recording]:
    """``MADE`` by espeak-ng in some of ``voices``, and by flite. Raises SpeechUnavailable."""
    info = audio_info(rate_hz)
    made: list[Recording] = []
    for word in MADE:
        for voice in rng.choice(voices, ESPEAK_TAKES, replace=False):
            speed_wpm, pitch = int(rng.integers(110, 230)), int(rng.integers(15, 90))
            data = speech.speak(word, str(voice), rate_hz, speed_wpm=speed_wpm, pitch=pitch)
            made.append(Recording(f"{word}-{voice}", word, str(voice), data[:, None], info))
        for voice in flite.VOICES:
            for _ in range(FLITE_TAKES):
                data = flite.speak(word, voice, rate_hz, rng)
                made.append(Recording(f"{word}-{voice}", word, voice, data[:, None], info))
    return made
