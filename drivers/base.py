"""The contract of every driver, and the three errors that tell the runtime what to do."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from drivers.packet import Packet, SensorCounters, SensorInfo


class DriverError(Exception):
    """A sentence for people: what, where, what was expected, what to do."""


class Unavailable(DriverError):
    """The device is not there or not usable now; the runtime tries again with back-off."""


class Disconnected(Unavailable):
    """The device was open and went away; the runtime closes and opens again."""


class Misconfigured(DriverError):
    """Trying again cannot help; a person must change the configuration (exit 78 at start)."""


def _without_nul(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path has no NUL characters")
    return path


ConfigPath = Annotated[Path, Field(strict=False), AfterValidator(_without_nul)]
"""A path in a driver's table: TOML has no paths, so this one type is made of a string."""


class DriverConfig(BaseModel):
    """Base of every driver's own table in the TOML; unknown keys and other types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _array(cls, value: Any) -> Any:
        """TOML's arrays are tuples here: settings do not change."""
        return tuple(value) if isinstance(value, list) else value


C = TypeVar("C", bound=DriverConfig)


class Driver(ABC, Generic[C]):
    """One sensor. Only its capture thread calls it; the runtime owns threads, retries, counters' reporting and logging.

    The constructor stores and touches no hardware.
    """

    Config: ClassVar[type[DriverConfig]]

    def __init__(self, name: str, cfg: C) -> None:
        self.name = name
        self.cfg = cfg
        self.counters = SensorCounters()

    @property
    def live(self) -> bool:
        """True: what nobody takes in time is lost. False: a source that waits, like a file at full speed."""
        return True

    @property
    def place(self) -> str | None:
        """A path that changes when the device comes or goes, so that its return is seen at once; None: a try tells."""
        return None

    @abstractmethod
    def info(self) -> SensorInfo:
        """What the samples mean, from the configuration alone: callable before ``open``, touches no hardware."""

    @abstractmethod
    def open(self) -> None:
        """Take the device exclusively; callable again after ``close``. Raises Unavailable or Misconfigured."""

    @abstractmethod
    def read(self, timeout: float) -> Packet | None:
        """The next packet, or None when nothing came within ``timeout`` seconds.

        Raises Disconnected when the device went away, and EndOfInput when a finite source is exhausted.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the device back. Idempotent, never raises."""


class EndOfInput(DriverError):
    """Not a fault: a finite source (a file that does not loop) has no more samples."""
