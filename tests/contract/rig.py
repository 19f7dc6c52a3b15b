"""What a driver needs to be tried without hardware."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drivers.base import Driver, DriverError, Unavailable


@dataclass(frozen=True)
class Rig:
    driver: Driver[Any]
    missing: Driver[Any] | None = None
    """The same kind with its device or file absent; None where nothing can be absent."""
    missing_raises: type[DriverError] = Unavailable
    unplug: Callable[[], None] | None = None
    plug: Callable[[], None] | None = None
    """None where the source cannot go away."""


MakeRig = Callable[[Path, pytest.MonkeyPatch], AbstractContextManager[Rig]]
"""Called with an empty folder; undoes everything when the context ends."""
