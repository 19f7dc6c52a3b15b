"""Every backend that is here: time per step, beside what a user would write by hand, and what a chip would count."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from hil.bench.bare import OnnxLoop, TfliteLoop
from hil.bench.made import made_bundles
from hil.bench.numpy_steps import EventDriven
from models.base import BackendUnavailable, BadModel, Raster, Trace
from models.bundle import Bundle
from models.energy import operations
from models.registry import AUTO_ORDER, open_bundle
from models.select import load_kind

SHIPPED = ("spoken-digits", "activity")
STEPS = 50
DENSITY = 0.05
UNPUBLISHED = "akida"
"""Its licence forbids to publish results."""

Run = Callable[[Raster], Any]


def measure(seconds: float) -> dict[str, Any]:
    """Microseconds per time step, in the best of rounds that alternate between all that run the same network: what
    else the machine does only ever adds."""
    numbers: dict[str, Any] = {"steps_per_round": STEPS, "input_density": DENSITY}
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as folder:
        bundles = [*(open_bundle(name, []) for name in SHIPPED), *made_bundles(Path(folder))]
        for bundle in bundles:
            found = _one(bundle, seconds / len(bundles))
            numbers |= {f"{bundle.manifest.name}.{key}": value for key, value in found.items()}
    return numbers


def _one(bundle: Bundle, seconds: float) -> dict[str, Any]:
    raster = (np.random.default_rng(0).random((STEPS, bundle.network.features)) < DENSITY).astype(np.uint8)
    numbers: dict[str, Any] = {}
    with ExitStack() as opened:
        runs = dict(_runs(bundle, opened, numbers))
        took = _alternate(runs, raster, seconds)
    us = {name: min(times) / 1e3 for name, times in took.items()}
    numbers["rounds"] = len(took["reference"])
    numbers |= {f"{name}_us_per_step": round(value / STEPS, 2) for name, value in us.items()}
    for name in ("onnx", "tflite"):
        if f"{name}_bare" in us:
            numbers[f"{name}_to_bare"] = round(us[name] / us[f"{name}_bare"], 3)
    if "onnx_isolated" in us:
        numbers["isolation_us_per_call"] = round(us["onnx_isolated"] - us["onnx"], 1)
    return numbers | _energy(bundle, raster)


def _runs(bundle: Bundle, opened: ExitStack, numbers: dict[str, Any]) -> Iterator[tuple[str, Run]]:
    """Everything that can run ``bundle``, by name; why a backend cannot goes into ``numbers``."""
    for kind in AUTO_ORDER:
        if kind == UNPUBLISHED:
            numbers[kind] = "not measured: its licence forbids to publish figures"
            continue
        try:
            backend = load_kind(bundle, kind)
            opened.callback(backend.close)
            yield kind, backend.infer
            if kind == "onnx":
                yield "onnx_bare", OnnxLoop(bundle.artefact("model.onnx")).run
                isolated = load_kind(bundle, kind, isolate=True)
                opened.callback(isolated.close)
                yield "onnx_isolated", isolated.infer
            if kind == "tflite":
                yield "tflite_bare", TfliteLoop(bundle.artefact("model.tflite")).run
        except (BackendUnavailable, BadModel) as error:
            numbers[kind] = f"not measured: {error}"
    if all(layer.conv is None and not layer.beside for layer in bundle.network.layers):
        yield "numpy_events", EventDriven(bundle.network).run


def _alternate(runs: dict[str, Run], raster: Raster, seconds: float) -> dict[str, list[int]]:
    """Nanoseconds of each round; at least three rounds."""
    took: dict[str, list[int]] = {name: [] for name in runs}
    for run in runs.values():
        run(raster)
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s or len(took["reference"]) < 3:
        for name, run in runs.items():
            begin_ns = time.perf_counter_ns()
            run(raster)
            took[name].append(time.perf_counter_ns() - begin_ns)
    return took


def _energy(bundle: Bundle, raster: Raster) -> dict[str, Any]:
    trace = Trace.empty(STEPS, bundle.network.neurons)
    reference = load_kind(bundle, "reference")
    reference.infer(raster, trace=trace)
    reference.close()
    counted = operations(bundle.network, raster, trace)
    return {
        "synaptic_operations_per_step": round(counted.synaptic / STEPS, 1),
        "dense_multiplications_per_step": counted.dense // STEPS,
        "neuron_updates_per_step": counted.neuron_updates // STEPS,
        "spikes_per_step": round(counted.spikes / STEPS, 1),
    }
