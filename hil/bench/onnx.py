"""The ONNX backend against a bare ``session.run`` loop with IO binding on the same graph, in turns."""

import time
from typing import Any

import numpy as np
import onnxruntime

from models.backends.onnx import OnnxBackend
from models.backends.reference import ReferenceBackend
from models.bundle import Bundle
from models.registry import open_bundle

STEPS = 200
MODELS = ("spoken-digits", "activity")
_REFERENCE_ROUNDS = 5


def measure(seconds: float) -> dict[str, Any]:
    """Microseconds per time step, medians over rounds that alternate, and the ratio of backend to bare loop."""
    numbers: dict[str, Any] = {"steps_per_round": STEPS}
    for name in MODELS:
        numbers |= _one(open_bundle(name, []), seconds / len(MODELS))
    return numbers


def _one(bundle: Bundle, seconds: float) -> dict[str, Any]:
    features = bundle.network.features
    raster = (np.random.default_rng(0).random((STEPS, features)) < 0.1).astype(np.uint8)
    backend = OnnxBackend()
    backend.load(bundle)
    bare = _BareLoop(bundle.artefact("model.onnx"))
    ours: list[int] = []
    theirs: list[int] = []
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s or len(ours) < 3:
        start_ns = time.perf_counter_ns()
        backend.infer(raster)
        middle_ns = time.perf_counter_ns()
        bare.run(raster)
        ours.append(middle_ns - start_ns)
        theirs.append(time.perf_counter_ns() - middle_ns)
    backend.close()
    reference = ReferenceBackend()
    reference.load(bundle)
    reference_ns = []
    for _ in range(_REFERENCE_ROUNDS):
        start_ns = time.perf_counter_ns()
        reference.infer(raster)
        reference_ns.append(time.perf_counter_ns() - start_ns)
    per_step = 1e3 * STEPS
    ratios = np.array(ours) / np.array(theirs)
    name = bundle.manifest.name
    return {
        f"{name}.rounds": len(ours),
        f"{name}.onnx_us_per_step": round(float(np.median(ours)) / per_step, 2),
        f"{name}.bare_us_per_step": round(float(np.median(theirs)) / per_step, 2),
        f"{name}.ratio": round(float(np.median(ratios)), 3),
        f"{name}.reference_us_per_step": round(float(np.median(reference_ns)) / per_step, 2),
    }


class _BareLoop:
    """What a user would write by hand: buffers bound once, state read and written in turns."""

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        dtypes = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
        self._in = {value.name: np.zeros(value.shape, dtypes[value.type]) for value in self._session.get_inputs()}
        self._out = {value.name: np.zeros(value.shape, dtypes[value.type]) for value in self._session.get_outputs()}
        self._there, self._back = self._bind(turned=False), self._bind(turned=True)

    def _bind(self, *, turned: bool) -> Any:
        # A binding keeps addresses, not arrays: self owns the arrays for as long as it lives.
        binding = self._session.io_binding()
        for name, array in self._in.items():
            source = self._out[f"{name}_out"] if turned and name != "x" else array
            binding.bind_input(name, "cpu", 0, source.dtype, source.shape, source.ctypes.data)
        for name, array in self._out.items():
            target = self._in.get(name.removesuffix("_out"), array) if turned else array
            binding.bind_output(name, "cpu", 0, target.dtype, target.shape, target.ctypes.data)
        return binding

    def run(self, raster: "np.ndarray[Any, np.dtype[np.uint8]]") -> None:
        """Step through an even number of rows."""
        x, run, there, back = self._in["x"][0], self._session.run_with_iobinding, self._there, self._back
        for t in range(0, len(raster), 2):
            x[:] = raster[t]
            run(there)
            x[:] = raster[t + 1]
            run(back)
