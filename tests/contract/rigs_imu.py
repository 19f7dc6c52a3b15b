"""Rigs of the inertial sensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from drivers.imu.bno08x_rvc import Bno08xRvc, Bno08xRvcConfig
from drivers.imu.csv import Csv, CsvConfig
from drivers.imu.mavlink import Mavlink, MavlinkConfig
from drivers.imu.vectornav import Vectornav, VectornavConfig
from drivers.imu.witmotion import Witmotion, WitmotionConfig
from drivers.imu.xsens import Xsens, XsensConfig
from hil.emulators.bno08x_rvc import Bno08xRvcEmulator
from hil.emulators.imu_csv import CsvEmulator
from hil.emulators.mavlink import MavlinkEmulator
from hil.emulators.vectornav import VectornavEmulator
from hil.emulators.witmotion import WitmotionEmulator
from hil.emulators.xsens import XsensEmulator
from tests.contract.rig import MakeRig, Rig


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
def bno08x_rvc(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    rows = np.random.default_rng(0).integers(-3000, 3000, (500, 6)).astype(np.int16)
    with Bno08xRvcEmulator(rows, folder / "imu") as emulator:
        yield Rig(
            driver=Bno08xRvc("dut", Bno08xRvcConfig(port=str(emulator.link))),
            missing=Bno08xRvc("dut", Bno08xRvcConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


@contextmanager
def xsens(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    with XsensEmulator(si_rows(), 100, folder / "imu") as emulator:
        yield Rig(
            driver=Xsens("dut", XsensConfig(port=str(emulator.link), rate_hz=100)),
            missing=Xsens("dut", XsensConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


@contextmanager
def vectornav(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    with VectornavEmulator(si_rows(), 50, folder / "imu", output="both") as emulator:
        yield Rig(
            driver=Vectornav("dut", VectornavConfig(port=str(emulator.link), rate_hz=50, output="binary")),
            missing=Vectornav("dut", VectornavConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


@contextmanager
def mavlink(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    pytest.importorskip("pymavlink")
    rows = np.random.default_rng(0).integers(-3000, 3000, (500, 9))
    with MavlinkEmulator(rows, 50, folder / "imu") as emulator:
        yield Rig(
            driver=Mavlink("dut", MavlinkConfig(port=str(emulator.link), baud=115200, rate_hz=50)),
            missing=Mavlink("dut", MavlinkConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


@contextmanager
def csv(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    with CsvEmulator(si_rows().astype(np.float64), 100, folder / "imu") as emulator:
        yield Rig(
            driver=Csv("dut", CsvConfig(port=str(emulator.link), rate_hz=100, limit=(100.0,) * 6)),
            missing=Csv("dut", CsvConfig(port=str(folder / "absent"))),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


def si_rows() -> np.ndarray:
    """(500, 6) float32 of m/s2 and rad/s."""
    return np.random.default_rng(0).normal(0, 2, (500, 6)).astype(np.float32)


RIGS: dict[str, MakeRig] = {
    "imu.witmotion": witmotion,
    "imu.bno08x_rvc": bno08x_rvc,
    "imu.xsens": xsens,
    "imu.vectornav": vectornav,
    "imu.mavlink": mavlink,
    "imu.csv": csv,
}
