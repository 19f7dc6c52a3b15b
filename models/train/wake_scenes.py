"""Made scenes for a word detector: one word, or none, among other speech, sounds and noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import speech
from models.train import augment

RATE_HZ = 16000
SCENE = 3 * RATE_HZ
LATEST_END_S = 2.45
"""A word ends early enough for the readout to follow."""
FRAME_S = 0.01
CONSONANTS = tuple("bcdfgjklmnprstvwxz")
VOWELS = tuple("aeiou")
LONGEST_WORD_S = 1.9
WORD, BABBLE = 0.58, 0.26
"""Parts of all scenes with a word, and with speech and sounds that are none; the rest is noise alone."""
OTHER_WORDS = (
    *("commuter", "compute", "computing", "commute", "pewter", "Alexander", "a Lexus", "election", "Alaska", "annex"),
    *("elect", "jar", "jarring", "harvest", "service", "java", "jasmine", "carve it", "smart", "mirror", "smart phone"),
    *("start meter", "smarter", "error", "snow", "boy", "snowball", "snow day", "cowboy", "so long", "toy", "view"),
    *("glass", "few classes", "review", "viewfinder", "class", "grass", "you guess", "hello", "okay", "stop", "please"),
    *("turn on the light", "what time is it", "good morning", "thank you", "music", "weather", "yesterday", "kitchen"),
    *("window", "water", "seven", "eleven", "happy", "London", "table", "paper", "orange", "elephant", "running"),
    *("telephone", "never", "tomorrow", "remember the milk", "how are you", "open the door", "close", "left", "right"),
    *("yes", "no", "hey you", "listen", "banana", "python", "river", "television", "question", "market", "garden"),
    *("doctor", "party", "alarm", "lexicon", "lecture", "extra", "jealous", "jobs", "journal", "charlie", "novel"),
    *("noise", "voice", "enjoy", "destroy", "beauty", "blue", "glue", "view point", "last pass"),
)

Wave = augment.Wave
Word = tuple[Wave, int]
"""A cut-out word and its class."""


@dataclass(frozen=True, slots=True)
class Pools:
    """What scenes are made of."""

    human: list[Word]
    made: list[Word]
    """Words by espeak-ng."""
    others: list[Wave]
    """Other speech."""
    noises: list[Wave]


@dataclass(frozen=True, slots=True)
class Scene:
    """``samples`` (SCENE,) int16 and the row of labels of ``models.train.spotting``, its times in samples."""

    samples: npt.NDArray[np.int16]
    label: int
    begin: int
    first: int
    last: int


def cut_out(samples: npt.NDArray[np.generic]) -> Wave:
    """The word of a clip, found by energy: the loudest stretch without a long pause, with little around it."""
    wave = samples.astype(np.float64)
    frame = round(FRAME_S * RATE_HZ)
    change = np.diff(wave)
    count = len(change) // frame
    level_db = 10 * np.log10((change[: count * frame].reshape(count, frame) ** 2).mean(axis=1) + 1)
    level_db = np.convolve(level_db, np.ones(3) / 3, "same")
    floor_db, peak_db = np.percentile(level_db, 15), np.percentile(level_db, 99)
    least_db = max(floor_db + 8, peak_db - 25) if peak_db - floor_db > 14 else (floor_db + peak_db) / 2
    loud = np.flatnonzero(level_db > least_db)
    if not len(loud):
        return wave - wave.mean()
    stretches = np.split(loud, np.flatnonzero(np.diff(loud) > 25) + 1)
    word = max(stretches, key=lambda at: np.sqrt((10 ** (level_db[at] / 10)).sum()) * min(len(at), 60))
    first, end = word[0] * frame - RATE_HZ // 20, (word[-1] + 1) * frame + RATE_HZ * 3 // 40
    return wave[max(0, first) : end] - wave.mean()


@dataclass(frozen=True, slots=True)
class Spoken:
    """How much espeak-ng is to say: each of the words so often, each of ``OTHER_WORDS``, and words without meaning."""

    per_word: int
    per_other: int
    made_up: int


def spoken(words: list[str], count: Spoken, rng: np.random.Generator) -> tuple[list[Word], list[Wave]]:
    """``words``, and other speech, in random voices, speeds and pitches. Raises SpeechUnavailable."""
    voices = speech.voices()

    def say(text: str, voice: str) -> Wave:
        speed_wpm, pitch = int(rng.integers(110, 220)), int(rng.integers(15, 90))
        return cut_out(speech.speak(text, voice, RATE_HZ, speed_wpm=speed_wpm, pitch=pitch))

    made = []
    for label, word in enumerate(words):
        made += [(say(word, voice), label) for voice in rng.choice(voices, count.per_word, replace=False).tolist()]
    others = [say(_made_up(rng), voice) for voice in rng.choice(voices, count.made_up, replace=False).tolist()]
    for word in OTHER_WORDS:
        others += [say(word, voice) for voice in rng.choice(voices, count.per_other, replace=False).tolist()]
    return made, others


def distort(wave: Wave, rng: np.random.Generator) -> tuple[Wave, int]:
    """Another speaker, pace, room and microphone; and where the sound itself ends and the room goes on."""
    if rng.random() < 0.8:
        wave = augment.resample(wave, np.exp(rng.uniform(np.log(0.8), np.log(1.25))))
    if rng.random() < 0.4 and len(wave) > RATE_HZ // 5:
        wave = augment.stretch(wave, np.exp(rng.uniform(np.log(0.75), np.log(1.3))), frame=512)
    end = len(wave)
    if rng.random() < 0.35:
        wave = augment.reverberate(wave, rng, RATE_HZ)
    if rng.random() < 0.7:
        wave = augment.equalise(wave, rng, rng.uniform(1, 5))
    return wave, end


def scene(pools: Pools, classes: int, rng: np.random.Generator) -> Scene:
    """A random one; class ``classes - 1`` is the background."""
    x = np.zeros(SCENE)
    label, begin, end, loud = classes - 1, 0, 0, 1.0
    kind = rng.random()
    snr_db = rng.uniform(-20, 20)
    if kind < WORD + BABBLE:
        snr_db = rng.uniform(0, 35) if rng.random() < 0.85 else 60.0
        if kind < WORD:
            label, begin, end, loud = _say(x, pools, rng)
        else:
            loud = _babble(x, pools, rng)
    x += _bed(pools.noises, rng) * loud * 10 ** (-snr_db / 20)
    x *= 32768 * 10 ** (rng.uniform(-34, 0) / 20) / max(1e-9, float(np.abs(x).max()))
    if rng.random() < 0.15:
        x *= 10 ** (rng.uniform(0, 10) / 20)
    if rng.random() < 0.5:
        x += rng.normal(0, rng.uniform(0.3, 8), SCENE)
    samples = np.clip(np.rint(x), -32768, 32767).astype(np.int16)
    told = begin + (end - begin) // 4
    return Scene(samples, label, told, end - round(0.06 * RATE_HZ), end + round(0.5 * RATE_HZ))


def sounds(pools: Pools, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """A scene of nothing but sounds one after another, each as loud as it likes."""
    pieces: list[Wave] = []
    while sum(map(len, pieces)) < SCENE:
        kind = rng.random()
        if kind < 0.35:
            piece = pools.noises[rng.integers(len(pools.noises))]
        else:
            piece = _sound(pools.noises, rng) if kind < 0.9 else _cry(rng)
        pieces.append(piece * 10 ** rng.uniform(1.5, 3.7) / _rms(piece))
    return np.clip(np.rint(np.concatenate(pieces)[:SCENE]), -32768, 32767).astype(np.int16)


def _say(x: Wave, pools: Pools, rng: np.random.Generator) -> tuple[int, int, int, float]:
    """Put a word into ``x``, often close behind something else; its class, begin, end and loudness."""
    words = pools.human if rng.random() < 0.65 else pools.made
    wave, label = words[rng.integers(len(words))]
    wave, tail = distort(wave, rng)
    wave = wave[: round(LONGEST_WORD_S * RATE_HZ)]
    tail = min(tail, len(wave))
    end = round(rng.uniform(max(1.0, tail / RATE_HZ + 0.05), LATEST_END_S) * RATE_HZ)
    begin = end - tail
    wave = wave[: SCENE - begin]
    x[begin : begin + len(wave)] += wave
    loud = _rms(wave[:tail])
    if begin > 0.45 * RATE_HZ and rng.random() < 0.4:
        before = _stray(pools, rng)[-(begin - int(rng.uniform(0, 0.3) * RATE_HZ)) :]
        at = max(0, begin - len(before) - int(rng.uniform(0, 0.3) * RATE_HZ))
        before = before[: begin - at]
        x[at : at + len(before)] += before * loud / _rms(before) * 10 ** (rng.uniform(-12, 12) / 20)
    return label, begin, end, loud


def _babble(x: Wave, pools: Pools, rng: np.random.Generator) -> float:
    """Fill ``x`` with speech and sounds that are none of the words; their loudness."""
    loud, at = 1000.0, 0
    while at < SCENE - RATE_HZ // 4:
        at += int(rng.uniform(0, 0.5) * RATE_HZ)
        wave = _stray(pools, rng)[: max(0, SCENE - at)]
        if len(wave) < RATE_HZ // 100:
            break
        x[at : at + len(wave)] += wave * loud / _rms(wave) * 10 ** (rng.uniform(-10, 3) / 20)
        at += len(wave)
    return loud


def _stray(pools: Pools, rng: np.random.Generator) -> Wave:
    """None of the words: a word backwards, half of one or its halves exchanged, other speech, or a sound."""
    kind = rng.random()
    if kind < 0.16:
        wave, _ = pools.human[rng.integers(len(pools.human))]
        middle = int(len(wave) * rng.uniform(0.35, 0.6))
        if kind < 0.06:
            wave = wave[::-1]
        elif kind < 0.12:
            wave = wave[:middle] if rng.random() < 0.5 else wave[middle:]
        else:
            wave = np.concatenate([wave[middle:], wave[:middle]])
    elif kind < 0.4:
        wave = pools.others[rng.integers(len(pools.others))]
    elif kind < 0.9:
        return _sound(pools.noises, rng)
    else:
        wave = _cry(rng)
    return distort(wave, rng)[0]


def _sound(noises: list[Wave], rng: np.random.Generator) -> Wave:
    """One that was never heard: another size, backwards, or two at once."""
    wave = noises[rng.integers(len(noises))]
    if rng.random() < 0.7:
        wave = augment.resample(wave, np.exp(rng.uniform(np.log(0.6), np.log(1.6))))
    if rng.random() < 0.3:
        wave = wave[::-1]
    if rng.random() < 0.3:
        other = noises[rng.integers(len(noises))]
        count = min(len(wave), len(other))
        wave = wave[:count] / _rms(wave) + other[:count] / _rms(other)
    return augment.equalise(wave, rng, rng.uniform(0, 6))


def _cry(rng: np.random.Generator) -> Wave:
    """Something between an animal, a child and a whistle: harmonics of a gliding pitch, swelling and fading."""
    count = int(rng.uniform(0.2, 1.2) * RATE_HZ)
    knots = np.linspace(0, count, 5)
    pitch_hz = np.interp(np.arange(count), knots, rng.uniform(100, 1000) * np.exp(rng.normal(0, 0.25, 5)))
    swell = np.interp(np.arange(count), knots, rng.uniform(0, 1, 5))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    harmonics = np.arange(1, 1 + int(rng.integers(1, 12)))
    weights = rng.uniform(0, 1, len(harmonics)) * harmonics ** -rng.uniform(0, 1.5)
    tone = (weights[:, None] * np.sin(harmonics[:, None] * phase) * (harmonics[:, None] * pitch_hz < 7800)).sum(axis=0)
    breath = augment.coloured_noise(count, rng) * rng.uniform(0, 0.5)
    return (tone / _rms(tone) + breath) * swell * 1000


def _made_up(rng: np.random.Generator) -> str:
    parts = rng.choice(CONSONANTS, 4), rng.choice(VOWELS, 4)
    return "".join(c + v for c, v in zip(*parts, strict=True))[: int(rng.integers(4, 9))]


def _bed(noises: list[Wave], rng: np.random.Generator) -> Wave:
    """Something of unit power to lie under a scene, or silence."""
    kind = rng.random()
    if kind > 0.9:
        return np.zeros(SCENE)
    if kind > 0.62:
        return augment.coloured_noise(SCENE, rng)
    pieces: list[Wave] = []
    piece = _sound(noises, rng)
    while sum(map(len, pieces)) < 2 * SCENE:
        if rng.random() < 0.5:
            piece = _sound(noises, rng)
        pieces.append(piece / max(30.0, _rms(piece)) * 10 ** (rng.normal(0, 5) / 20))
    x = np.concatenate(pieces)
    first = int(rng.integers(0, len(x) - SCENE + 1))
    x = x[first : first + SCENE]
    return x / max(1e-6, _rms(x))


def _rms(wave: Wave) -> float:
    return float(np.sqrt(np.mean(wave**2))) + 1e-9
