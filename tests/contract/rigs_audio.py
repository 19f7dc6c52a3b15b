"""Rigs of the sound sources."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from drivers.audio.alsa import Alsa, AlsaConfig
from drivers.audio.file import FileAudio, FileConfig
from drivers.base import Misconfigured
from tests.contract.rig import MakeRig, Rig
from tests.drivers.alsa_devices import use_file_device


@contextmanager
def audio_file(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    path = folder / "sound.wav"
    soundfile.write(path, np.random.default_rng(0).integers(-9999, 9999, 8000).astype(np.int16), 8000)
    yield Rig(
        driver=FileAudio("dut", FileConfig(path=path, loop=True)),
        missing=FileAudio("dut", FileConfig(path=folder / "absent.wav")),
        missing_raises=Misconfigured,
    )


@contextmanager
def audio_alsa(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    device = use_file_device(folder, monkeypatch)
    yield Rig(
        driver=Alsa("dut", AlsaConfig(device=device)),
        missing=Alsa("dut", AlsaConfig(device="hw:CARD=Absent,DEV=0")),
    )


RIGS: dict[str, MakeRig] = {
    "audio.file": audio_file,
    "audio.alsa": audio_alsa,
}
