"""TFLite: the one-step graph of the bundle in LiteRT, or in the older tflite-runtime."""

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.extras import how_to_install
from models.base import Backend, BackendUnavailable, BadModel, IoSpec, Outputs, Raster, State, Survey, Trace
from models.bundle import Bundle
from models.compile.tflite_check import check
from models.compile.tflite_layout import FILE, INPUT, STATE, raster_order, state_order
from models.network import Network

_RUNTIMES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))
"""Module and distribution, the better first."""

Packed = npt.NDArray[np.int32]
"""(1, 3 * neurons) as ``tflite_layout`` says, or parts of it."""


def unsupported(network: Network) -> str | None:
    """Why TFLite cannot run ``network`` bit by bit: None, as every network that ``network.check`` lets pass fits."""
    return None


class TfliteBackend(Backend):
    """Runs ``model.tflite`` on one CPU thread."""

    def __init__(self) -> None:
        self._interpreter: Any = None

    @classmethod
    def survey(cls) -> Survey:
        try:
            _, distribution = _runtime()
        except BackendUnavailable as error:
            return Survey(missing=str(error))
        return Survey(runtime=f"{distribution} {_version(distribution)}")

    def load(self, bundle: Bundle) -> IoSpec:
        return self.load_step(bundle.artefact(FILE), bundle.network, str(bundle.path))

    def load_step(self, model: bytes, network: Network, where: str) -> IoSpec:
        """As ``load``, from the bytes of the compiled step graph of ``network``."""
        module, distribution = _runtime()
        try:
            runtime = importlib.import_module(f"{module}.interpreter")
        except ImportError as error:
            raise BackendUnavailable(
                f"{distribution} cannot be imported ({error}); {how_to_install('tflite')}"
            ) from error
        check(model, network, where)
        try:
            interpreter = runtime.Interpreter(model_content=model, num_threads=1)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise BadModel(f"{where}: {distribution} refuses {FILE}: {reason}; build the bundle anew") from error
        inputs = {detail["name"]: detail["index"] for detail in interpreter.get_input_details()}
        self._x, self._state = inputs[INPUT], inputs[STATE]
        self._state_out = interpreter.get_output_details()[0]["index"]
        self._lay_out(network)
        self._interpreter = interpreter
        return IoSpec(network.features, network.classes)

    def _lay_out(self, network: Network) -> None:
        order = raster_order(network)
        # None: as the raster has it, and nothing is to be moved.
        self._input_order = None if (order[1:] > order[:-1]).all() else order
        self._order = state_order(network)
        self._neurons = network.neurons
        n, classes = sum(network.neurons), network.classes
        last = network.layers[-1]
        end = 2 * n if last.v_th is None else 3 * n
        self._classes = classes
        # Where the last layer's output is in the packed state. A slice is faster than places, and a convolution is
        # the only layer whose places are not in order.
        self._answer: Any = slice(end - classes, end)
        if last.conv is not None:
            self._answer = np.argsort(self._order)[self._answer]

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        x_index, state_index, out_index, answer = self._x, self._state, self._state_out, self._answer
        set_tensor, get_tensor = self._interpreter.set_tensor, self._interpreter.get_tensor
        invoke = self._interpreter.invoke
        x = (raster if self._input_order is None else raster.take(self._input_order, axis=1)).astype(np.float32)
        out = np.empty((len(raster), self._classes), np.int32)
        now = self._packed(state)
        try:
            for t in range(len(raster)):
                set_tensor(x_index, x[t : t + 1])
                set_tensor(state_index, now)
                invoke()
                now = get_tensor(out_index)
                out[t] = now[0, answer]
                if trace is not None:
                    self._record(trace, t, now)
        except (ValueError, RuntimeError) as error:
            raise BackendUnavailable(f"TFLite failed in a step: {error}") from error
        if state is not None:
            for array, here in zip(state.arrays(), self._unpacked(now), strict=True):
                array[:] = here
        return out

    def _record(self, trace: Trace, t: int, now: Packed) -> None:
        traced: tuple[npt.NDArray[Any], ...] = (*trace.u, *trace.v, *trace.spikes)
        for steps, here in zip(traced, self._unpacked(now), strict=True):
            steps[t] = here

    def _packed(self, state: State | None) -> Packed:
        """``state``, or rest, as the graph takes it."""
        if state is None:
            return np.zeros((1, len(self._order)), np.int32)
        return np.concatenate(state.arrays(), dtype=np.int32)[self._order][None]

    def _unpacked(self, packed: Packed) -> list[Packed]:
        """u of each layer, then v, then spikes."""
        flat = np.empty(len(self._order), np.int32)
        flat[self._order] = packed[0]
        return np.split(flat, np.cumsum(self._neurons * 3)[:-1])

    def close(self) -> None:
        self._interpreter = None


def _runtime() -> tuple[str, str]:
    """Module and distribution of the runtime to use. Raises BackendUnavailable."""
    for module, distribution in _RUNTIMES:
        if importlib.util.find_spec(module) is None:
            continue
        if module == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2:
            raise BackendUnavailable(
                f"tflite-runtime works with numpy 1 only, here is numpy {np.__version__}: pip install ai-edge-litert"
            )
        return module, distribution
    raise BackendUnavailable(f"neither ai-edge-litert nor tflite-runtime is installed: {how_to_install('tflite')}")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of unknown version"


BACKEND = TfliteBackend
