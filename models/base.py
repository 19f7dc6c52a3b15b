"""Contracts of models: encoders, backends and what they exchange."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from drivers.packet import Packet, SensorInfo

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.network import Network

Raster = npt.NDArray[np.uint8]
"""(time_steps, features) spikes, 0 or 1."""
Outputs = npt.NDArray[np.int32]
"""(time_steps, classes) what the last layer puts out at each step: spikes, or an integrator's membrane potential."""
Potentials = npt.NDArray[np.int64]
"""(classes,) sum of the outputs over the steps of a window."""


class ModelError(Exception):
    """A sentence for people: what, where, what was expected, what to do."""


class BadModel(ModelError):
    """This model cannot be used as it is; keep the old one."""


class BackendUnavailable(ModelError):
    """The runtime or chip is not usable now or not installed; another backend may be."""


@dataclass(frozen=True, slots=True)
class Window:
    """A fixed stretch of capture time of one sensor, in the sensor's own integers."""

    t0_ns: int
    """CLOCK_MONOTONIC time of the first sample."""
    dt_ns: int
    data: npt.NDArray[np.generic]
    """(samples, channels) integer, or EVENT[n]; C-contiguous, valid until the next ``push`` of what cut it."""
    info: SensorInfo
    lost: int = 0
    """Samples inside the window that are known to be missing and were filled by holding the last value; of events, how
    many are known to be missing."""
    span_ns: int = 0
    """Length of a window of events, whose ``dt_ns`` is 0."""

    @property
    def end_ns(self) -> int:
        """Capture time of the end of the last sample, or of the window of events."""
        return self.t0_ns + (self.span_ns or self.dt_ns * len(self.data))


@dataclass(frozen=True, slots=True)
class IoSpec:
    """What a loaded network takes and gives."""

    features: int
    classes: int


@dataclass(frozen=True, slots=True)
class Inference:
    """One decision of one pipeline."""

    t0_ns: int
    """Capture time of the window's first sample, CLOCK_MONOTONIC."""
    last_ns: int
    """Capture time of the window's last sample."""
    end_ns: int
    """One sample period later: where a window without a gap would follow."""
    label: str
    score: float
    """Softmax of the potentials at the bundle's temperature: 0..1, comparable within one model version only."""
    lost: int
    """Samples missing inside the window."""
    input_spikes: int
    encoded_ns: int
    """CLOCK_MONOTONIC when the raster was ready."""
    inferred_ns: int
    """CLOCK_MONOTONIC when the backend had answered."""
    quality: float | None = None
    """0..1, of a model that fuses sensors: how much of what they should give this rests on."""
    missing: tuple[str, ...] = ()
    """Inputs of such a model that gave nothing to it, or nothing plausible."""


class Encoder(Protocol):
    """Window to spikes. Pure: the same window gives the same raster, whatever came before."""

    shape: tuple[int, ...]
    """(time_steps, features)."""

    def encode(self, window: Window, out: Raster) -> None:
        """Write the spikes of ``window`` into ``out`` (uint8 of ``shape``; every cell is written, 0 or 1)."""

    def reset(self) -> None:
        """Forget everything; a no-op for encoders that keep nothing between windows."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Time steps that a stream's encoder has completed."""

    raster: Raster
    t0_ns: int
    """CLOCK_MONOTONIC capture time of the beginning of the first of them; of the next one where there are none."""
    fresh: bool = False
    """The stream began, or began anew after a gap; what came in between is not in these steps."""
    lost: int = 0
    """Samples known to be missing in these steps, made up by holding the last value."""
    given_up: int = 0
    """Samples that no step shows, because the stream began anew before theirs was whole."""


class StreamEncoder(Protocol):
    """Packets to spikes as they come. Packets of any size give the same steps."""

    features: int
    step_ns: int

    def push(self, packet: Packet) -> Steps:
        """The time steps that ``packet`` completes, in order; perhaps none."""


@dataclass(frozen=True, slots=True)
class State:
    """What a network remembers from one step to the next: per layer (neurons,) u and v int32, spikes uint8.

    It belongs to the caller, so that it outlives a backend and moves to another one.
    """

    u: tuple[npt.NDArray[np.int32], ...]
    v: tuple[npt.NDArray[np.int32], ...]
    s: tuple[npt.NDArray[np.uint8], ...]

    @classmethod
    def rest(cls, neurons: tuple[int, ...]) -> "State":
        """The state before the first step."""
        return cls(
            tuple(np.zeros(n, np.int32) for n in neurons),
            tuple(np.zeros(n, np.int32) for n in neurons),
            tuple(np.zeros(n, np.uint8) for n in neurons),
        )

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """All of them: u, v, then spikes, each in the order of the layers."""
        return (*self.u, *self.v, *self.s)

    def assign(self, other: "State") -> None:
        """Take over the values of ``other``, a state of the same network."""
        for mine, theirs in zip(self.arrays(), other.arrays(), strict=True):
            mine[:] = theirs

    def copy(self) -> "State":
        """One that shares nothing with this one."""
        fresh = State.rest(tuple(map(len, self.u)))
        fresh.assign(self)
        return fresh


@dataclass(frozen=True, slots=True)
class Survey:
    """What is here for a backend, as ``axond accelerators`` tells it."""

    runtime: str = ""
    """The runtime and its version; empty if there is none."""
    devices: tuple[str, ...] = ()
    """Chips that were found, each in a few words."""
    missing: str | None = None
    """Why the backend cannot work here and what to install; None if nothing is known to be missing."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything a network did in one ``infer``: per layer (steps, neurons) spikes uint8, u and v int32."""

    spikes: tuple[npt.NDArray[np.uint8], ...]
    u: tuple[npt.NDArray[np.int32], ...]
    v: tuple[npt.NDArray[np.int32], ...]

    @classmethod
    def empty(cls, steps: int, neurons: tuple[int, ...]) -> "Trace":
        """A trace to hand to ``infer``, which fills it."""
        return cls(
            tuple(np.zeros((steps, n), np.uint8) for n in neurons),
            tuple(np.zeros((steps, n), np.int32) for n in neurons),
            tuple(np.zeros((steps, n), np.int32) for n in neurons),
        )

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """All of them: spikes, u, then v, each in the order of the layers."""
        return (*self.spikes, *self.u, *self.v)

    def assign(self, other: "Trace") -> None:
        """Take over the values of ``other``, as many steps of the same network."""
        for mine, theirs in zip(self.arrays(), other.arrays(), strict=True):
            mine[:] = theirs

    def differing_cells(self, other: "Trace") -> int:
        """How many cells of spikes, u and v differ."""
        return sum(int(np.count_nonzero(a != b)) for a, b in zip(self.arrays(), other.arrays(), strict=True))


class Backend(ABC):
    """Runs one network. Only its pipeline's thread calls it. Every backend gives the same numbers, bit by bit.

    It keeps no state between calls: whoever wants the network to remember owns a ``State`` and hands it in.
    """

    isolate: ClassVar[bool] = False
    """True: holds the GIL or may crash, so it always runs in a child process."""
    own_process: ClassVar[bool] = False
    """True: its ``load`` starts a child process by itself; ``isolate`` would add a second one."""
    runs_on: ClassVar[str] = "this machine's processor"
    """For people: where the network is executed."""

    @classmethod
    def survey(cls) -> Survey:
        """What is here for this backend: a quick look that imports no SDK, opens no device and starts no process."""
        return Survey()

    @classmethod
    def unsupported(cls, network: "Network") -> str | None:
        """Why it cannot run ``network`` bit by bit, in one sentence; None if it can. Needs neither runtime nor chip.

        ``load`` refuses with that sentence.
        """
        return None

    @abstractmethod
    def load(self, bundle: "Bundle") -> IoSpec:
        """Map the network and warm up. Raises BackendUnavailable or BadModel."""

    @abstractmethod
    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        """Step the network through ``raster``; the result is the caller's own array.

        It starts from ``state``, which afterwards holds the state behind the last step; without one it starts from
        rest. With a ``trace`` of ``len(raster)`` steps that is filled as well: for golden vectors, not for speed.
        Raises BackendUnavailable when the runtime or chip has failed; ``state`` is then what it was before.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what ``load`` took. Idempotent, never raises."""
