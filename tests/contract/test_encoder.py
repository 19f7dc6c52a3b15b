"""Every encoder of windows keeps the contract of models.base.Encoder, and the suite finds those that do not."""

from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from drivers.packet import SensorInfo
from models import contract_encoder
from models.base import BadModel, Raster, Window
from models.contract_check import Check, perform
from models.encoders.imu_delta import ImuDelta, ImuDeltaConfig
from models.registry import encoders, find_encoder

CASES = [
    (kind, check)
    for kind in encoders("ENCODER")
    for check in contract_encoder.window_checks(find_encoder(kind), contract_encoder.SETTINGS.get(kind, {}))
]


@pytest.mark.parametrize(("kind", "check"), CASES, ids=[f"{kind}: {check.name}" for kind, check in CASES])
def test_contract(kind: str, check: Check) -> None:
    outcome = perform(check)
    assert outcome.outcome == "passed", f"{kind}: {outcome.reason}"


class _Lax(ImuDelta):
    class Config(ImuDeltaConfig):
        model_config = ConfigDict(extra="ignore")


class _Demanding(ImuDelta):
    class Config(ImuDeltaConfig):
        colour: str


class _Welcomes(ImuDelta):
    def __init__(self, cfg: Any, info: SensorInfo, samples: int) -> None:
        if info.family == "imu":
            super().__init__(cfg, info, samples)


class _TwoLines(ImuDelta):
    def __init__(self, cfg: Any, info: SensorInfo, samples: int) -> None:
        if info.family != "imu":
            raise BadModel("no\nthanks")
        super().__init__(cfg, info, samples)


class _LeavesCells(ImuDelta):
    def encode(self, window: Window, out: Raster) -> None:
        made = out.copy()
        super().encode(window, made)
        out[made == 1] = 1


class _Remembers(ImuDelta):
    def encode(self, window: Window, out: Raster) -> None:
        super().encode(window, out)
        out[0] |= getattr(self, "_last", out[0])
        self._last = out[-1].copy()


class _WritesWindow(ImuDelta):
    def encode(self, window: Window, out: Raster) -> None:
        super().encode(window, out)
        window.data.flags.writeable = True
        window.data[:] = 0


class _Overflows(ImuDelta):
    def encode(self, window: Window, out: Raster) -> None:
        super().encode(window, out)
        out[0, 0] = window.data.dtype.itemsize == 4


class _Divides(ImuDelta):
    def encode(self, window: Window, out: Raster) -> None:
        super().encode(window, out)
        out[0, 0] = np.float64(window.data[0, 0]) / np.ptp(window.data.astype(np.int64)) > 0.5


class _Exotic(ImuDelta):
    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")

    def __init__(self, cfg: Any, info: SensorInfo, samples: int) -> None:
        raise BadModel("takes a seismometer only")


@pytest.mark.parametrize(
    ("wrong", "name", "outcome"),
    [
        (_Lax, "has a Config that refuses unknown keys and survives a manifest", "failed"),
        (_Demanding, "has a Config that refuses unknown keys and survives a manifest", "failed"),
        (object, "has a Config that refuses unknown keys and survives a manifest", "failed"),
        (_Welcomes, "refuses a sensor of another family in one sentence", "failed"),
        (_TwoLines, "refuses a sensor of another family in one sentence", "failed"),
        (_LeavesCells, "writes every cell, with 0 or 1", "failed"),
        (_Remembers, "the same window gives the same raster, whatever came before", "failed"),
        (_WritesWindow, "does not touch the window; its integer type does not matter", "failed"),
        (_Overflows, "does not touch the window; its integer type does not matter", "failed"),
        (_Divides, "encodes a stuck sensor without a warning", "failed"),
        (_Exotic, "writes every cell, with 0 or 1", "skipped"),
    ],
)
def test_what_is_wrong_is_found(wrong: type, name: str, outcome: str) -> None:
    check = next(check for check in contract_encoder.window_checks(wrong, {}) if check.name == name)
    assert perform(check).outcome == outcome
