"""Lava: the network on Loihi 2, or in Lava's bit-accurate simulation of it.

Lava 0.10 needs Python 3.10 and numpy 1.x, so it lives in a virtual environment of its own (``axond lava install``),
and the network runs in a process of that Python: ``models.lava_sidecar``.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from models import network as networks
from models.base import Backend, BackendUnavailable, BadModel, IoSpec, Outputs, Raster, State, Survey, Trace
from models.bundle import Bundle
from models.child import Child
from models.lava_sidecar import layout, serve
from models.network import DECAY_ONE, Layer, Network

SYSTEM_HOME = Path("/opt/axond/lava")
LOIHI_EXTENSION = Path("lava", "magma", "compiler", "subcompilers", "nc")
BIAS_MANTISSA = (-(1 << 12), (1 << 12) - 1)
BIAS_EXPONENT_MAX = 7
START_DEADLINE_S = 30.0
LOAD_DEADLINE_S = 60.0
ANSWER_DEADLINE_S = 0.5
SLOWER = 4
"""An answer may take so many times what its steps took of late at most, and ``ANSWER_DEADLINE_S``."""
PEAK_DECAY = 0.98
"""What is left of the longest step time seen, per answer."""


def home() -> Path:
    """Where the virtual environment with Lava is or is to be: $AXOND_LAVA, the user's own, or the machine's."""
    chosen = os.environ.get("AXOND_LAVA")
    if chosen:
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111  # never raises
    own = Path(data, "axond", "lava")
    if is_there(own) or is_there(SYSTEM_HOME):
        return own if is_there(own) else SYSTEM_HOME
    return SYSTEM_HOME if os.geteuid() == 0 else own


def python(place: Path) -> Path:
    """The interpreter of the virtual environment at ``place``."""
    return place / "bin" / "python"


def is_there(place: Path) -> bool:
    """Can the Python of the virtual environment at ``place`` be run? Never raises, also where nobody may look."""
    return os.access(python(place), os.X_OK)


def unsupported(network: Network) -> str | None:
    """Why Lava cannot run ``network`` bit by bit, in one sentence; None if it can."""
    return next(filter(None, map(_unsupported_layer, network.layers)), None)


def _unsupported_layer(layer: Layer) -> str | None:
    for what, values in (("threshold", layer.v_th), ("tau_syn", layer.k_u), ("tau_mem", layer.k_v)):
        if values is not None and (values != values[0]).any():
            return f"layer {layer.name!r} has more than one {what}; Lava's LIF has one for all its neurons"
    if layer.k_u[0] == DECAY_ONE:
        return f"layer {layer.name!r} has a current that never decays; Loihi's always does (du is at least 1 of 4096)"
    if layer.k_v[0] == 0:
        return f"layer {layer.name!r} forgets its potential in one step; Loihi's dv is at most 4095 of 4096"
    if not _loihi_bias(layer.bias):
        return f"layer {layer.name!r} has a bias that is no 13-bit number times a power of two up to 128, as Loihi's is"
    return None


def _loihi_bias(bias: "np.ndarray[tuple[int, ...], np.dtype[np.int32]]") -> bool:
    left = bias.astype(np.int64)
    for _ in range(BIAS_EXPONENT_MAX):
        left = np.where(left & 1, left, left >> 1)
    return bool((left >= BIAS_MANTISSA[0]).all() and (left <= BIAS_MANTISSA[1]).all())


@dataclass(slots=True)
class _Loaded:
    """One network in its sidecar."""

    network: Network
    child: Child
    shared: layout.Shared
    steps: int
    """How many a request can have."""
    step_s: float


class LavaBackend(Backend):
    """Runs the network in the sidecar."""

    own_process: ClassVar[bool] = True
    runs_on: ClassVar[str] = "Loihi 2, or Lava's simulation of it"

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    @classmethod
    def survey(cls) -> Survey:
        place = home()
        if not is_there(place):
            return Survey(missing=_missing(place))
        packages = place / "lib" / "python3.10" / "site-packages"
        found = next(packages.glob("lava_nc-*.dist-info"), None)
        if found is None:
            return Survey(missing=f"{place} lacks lava-nc: axond lava install")
        board = (packages / LOIHI_EXTENSION).exists()
        return Survey(
            f"Lava {found.name.removesuffix('.dist-info').split('-')[1]}",
            ("Loihi 2 extension (lava-loihi)",) if board else (),
        )

    @classmethod
    def unsupported(cls, network: Network) -> str | None:
        return unsupported(network)

    def load(self, bundle: Bundle) -> IoSpec:
        return self.load_network(bundle.network, str(bundle.path))

    def load_network(self, network: Network, where: str) -> IoSpec:
        """As ``load``, for a network that is in no bundle (yet)."""
        self.close()
        reason = unsupported(network)
        if reason:
            raise BadModel(f"{where}: {reason}")
        place = home()
        if not is_there(place):
            raise BackendUnavailable(_missing(place))
        content = networks.save(network)
        features, neurons = network.features, network.neurons
        steps = layout.steps_of(features, neurons)
        size = max(len(content), layout.bytes_of(features, neurons, steps))
        child = Child([str(python(place)), "-E", "-s", serve.__file__], size, "Lava")
        try:
            child.start(START_DEADLINE_S)
            child.buffer[: len(content)] = content
            answer = child.call({"load": len(content), "steps": steps}, LOAD_DEADLINE_S)
        except (BackendUnavailable, BadModel):
            child.close()
            raise
        shared = layout.views(child.buffer, features, neurons, steps)
        self._loaded = _Loaded(network, child, shared, steps, float(answer["step_s"]))
        return IoSpec(features, network.classes)

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        one = self._loaded
        if one is None:
            raise BackendUnavailable("Lava has no network loaded")
        now = State.rest(one.network.neurons) if state is None else state.copy()
        out = np.empty((len(raster), one.network.classes), np.int32)
        last = one.shared.populations[-1]
        answers = last.v if one.network.layers[-1].v_th is None else last.s
        for begin in range(0, len(raster), one.steps):
            span = slice(begin, min(begin + one.steps, len(raster)))
            steps = span.stop - begin
            _run(one, raster[span], now)
            out[span] = answers[:steps]
            if trace is not None:
                for i, population in enumerate(one.shared.populations):
                    trace.u[i][span], trace.v[i][span] = population.u[:steps], population.v[:steps]
                    trace.spikes[i][span] = population.s[:steps]
        if state is not None:
            state.assign(now)
        return out

    def close(self) -> None:
        if self._loaded is not None:
            self._loaded.child.close()
            self._loaded = None


def _missing(place: Path) -> str:
    interpreter = python(place)
    if os.path.islink(interpreter):  # noqa: PTH114  # never raises
        return f"{interpreter} leads to {os.path.realpath(interpreter)}, which cannot be run here: axond lava install"
    return f"Lava is not installed ({place} is not there): axond lava install"


def _run(one: _Loaded, raster: Raster, now: State) -> None:
    """Do the steps of ``raster``, at most as many as the shared memory has, and move ``now`` behind them."""
    steps = len(raster)
    one.shared.raster[:steps] = raster
    for i, population in enumerate(one.shared.populations):
        population.start_u[:], population.start_v[:], population.start_s[:] = now.u[i], now.v[i], now.s[i]
    lava_steps = steps + len(now.u)
    begun_s = time.monotonic()
    answer = one.child.call({"run": steps}, ANSWER_DEADLINE_S + SLOWER * one.step_s * lava_steps)
    one.step_s = max(one.step_s * PEAK_DECAY, (time.monotonic() - begun_s) / lava_steps)
    for i in answer["overflow"]:
        raise BackendUnavailable(
            f"layer {one.network.layers[i].name!r}: a synaptic current left the 24 bits that Loihi has for it; "
            "use another backend, or build the model with smaller weights or a shorter tau_syn"
        )
    end = steps - 1
    for i, population in enumerate(one.shared.populations):
        now.u[i][:], now.v[i][:], now.s[i][:] = population.u[end], population.v[end], population.s[end]


BACKEND = LavaBackend
