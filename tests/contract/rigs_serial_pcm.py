"""Rig of the microphone on a serial port."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from drivers.audio.serial_pcm import SerialPcm, SerialPcmConfig
from hil.emulators.serial_pcm import SerialPcmEmulator
from tests.contract.rig import MakeRig, Rig


@contextmanager
def serial_pcm(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    samples = (8000 * np.sin(np.arange(16_000) * 0.17)).astype(np.int16)
    with SerialPcmEmulator(samples, 16_000, folder / "mic") as emulator:
        yield Rig(
            driver=SerialPcm("dut", SerialPcmConfig(port=str(emulator.link))),
            missing=SerialPcm("dut", SerialPcmConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


RIGS: dict[str, MakeRig] = {"audio.serial_pcm": serial_pcm}
