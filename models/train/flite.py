"""Words spoken by flite: few voices, but made of recordings of people, which espeak-ng's are not. For training only."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.speech import SPEAK_TIMEOUT_S, SpeechUnavailable, read_wav, resample

VOICES = {"kal16": 105.0, "awb": 120.0, "rms": 95.0, "slt": 180.0}
"""Of Debian's package: an American, a Scot, an American, an American woman; and their mean pitch in Hz."""
PITCH_RANGE = (0.75, 1.35)
STRETCH_RANGE = (0.7, 1.5)


def speak(word: str, voice: str, rate_hz: int, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """``word`` as mono samples at ``rate_hz``, at a random pace and pitch. Raises SpeechUnavailable."""
    binary = shutil.which("flite")
    if binary is None:
        raise SpeechUnavailable("flite is not installed; install the package of that name (apt install flite)")
    stretch, pitch = (np.exp(rng.uniform(*np.log(limits))) for limits in (STRETCH_RANGE, PITCH_RANGE))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "word.wav"
        command = [binary, "-voice", voice, "-t", word, "-o", str(out)]
        command += ["--setf", f"duration_stretch={stretch:.3f}"]
        command += ["--setf", f"int_f0_target_mean={VOICES[voice] * pitch:.1f}"]
        try:
            subprocess.run(command, capture_output=True, timeout=SPEAK_TIMEOUT_S, check=True)
            blob = out.read_bytes()
        except (subprocess.SubprocessError, OSError) as error:
            raise SpeechUnavailable(f"flite cannot speak {word!r} with voice {voice!r}: {error}") from error
    return resample(*read_wav(blob, f"flite's voice {voice}"), rate_hz)
