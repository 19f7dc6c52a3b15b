"""Rigs of the ultrasonic and range sensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from drivers.ultrasonic.a02 import A02, A02Config
from drivers.ultrasonic.array import Array, ArrayConfig
from drivers.ultrasonic.echo import Echo, EchoConfig
from drivers.ultrasonic.maxbotix import Maxbotix, MaxbotixConfig
from drivers.ultrasonic.tfmini import Tfmini, TfminiConfig
from drivers.ultrasonic.urm07 import Urm07, Urm07Config
from drivers.ultrasonic.us100 import Us100, Us100Config
from hil.emulators.a02 import A02Emulator
from hil.emulators.maxbotix import MaxbotixEmulator
from hil.emulators.tfmini import TfminiEmulator
from hil.emulators.tick_frames import WAVEFORM, TickFrameEmulator
from hil.emulators.urm07 import Urm07Emulator
from hil.emulators.us100 import Us100Emulator
from tests.contract.rig import MakeRig, Rig


def distances(columns: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(310, 1400, (200, columns))


@contextmanager
def maxbotix(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    with MaxbotixEmulator(distances(), 20, folder / "range") as emulator:
        yield Rig(
            driver=Maxbotix("dut", MaxbotixConfig(port=str(emulator.link), rate_hz=20)),
            missing=Maxbotix("dut", MaxbotixConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


@contextmanager
def a02(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    with A02Emulator(distances(), 20, folder / "range") as emulator:
        yield Rig(
            driver=A02("dut", A02Config(port=str(emulator.link), rate_hz=20)),
            missing=A02("dut", A02Config(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


@contextmanager
def us100(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    with Us100Emulator(distances(), folder / "range") as emulator:
        yield Rig(
            driver=Us100("dut", Us100Config(port=str(emulator.link), rate_hz=15)),
            missing=Us100("dut", Us100Config(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


@contextmanager
def urm07(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    with Urm07Emulator(distances(), folder / "range") as emulator:
        yield Rig(
            driver=Urm07("dut", Urm07Config(port=str(emulator.link), rate_hz=20)),
            missing=Urm07("dut", Urm07Config(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


@contextmanager
def tfmini(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    with TfminiEmulator(distances(3), 100, folder / "range") as emulator:
        yield Rig(
            driver=Tfmini("dut", TfminiConfig(port=str(emulator.link))),
            missing=Tfmini("dut", TfminiConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


@contextmanager
def array(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    with TickFrameEmulator(distances(24), 20, folder / "ring") as emulator:
        yield Rig(
            driver=Array("dut", ArrayConfig(port=str(emulator.link), transducers=24)),
            missing=Array("dut", ArrayConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


@contextmanager
def echo(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    rows = np.random.default_rng(0).integers(-32768, 32768, (50, 1500)).astype(np.int16)
    with TickFrameEmulator(rows, 20, folder / "echo", kind=WAVEFORM, baud=921600) as emulator:
        yield Rig(
            driver=Echo("dut", EchoConfig(port=str(emulator.link), rate_hz=20)),
            missing=Echo("dut", EchoConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


RIGS: dict[str, MakeRig] = {
    "ultrasonic.maxbotix": maxbotix,
    "ultrasonic.a02": a02,
    "ultrasonic.us100": us100,
    "ultrasonic.urm07": urm07,
    "ultrasonic.tfmini": tfmini,
    "ultrasonic.array": array,
    "ultrasonic.echo": echo,
}
