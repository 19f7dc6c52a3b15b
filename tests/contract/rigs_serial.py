"""Rigs of the serial sensors: one for each case that an emulator declares."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from drivers.base import Driver
from drivers.registry import driver_class
from hil.emulators.case import Case, cases
from tests.contract.rig import MakeRig, Rig


def rig_of(case: Case) -> MakeRig:
    @contextmanager
    def make(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Rig]:
        if case.package is not None:
            pytest.importorskip(case.package)
        with case.emulator(folder / "sensor") as emulator:
            yield Rig(
                driver=driver_on(emulator.link),
                missing=driver_on(folder / "absent"),
                unplug=emulator.unplug,
                plug=emulator.plug,
            )

    def driver_on(port: Path) -> Driver[Any]:
        cls = driver_class(case.kind)
        return cls("dut", cls.Config.model_validate({"port": str(port), **case.settings}))

    return make


RIGS: dict[str, MakeRig] = {name: rig_of(case) for name, case in cases().items()}
