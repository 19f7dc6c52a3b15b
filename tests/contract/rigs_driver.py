"""What each driver needs to be tried without hardware; a new driver adds its rig here."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from drivers import recording
from drivers.audio.alsa import Alsa, AlsaConfig
from drivers.audio.file import FileAudio, FileConfig
from drivers.base import Driver, DriverError, Misconfigured, Unavailable
from drivers.imu.witmotion import Witmotion, WitmotionConfig
from drivers.packet import Packet, SensorInfo
from drivers.replay import Replay, ReplayConfig
from drivers.synthetic import Synthetic, SyntheticConfig
from hil.emulators.witmotion import WitmotionEmulator
from tests.drivers.alsa_devices import use_file_device


@dataclass(frozen=True)
class Rig:
    driver: Driver[Any]
    missing: Driver[Any] | None = None
    """The same kind with its device or file absent; None where nothing can be absent."""
    missing_raises: type[DriverError] = Unavailable
    unplug: Callable[[], None] | None = None
    plug: Callable[[], None] | None = None
    """None where the source cannot go away."""


@contextmanager
def witmotion(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    rows = np.random.default_rng(0).integers(-3000, 3000, (500, 6)).astype(np.int16)
    with WitmotionEmulator(rows, 100, folder / "imu") as emulator:
        yield Rig(
            driver=Witmotion("dut", WitmotionConfig(port=str(emulator.link), rate_hz=100)),
            missing=Witmotion("dut", WitmotionConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


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


@contextmanager
def replay(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    info = SensorInfo("imu", ("x", "y"), ("g", "g"), (1.0, 1.0), 100.0)
    packets = [Packet("was", i, i * 50_000_000, 10_000_000, np.full((5, 2), i, np.int16)) for i in range(20)]
    recording.save(folder / "recorded.npz", info, packets)
    yield Rig(
        driver=Replay("dut", ReplayConfig(path=folder / "recorded.npz", loop=True)),
        missing=Replay("dut", ReplayConfig(path=folder / "absent.npz")),
        missing_raises=Misconfigured,
    )


@contextmanager
def synthetic(_folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    yield Rig(driver=Synthetic("dut", SyntheticConfig(packet_ms=40)))


RIGS: dict[str, Callable[[Path, pytest.MonkeyPatch], AbstractContextManager[Rig]]] = {
    "imu.witmotion": witmotion,
    "audio.file": audio_file,
    "audio.alsa": audio_alsa,
    "replay": replay,
    "synthetic": synthetic,
}
