"""Spoken words from espeak-ng, for training, demonstrations and live tests: known words in many made voices."""

import io
import shutil
import subprocess
import wave

import numpy as np
import numpy.typing as npt

from models.base import ModelError

SPEAK_TIMEOUT_S = 30.0
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
"""espeak-ng's English languages."""
VARIANTS = (
    *("", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5"),
    *("Andy", "Annie", "Alex", "Alicia", "Andrea", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky"),
    *("Lee", "Marco", "Mario", "Michael", "Mike", "Storm", "adam", "anika", "antonio", "aunty", "belinda", "benjamin"),
    *("boris", "caleb", "david", "ed", "edward", "grandma", "grandpa", "iven", "iven2", "john", "linda", "marcelo"),
    *("max", "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby"),
    *("steph", "steph2", "travis", "victor", "zac"),
)
"""espeak-ng's voice variants that sound like a person; "" is the plain voice."""


class SpeechUnavailable(ModelError):
    """espeak-ng is not installed, or cannot speak this."""


def voices() -> list[str]:
    """Every accent with every variant, as names for ``speak``, for example ``en-us+f3``. Always in the same order."""
    return [f"{accent}+{variant}" if variant else accent for variant in VARIANTS for accent in ACCENTS]


def speak(text: str, voice: str, rate_hz: int, *, speed_wpm: int = 160, pitch: int = 50) -> npt.NDArray[np.int16]:
    """``text`` as mono samples at ``rate_hz``; the same arguments and espeak-ng version give the same samples.

    ``speed_wpm`` is 80..450, ``pitch`` 0..99. Raises SpeechUnavailable.
    """
    binary = shutil.which("espeak-ng")
    if binary is None:
        raise SpeechUnavailable("espeak-ng is not installed; install the package of that name (apt install espeak-ng)")
    command = [binary, "-v", voice, "-s", str(speed_wpm), "-p", str(pitch), "--stdout", "--", text]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SPEAK_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SpeechUnavailable(f"espeak-ng did not finish {text!r} within {SPEAK_TIMEOUT_S:.0f} s") from error
    if done.returncode or not done.stdout:
        reason = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise SpeechUnavailable(f"espeak-ng cannot speak {text!r} with voice {voice!r}: {reason}")
    return resample(*read_wav(done.stdout, f"espeak-ng's voice {voice}"), rate_hz)


def read_wav(blob: bytes, whose: str) -> tuple[npt.NDArray[np.int16], int]:
    """Samples and rate. espeak-ng streams, so the length in its header is not to be believed. Raises
    SpeechUnavailable."""
    try:
        with wave.open(io.BytesIO(blob)) as reader:
            source_hz = reader.getframerate()
    except (wave.Error, EOFError) as error:
        raise SpeechUnavailable(f"no WAV came from {whose}: {error}") from error
    start = blob.find(b"data") + 8
    body = blob[start : start + (len(blob) - start) // 2 * 2]
    return np.frombuffer(body, "<i2").astype(np.int16), source_hz


def resample(samples: npt.NDArray[np.int16], source_hz: int, rate_hz: int) -> npt.NDArray[np.int16]:
    """Band-limited, by cutting or padding the spectrum; a word's ends are silent, so wrapping does no harm."""
    if source_hz == rate_hz or not len(samples):
        return samples
    count = round(len(samples) * rate_hz / source_hz)
    spectrum = np.fft.rfft(samples.astype(np.float64))
    wave_out = np.fft.irfft(spectrum[: count // 2 + 1], count) * (count / len(samples))
    return np.clip(np.rint(wave_out), -32768, 32767).astype(np.int16)
