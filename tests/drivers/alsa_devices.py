"""A private ALSA configuration: a sound device that plays a file, without hardware and without a pace."""

from pathlib import Path

import numpy as np
import pytest

RATE_HZ = 16000


def sound() -> np.ndarray:
    return np.random.default_rng(0).integers(-30000, 30000, (RATE_HZ, 1)).astype(np.int16)


def use_file_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make ALSA see one device that repeats ``sound()``; return its name. Skips without the Python library."""
    pytest.importorskip("alsaaudio", reason="pyalsaaudio is not installed (pip install axond[alsa])")
    content = folder / "sound.raw"
    content.write_bytes(sound().tobytes())
    config = folder / "asound.conf"
    config.write_text(
        "pcm.nothing { type null }\n"
        f'pcm.recorded {{ type file slave.pcm nothing file "/dev/null" infile "{content}" format raw }}\n'
    )
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(config))
    return "recorded"
