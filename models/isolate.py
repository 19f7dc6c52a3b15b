"""Any backend in a process of its own: what crashes, hangs, fills the memory or holds the GIL there is no harm here."""

import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models import bundle as bundles
from models.base import Backend, BackendUnavailable, BadModel, IoSpec, Outputs, Raster, State, Trace
from models.child import Child
from models.child_serve import Handle, serve
from models.network import Network
from models.registry import make_backend

START_DEADLINE_S = 20.0
LOAD_DEADLINE_S = 60.0
FIRST_DEADLINE_S = 30.0
"""For the first call after ``load``: nothing is known yet of how long a step takes."""
CALL_DEADLINE_S = 0.25
STEP_FACTOR = 3.0
"""A call may take CALL_DEADLINE_S and this many times what its steps took of late at most. A false alarm costs a
restart, no result: who takes over has the same raster and the same state."""
PEAK_DECAY = 0.98
"""What is left of the longest step time seen, per call."""
AREA_BYTES = 4 << 20
MOST_STEPS = 1024
"""Shared rasters and outputs, and shared traces, hold that many steps and bytes; what is longer goes in parts."""

_BOOT = "import sys; sys.path[:] = sys.argv[1].split(sys.argv[2]); from models.isolate import run_child; run_child()"
"""The child finds its modules where we do, whatever the folder it starts in."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """The arrays that parent and child see."""

    raster: Raster
    outputs: Outputs
    state: State
    trace: Trace


def _areas(network: Network) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Shape and type of every shared array, in order."""
    steps = min(MOST_STEPS, AREA_BYTES // (network.features + 4 * network.classes)) or 1
    traced = min(steps, AREA_BYTES // (9 * sum(network.neurons))) or 1
    yield (steps, network.features), np.uint8
    yield (steps, network.classes), np.int32
    for kind in (np.int32, np.int32, np.uint8):
        for n in network.neurons:
            yield (n,), kind
    for kind in (np.uint8, np.int32, np.int32):
        for n in network.neurons:
            yield (traced, n), kind


def _aligned_bytes(shape: tuple[int, ...], kind: Any) -> int:
    size: int = math.prod(shape) * np.dtype(kind).itemsize
    return -(-size // 64) * 64


def _shared(buffer: memoryview, network: Network) -> _Shared:
    arrays: list[npt.NDArray[Any]] = []
    offset = 0
    for shape, kind in _areas(network):
        arrays.append(np.frombuffer(buffer, kind, math.prod(shape), offset).reshape(shape))
        offset += _aligned_bytes(shape, kind)
    n = len(network.layers)
    u, v, s, *traces = (tuple(arrays[i : i + n]) for i in range(2, len(arrays), n))
    return _Shared(arrays[0], arrays[1], State(u, v, s), Trace(*traces))


class Isolated(Backend):
    """Backend ``kind`` in a child process: the same numbers, at most one request in flight, each with a deadline."""

    own_process = True

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._child: Child | None = None
        self._shared: _Shared | None = None
        self._step_s: float | None = None

    @property
    def pid(self) -> int | None:
        """Of the child; None while nothing is loaded."""
        return self._child.pid if self._child else None

    def load(self, bundle: bundles.Bundle) -> IoSpec:
        self.close()
        network = bundle.network
        size = sum(_aligned_bytes(shape, kind) for shape, kind in _areas(network))
        command = [sys.executable, "-c", _BOOT, os.pathsep.join(sys.path), os.pathsep]
        self._child = child = Child(command, size, self._kind)
        try:
            child.start(START_DEADLINE_S)
            wanted = {"load": str(bundle.path.resolve()), "digest": bundle.digest, "kind": self._kind}
            spec = child.call(wanted, LOAD_DEADLINE_S)
        except (BackendUnavailable, BadModel):
            self.close()
            raise
        self._shared = _shared(child.buffer, network)
        self._step_s = None
        return IoSpec(spec["features"], spec["classes"])

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        shared = self._shared
        if shared is None:
            raise BackendUnavailable(f"the process of {self._kind} does not run")
        if state is None:
            for array in shared.state.arrays():
                array[:] = 0
        else:
            shared.state.assign(state)
        out = np.empty((len(raster), shared.outputs.shape[1]), np.int32)
        most = len(shared.raster if trace is None else shared.trace.u[0])
        for begin in range(0, len(raster), most):
            steps = min(most, len(raster) - begin)
            shared.raster[:steps] = raster[begin : begin + steps]
            self._call(steps, trace is not None)
            out[begin : begin + steps] = shared.outputs[:steps]
            if trace is not None:
                _part(trace, begin, steps).assign(_part(shared.trace, 0, steps))
        if state is not None:
            state.assign(shared.state)
        return out

    def _call(self, steps: int, traced: bool) -> None:
        if self._child is None:
            raise BackendUnavailable(f"the process of {self._kind} does not run")
        known_s = self._step_s
        deadline_s = FIRST_DEADLINE_S if known_s is None else CALL_DEADLINE_S + STEP_FACTOR * steps * known_s
        begun_ns = time.monotonic_ns()
        self._child.call({"steps": steps, "trace": traced}, deadline_s)
        took_s = (time.monotonic_ns() - begun_ns) / 1e9
        self._step_s = max(took_s / steps, PEAK_DECAY * (known_s or 0))

    def close(self) -> None:
        self._shared = None
        if self._child is not None:
            self._child.close()
            self._child = None


def _part(trace: Trace, begin: int, steps: int) -> Trace:
    """Views of some steps of ``trace``."""
    rows = slice(begin, begin + steps)
    return Trace(tuple(a[rows] for a in trace.spikes), tuple(a[rows] for a in trace.u), tuple(a[rows] for a in trace.v))


def run_child() -> None:
    """The child's program."""
    serve(_serve_backend)


def _serve_backend(buffer: memoryview) -> Handle:
    backend: Backend | None = None
    shared: _Shared | None = None

    def load(kind: str, path: str, digest: str) -> dict[str, Any]:
        nonlocal backend, shared
        bundle = bundles.load(Path(path))
        if bundle.digest != digest:  # the shared memory is laid out for the other one
            raise BadModel(f"{path}: is another bundle by now than the one that was loaded; start axond again")
        shared = _shared(buffer, bundle.network)
        backend = make_backend(kind)
        spec = backend.load(bundle)
        return {"features": spec.features, "classes": spec.classes}

    def infer(steps: int, traced: bool) -> dict[str, Any]:
        if backend is None or shared is None:
            return {"error": "nothing is loaded"}
        trace = _part(shared.trace, 0, steps) if traced else None
        shared.outputs[:steps] = backend.infer(shared.raster[:steps], shared.state, trace)
        return {}

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        try:
            if "load" in request:
                return load(request["kind"], request["load"], request["digest"])
            return infer(request["steps"], request["trace"])
        except BadModel as error:
            return {"bad_model": str(error)}
        except BackendUnavailable as error:
            return {"error": str(error)}

    return handle
