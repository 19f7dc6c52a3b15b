"""What an emulator module of a serial sensor says once, for everybody: its ``CASES``.

The contract suite (``tests/contract``), ``axond bench`` and the tests of ``axond sensors probe`` find them here.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hil import emulators
from hil.emulators.serial_port import SerialEmulator

ROWS = 500


@dataclass(frozen=True, slots=True)
class Case:
    """A driver, its settings at the sensor's top rate, and the sensor."""

    kind: str
    """The driver's, for example ``imu.witmotion``."""
    settings: dict[str, Any]
    """Of the driver's table, without ``driver`` and ``port``; with ``baud``."""
    emulator: Callable[[Path], SerialEmulator]
    """Makes the sensor on a link, playing what suits any test; not started yet."""
    variant: str = ""
    """What tells this case from others of the same kind."""
    start: tuple[bytes, ...] = field(default=())
    """What a bare reader must write before anything comes."""
    asked: bool = False
    """Gives nothing unless it is asked for each row: there is no stream that a bare reader could read."""
    package: str | None = None
    """What must be installed for driver or emulator."""

    @property
    def name(self) -> str:
        return f"{self.kind}.{self.variant}" if self.variant else self.kind


def cases() -> dict[str, Case]:
    """Those of all modules of this package, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(emulators.__path__) if not module.ispkg)
    modules = [import_module(f"hil.emulators.{name}") for name in names]
    return {case.name: case for module in modules for case in getattr(module, "CASES", ())}


def words(columns: int) -> npt.NDArray[np.int16]:
    """(500, columns) of any sensor's noise."""
    return np.random.default_rng(0).integers(-3000, 3000, (ROWS, columns)).astype(np.int16)


def numbers() -> npt.NDArray[np.float32]:
    """(500, 6) m/s2 and rad/s, or g and deg/s."""
    return np.random.default_rng(0).normal(0, 0.9, (ROWS, 6)).astype(np.float32)


def distances(columns: int = 1) -> npt.NDArray[np.int64]:
    """(500, columns) within the range of every ranger, in mm, cm or us."""
    return np.random.default_rng(0).integers(310, 1400, (ROWS, columns))
