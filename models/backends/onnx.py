"""ONNX Runtime: the one-step graph of the bundle, its state in buffers bound once, swapped between steps."""

from typing import Any

import numpy as np

from models.base import Backend, BackendUnavailable, BadModel, IoSpec, Potentials, Raster, Trace
from models.bundle import Bundle

_DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


class OnnxBackend(Backend):
    """Runs ``model.onnx`` on one CPU thread."""

    def __init__(self) -> None:
        self._session: Any = None

    def load(self, bundle: Bundle) -> IoSpec:
        return self.load_step(bundle.artefact("model.onnx"), str(bundle.path))

    def load_step(self, model: bytes, where: str) -> IoSpec:
        """As ``load``, from the bytes of a compiled step graph."""
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendUnavailable("onnxruntime is not installed: pip install 'axond[onnx]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        refusals = onnxruntime.capi.onnxruntime_pybind11_state
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except (refusals.Fail, refusals.InvalidGraph, refusals.InvalidProtobuf, refusals.InvalidArgument,
                refusals.NotImplemented, refusals.RuntimeException) as error:  # fmt: skip
            raise BadModel(f"{where}: onnxruntime refuses model.onnx: {error}") from error
        self._session = session
        try:
            shapes = {
                value.name: (tuple(map(int, value.shape)), _DTYPES[value.type])
                for value in (*session.get_outputs(), *session.get_inputs())
            }
            self._x = np.zeros(*shapes["x"])
            self._bind_all(shapes)
            return IoSpec(shapes["x"][0][1], shapes["acc"][0][1])
        except (KeyError, TypeError, ValueError) as error:
            raise BadModel(
                f"{where}: model.onnx is not a step graph of axond ({error!r}); build the bundle anew"
            ) from error

    def _bind_all(self, shapes: dict[str, Any]) -> None:
        # Two sets of state buffers: a step reads one and writes the other, the next step the other way round.
        # A binding keeps addresses, not arrays: self owns the arrays for as long as the bindings live.
        self._state = [
            {name.removesuffix("_out"): np.zeros(*shape) for name, shape in shapes.items() if name != "x"}
            for _ in range(2)
        ]
        self._bindings = [self._bind(self._state[i], self._state[1 - i]) for i in range(2)]
        self._layers = sum(name.startswith("v") and not name.endswith("_out") for name in shapes)
        self._now = 0

    def _bind(self, source: dict[str, Any], target: dict[str, Any]) -> Any:
        binding = self._session.io_binding()
        for value in self._session.get_inputs():
            array = self._x if value.name == "x" else source[value.name]
            binding.bind_input(value.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for value in self._session.get_outputs():
            array = target[value.name.removesuffix("_out")]
            binding.bind_output(value.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding

    def infer(self, raster: Raster, trace: Trace | None = None) -> Potentials:
        x, run = self._x[0], self._session.run_with_iobinding
        here, there = self._bindings[self._now], self._bindings[1 - self._now]
        self._state[self._now]["acc"][:] = 0
        for t in range(len(raster)):
            x[:] = raster[t]
            run(here)
            here, there = there, here
            self._now = 1 - self._now
            if trace is not None:
                self._record(trace, t)
        potentials: Potentials = self._state[self._now]["acc"][0].copy()
        return potentials

    def _record(self, trace: Trace, t: int) -> None:
        state = self._state[self._now]
        for i in range(self._layers):
            trace.u[i][t], trace.v[i][t] = state[f"u{i}"][0], state[f"v{i}"][0]
            if f"s{i}" in state:
                trace.spikes[i][t] = state[f"s{i}"][0]

    def reset(self) -> None:
        for array in self._state[self._now].values():
            array[:] = 0

    def close(self) -> None:
        self._bindings = []
        self._session = None


BACKEND = OnnxBackend
