"""Rigs of event recordings and of the USB event cameras."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from drivers.base import Misconfigured
from drivers.event_camera.file import EventFileConfig, FileEvents
from drivers.event_camera.usb import UsbCamera, UsbConfig
from hil.emulators.dvxplorer import HEIGHT, WIDTH, DvxplorerEmulator
from hil.emulators.dvxplorer import missing as missing_emulator
from tests.contract.rig import MakeRig, Rig


@contextmanager
def event_file(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
    rng = np.random.default_rng(0)
    wire = np.stack([rng.integers(0, 128, 5000), rng.integers(0, 128, 5000)], axis=1).astype(np.uint8)
    times = np.sort(rng.integers(0, 200_000, 5000)) | rng.integers(0, 2, 5000) << 23
    path = folder / "recorded.bs2"
    path.write_bytes(np.concatenate([wire, times.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]], axis=1).tobytes())
    yield Rig(
        driver=FileEvents("dut", EventFileConfig(path=path, geometry=(128, 128), loop=True)),
        missing=FileEvents("dut", EventFileConfig(path=folder / "absent.es")),
        missing_raises=Misconfigured,
    )


@contextmanager
def usb_camera(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    pytest.importorskip("neuromorphic_drivers")
    reason = missing_emulator()
    if reason is not None:
        pytest.skip(reason)
    rng = np.random.default_rng(0)
    events = np.zeros(10_000, [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "u1")])
    events["t"] = np.sort(rng.integers(0, 500_000, len(events)))
    events["x"], events["y"] = rng.integers(0, WIDTH, len(events)), rng.integers(0, HEIGHT, len(events))
    with DvxplorerEmulator(events, folder, repeats=True) as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        yield Rig(
            driver=UsbCamera("dut", UsbConfig(device="dvxplorer")),
            missing=UsbCamera("dut", UsbConfig(device="dvxplorer", serial="absent")),
            unplug=emulator.unplug,
            plug=emulator.plug,
        )


RIGS: dict[str, MakeRig] = {
    "event_camera.file": event_file,
    "event_camera.usb": usb_camera,
}
