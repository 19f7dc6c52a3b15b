"""English digits as other languages' voices of espeak-ng say them: foreign accents, which its English ones have not."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models import speech

WORDS = {
    "fr": "zéro ziro|ouane|tou|sri tri fri zri|fôr faure|faïve faïf|sikse|sévène sevenne|eïte aite|naïne",
    "fr-be": "zéro ziro|ouane|tou|sri tri fri|fôr faure|faïve faïf|sikse|sévène|eïte aite|naïne",
    "de": "siro sirou|uann wann|tu tuh|fri tri sri|foar fohr|faif feif|sicks|sewwen ßewen|eht äit|nein",
    "el": "ζίρο|ουάν γουάν|του|θρι τρι|φορ φο|φάιβ φάιφ|σιξ|σέβεν|έιτ|νάιν",
    "es": "siro|uan|tu|sri tri|for|faif|sics|seven|eit|nain",
    "it": "ziro|uan|tu|tri fri sri|for|faiv|sics|seven|eit|nain",
    "nl": "ziero|wan|toe|srie trie frie|foor|faiv faif|siks|sevven|eet eejt|najn",
    "pl": "ziro|łan|tu|fri tri sri|for|fajw|siks|sewen|ejt|najn",
    "ru": "зиро|уан|ту|сри фри три|фор|файв|сикс|севен|эйт|найн",
    "pt": "zirou|uan|tu|tri fri çri|for|faiv|sics|séven|eit|nain",
    "sv": "siro|oann wan|tuu|tri sri|får|fajv|sicks|sevven|ejt|najn",
    "tr": "ziro|van uan|tu|tri sri|for|fayv|siks|seven|eyt|nayn",
    "hi": "ज़ीरो|वन|टू|थ्री|फोर|फाइव|सिक्स|सेवन|एट|नाइन",
    "fi": "siro|uan|tuu|trii|foor|faiv|siks|seven|eit|nain",
    "hu": "zíró|uán|tú|szrí trí|fór|fájv|sziksz|szeven|éjt|nájn",
}
"""By espeak-ng's language: zero to nine, each in one or more spellings, as its speakers would write what they say."""


def spellings(language: str, digit: int) -> list[str]:
    return WORDS[language].split("|")[digit].split()


def speak(
    language: str, digit: int, rate_hz: int, variants: Sequence[str], rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """A digit as mono samples at ``rate_hz`` by one of these variants at a random pace. Raises SpeechUnavailable."""
    spelling = str(rng.choice(spellings(language, digit)))
    variant = str(rng.choice(list(variants)))
    voice = f"{language}+{variant}" if variant else language
    speed_wpm, pitch = int(rng.integers(110, 230)), int(rng.integers(15, 90))
    return speech.speak(spelling, voice, rate_hz, speed_wpm=speed_wpm, pitch=pitch)
