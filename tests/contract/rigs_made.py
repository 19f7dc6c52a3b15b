"""Rigs of the sources that are no devices."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from drivers import recording
from drivers.base import Misconfigured
from drivers.packet import Packet, SensorInfo
from drivers.replay import Replay, ReplayConfig
from drivers.synthetic import Synthetic, SyntheticConfig
from tests.contract.rig import MakeRig, Rig


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


RIGS: dict[str, MakeRig] = {
    "replay": replay,
    "synthetic": synthetic,
}
