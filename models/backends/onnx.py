"""ONNX Runtime: the one-step graph of the bundle, its state in buffers bound once, swapped between steps.

Several steps at once go through the graph of a whole window, where the bundle has one: the loop then is in the runtime.
"""

import importlib
import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.extras import how_to_install
from models.base import Backend, BackendUnavailable, BadModel, IoSpec, Outputs, Raster, State, Survey, Trace
from models.bundle import Bundle
from models.compile.onnx_check import check
from models.network import Network

_TYPES = {"tensor(uint8)": np.dtype(np.uint8), "tensor(int64)": np.dtype(np.int64)}
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
"""Who has the module; the builds for Jetson are of the second."""

STEP, WINDOW = "model.onnx", "model.window.onnx"
_KINDS = {"u": np.int64, "v": np.int64, "s": np.uint8}

Arrays = dict[str, npt.NDArray[Any]]
Interface = dict[str, tuple[tuple[int | str, ...], Any]]
"""Name -> shape and type of each input and output."""


def not_installed() -> str:
    """Why there is no runtime."""
    return f"onnxruntime is not installed: {how_to_install('onnx')}"


class OnnxBackend(Backend):
    """Runs ``model.onnx`` on one CPU thread."""

    def __init__(self) -> None:
        self._session: Any = None
        self._window: Any = None

    @classmethod
    def survey(cls) -> Survey:
        if find_spec("onnxruntime") is None:
            return Survey(missing=not_installed())
        return Survey(f"onnxruntime {_version()}")

    def load(self, bundle: Bundle) -> IoSpec:
        spec = self.load_step(bundle.artefact(STEP), bundle.network, str(bundle.path))
        if WINDOW in bundle.manifest.files:
            wanted = _window_interface(bundle.network)
            self._window = self._opened(bundle.artefact(WINDOW), WINDOW, wanted, str(bundle.path))
        return spec

    def load_step(self, model: bytes, network: Network, where: str) -> IoSpec:
        """As ``load``, from the bytes of the compiled step graph of ``network`` alone."""
        wanted = _interface(network)
        self._session = self._opened(model, STEP, wanted, where)
        self._window = None
        self._bind_all(network, wanted)
        return IoSpec(network.features, network.classes)

    def _opened(self, model: bytes, name: str, wanted: "Interface", where: str) -> Any:
        """A session that has the interface ``wanted``. Raises BackendUnavailable or BadModel."""
        try:
            onnxruntime = import_runtime()
        except ImportError as error:
            raise BackendUnavailable(not_installed()) from error
        check(model, f"{where}: {name}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._failures = _failures()
        try:
            session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except self._failures as error:
            reason = " ".join(str(error).split())
            raise BadModel(f"{where}: onnxruntime refuses {name}: {reason}") from error
        found = {
            value.name: (tuple(value.shape), _TYPES.get(value.type))
            for value in (*session.get_inputs(), *session.get_outputs())
        }
        odd = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        if odd:
            raise BadModel(f"{where}: {name} is not a graph of network.npz (see its {odd[0]!r}); build the bundle anew")
        return session

    def _bind_all(self, network: Network, interface: dict[str, Any]) -> None:
        # Two sets of state buffers: a step reads one and writes the other, the next step the other way round.
        # A binding keeps addresses, not arrays: self owns the arrays for as long as the bindings live.
        self._x = np.zeros(*interface["x"])
        self._state: list[Arrays] = [
            {name.removesuffix("_out"): np.zeros(*interface[name]) for name in interface if name.endswith("_out")}
            for _ in range(2)
        ]
        self._bindings = [self._bind(self._state[i], self._state[1 - i]) for i in range(2)]
        self._layers = len(network.layers)
        self._out = f"{'v' if network.layers[-1].v_th is None else 's'}{self._layers - 1}"
        self._classes, self._neurons = network.classes, network.neurons

    def _bind(self, source: Arrays, target: Arrays) -> Any:
        binding = self._session.io_binding()
        for value in self._session.get_inputs():
            array = self._x if value.name == "x" else source[value.name]
            binding.bind_input(value.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for value in self._session.get_outputs():
            array = target[value.name.removesuffix("_out")]
            binding.bind_output(value.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        if self._window is not None and trace is None and len(raster) > 1:
            return self._infer_window(raster, State.rest(self._neurons) if state is None else state)
        x, run = self._x[0], self._session.run_with_iobinding
        out = np.empty((len(raster), self._classes), np.int32)
        self._enter(state)
        turns = [(binding, self._state[1 - i][self._out][0]) for i, binding in enumerate(self._bindings)]
        try:
            for t in range(len(raster)):
                binding, answer = turns[t & 1]
                x[:] = raster[t]
                run(binding)
                out[t] = answer
                if trace is not None:
                    self._record(trace, t)
        except self._failures as error:
            raise BackendUnavailable(f"onnxruntime failed in a step: {error}") from error
        if state is not None:
            self._leave(state, self._state[len(raster) & 1])
        return out

    def _infer_window(self, raster: Raster, state: State) -> Outputs:
        names = [f"{kind}{i}" for i in range(self._layers) for kind in self._kinds(i)]
        feed = {name: getattr(state, name[0])[int(name[1:])][None].astype(_KINDS[name[0]]) for name in names}
        feed["raster"] = np.ascontiguousarray(raster)[:, None]
        try:
            out, *ends = self._window.run(["out", *(f"{name}_end" for name in names)], feed)
        except self._failures as error:
            raise BackendUnavailable(f"onnxruntime failed in a window: {error}") from error
        for name, end in zip(names, ends, strict=True):
            getattr(state, name[0])[int(name[1:])][:] = end[0]
        answer: Outputs = out[:, 0].astype(np.int32)
        return answer

    def _kinds(self, i: int) -> str:
        return "uvs" if f"s{i}" in self._state[0] else "uv"

    def _enter(self, state: State | None) -> None:
        """Write ``state``, or rest, where the first step reads."""
        for name, array in self._state[0].items():
            array[:] = 0 if state is None else getattr(state, name[0])[int(name[1:])]

    def _leave(self, state: State, now: Arrays) -> None:
        for name, array in now.items():
            getattr(state, name[0])[int(name[1:])][:] = array[0]

    def _record(self, trace: Trace, t: int) -> None:
        now = self._state[1 - (t & 1)]
        for i in range(self._layers):
            trace.u[i][t], trace.v[i][t] = now[f"u{i}"][0], now[f"v{i}"][0]
            if f"s{i}" in now:
                trace.spikes[i][t] = now[f"s{i}"][0]

    def close(self) -> None:
        self._bindings = []
        self._session = self._window = None


def _version() -> str:
    for name in _DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"


def import_runtime() -> Any:
    """The module ``onnxruntime``, which without this tells Microsoft of the device and names it in a file (1.29)."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return importlib.import_module("onnxruntime")


def _failures() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    # The last where it quotes a damaged name.
    return (
        state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.InvalidArgument, state.NotImplemented,
        state.RuntimeException, state.EPFail, state.NoSuchFile, UnicodeDecodeError,
    )  # fmt: skip


def _interface(network: Network) -> Interface:
    """Every input and output that the step graph of ``network`` has (``compile.onnx``)."""
    wide, spikes = np.dtype(np.int64), np.dtype(np.uint8)
    found: Interface = {"x": ((1, network.features), spikes)}
    for i, layer in enumerate(network.layers):
        row = (1, layer.neurons)
        found |= {f"u{i}_out": (row, wide), f"v{i}_out": (row, wide)}
        found |= {f"{name}{i}": (row, wide) for name, k in (("u", layer.k_u), ("v", layer.k_v)) if k.any()}
        if layer.v_th is not None:
            found[f"s{i}_out"] = (row, spikes)
        if layer.w_rec is not None:
            found[f"s{i}"] = (row, spikes)
    return found


def _window_interface(network: Network) -> Interface:
    """The same of the window graph, which takes and gives the whole state."""
    wide, spikes = np.dtype(np.int64), np.dtype(np.uint8)
    last = spikes if network.layers[-1].v_th is not None else wide
    found: Interface = {
        "raster": (("steps", 1, network.features), spikes),
        "out": (("steps", 1, network.classes), last),
    }
    for i, layer in enumerate(network.layers):
        for kind in "uv" if layer.v_th is None else "uvs":
            shape = ((1, layer.neurons), spikes if kind == "s" else wide)
            found |= {f"{kind}{i}": shape, f"{kind}{i}_end": shape}
    return found


BACKEND = OnnxBackend
