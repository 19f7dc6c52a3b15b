"""What a user would write by hand around a runtime: the baselines of the backends."""

from typing import Any

import numpy as np

from models.backends.onnx import import_runtime


class OnnxLoop:
    """Buffers bound once, state read and written in turns."""

    def __init__(self, model: bytes) -> None:
        onnxruntime = import_runtime()
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


class TfliteLoop:
    """Input and state set, invoked, state taken; ``model`` is a step graph of ``models.compile.tflite``."""

    def __init__(self, model: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=model, num_threads=1)
        self._interpreter.allocate_tensors()
        inputs = {detail["name"]: detail for detail in self._interpreter.get_input_details()}
        self._x, self._state = inputs["x"]["index"], inputs["state"]["index"]
        self._rest = np.zeros(inputs["state"]["shape"], np.int32)
        self._out = self._interpreter.get_output_details()[0]["index"]

    def run(self, raster: "np.ndarray[Any, np.dtype[np.uint8]]") -> None:
        """Step through ``raster`` from rest."""
        interpreter, now = self._interpreter, self._rest
        for row in raster.astype(np.float32)[:, None]:
            interpreter.set_tensor(self._x, row)
            interpreter.set_tensor(self._state, now)
            interpreter.invoke()
            now = interpreter.get_tensor(self._out)
