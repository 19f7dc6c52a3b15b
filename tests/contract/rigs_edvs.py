"""Rig of the serial event camera."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from drivers.event_camera.edvs import Edvs, EdvsConfig
from hil.emulators.edvs import EdvsEmulator
from tests.contract.rig import MakeRig, Rig


@contextmanager
def edvs(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    rng = np.random.default_rng(0)
    count = 20_000
    x, y = (rng.integers(0, 128, count).astype(np.uint8) for _ in range(2))
    on = rng.integers(0, 2, count).astype(np.uint8)
    with EdvsEmulator(np.cumsum(rng.integers(0, 100, count)), x, y, on, folder / "camera") as emulator:
        yield Rig(
            driver=Edvs("dut", EdvsConfig(port=str(emulator.link))),
            missing=Edvs("dut", EdvsConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


RIGS: dict[str, MakeRig] = {"event_camera.edvs": edvs}
