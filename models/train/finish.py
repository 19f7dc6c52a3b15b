"""The end of every training: judge the integers, then write what ``axond model build`` wants, and the card."""

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.packet import SensorInfo
from models import build, energy, network, statistics
from models.backends.onnx import OnnxBackend
from models.backends.reference import ReferenceBackend
from models.base import Trace
from models.train import export, loop
from models.train.lif import Snn
from models.window import WindowSpec

COST_WINDOWS = 50
"""Of the test part, for synaptic operations and latency."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the manifest says beside the network; see ``models.bundle.Manifest``."""

    name: str
    sensor: SensorInfo | None
    window: WindowSpec | None
    encoder: dict[str, Any] | None
    labels: list[str]
    dt_s: float
    version: str = "1.0.0"
    state: str = "reset"
    readout_steps: int = 1
    detect: dict[str, Any] | None = None
    inputs: list[dict[str, Any]] | None = None
    """Of a fused model, instead of ``sensor``, ``window`` and ``encoder``."""
    late_ms: float | None = None

    def document(self) -> dict[str, Any]:
        """As ``recipe.json`` has it, without the temperature."""
        fields = {
            "name": self.name,
            "version": self.version,
            "input": None if self.sensor is None else input_of(self.sensor),
            "window": None if self.window is None else asdict(self.window),
            "encoder": self.encoder,
            "inputs": self.inputs,
            "late_ms": self.late_ms,
            "labels": self.labels,
            "state": self.state,
            "readout_steps": None if self.state == "reset" else self.readout_steps,
            "detect": self.detect,
        }
        return {key: value for key, value in fields.items() if value is not None}


def input_of(sensor: SensorInfo) -> dict[str, Any]:
    """A sensor as a manifest says it."""
    return {"family": sensor.family, "channels": list(sensor.channels), "rate_hz": sensor.rate_hz}


@dataclass(frozen=True, slots=True)
class Rasters:
    """Windows as spikes, uint8 (n, steps, features), and their classes, int64 (n,)."""

    rasters: loop.Rasters
    labels: loop.Labels
    missed: int = 0
    """Recordings in which no window began: they count as wrong."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Accuracy on the test part, as parts of 1, and what the int8 network said: rows are the truth."""

    accuracy_float: float
    accuracy_int8: float
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Texts:
    """The parts of a card that only its author knows, in Markdown."""

    about: str
    data: str
    how: str
    limits: str
    more: str = ""
    """Behind the accuracy: groups, unseen people, turned sensors."""


def judge(net: Snn, test: Rasters, classes: int) -> Judgement:
    """Float and integer network on the same windows. Raises BadModel when potentials come near the clip."""
    said, largest = loop.predict_integer(export.integer_network(net), test.rasters)
    export.check_headroom(largest)
    total = len(test.labels) + test.missed
    found = Judgement(
        accuracy_float=float((loop.predict(net, test.rasters) == test.labels).sum()) / total,
        accuracy_int8=float((said == test.labels).sum()) / total,
        counts=loop.confusion(test.labels, said, classes),
    )
    print(f"float {found.accuracy_float:.4f} int8 {found.accuracy_int8:.4f} largest potential {largest}")
    print(found.counts, flush=True)
    return found


def finish(net: Snn, recipe: Recipe, train: Rasters, test: Rasters, out: Path, texts: Texts, started_s: float) -> None:
    """Judge ``net`` and write everything that ``axond model build`` wants into the folder ``out``.

    ``started_s`` is when training began, time.monotonic(). Raises BadModel.
    """
    judged = judge(net, test, len(recipe.labels))
    minutes = (time.monotonic() - started_s) / 60
    write(net, recipe, train, out)
    (out / "CARD.md").write_text(card(recipe, judged, texts, cost(out, test.rasters), minutes), encoding="utf-8")


def write(net: Snn, recipe: Recipe, train: Rasters, out: Path) -> None:
    """``network.nir``, ``recipe.json``, and ``statistics.npz`` of the windows ``train``."""
    out.mkdir(parents=True, exist_ok=True)
    export.write_nir(net, out / "network.nir", dt_s=recipe.dt_s)
    steps = train.rasters.shape[1] if recipe.state == "reset" else recipe.readout_steps
    export.write_recipe(out / "recipe.json", recipe.document(), net, steps)
    temperature = json.loads((out / "recipe.json").read_text(encoding="utf-8"))["temperature"]
    made, classes = export.integer_network(net), len(recipe.labels)
    found = statistics.collect(made, train.rasters, train.labels, classes, temperature)
    (out / "statistics.npz").write_bytes(network.write_npz(found))


def cost(folder: Path, rasters: loop.Rasters) -> str:
    """Operations and time of a window, as the card says them; measured with the bundle that ``folder`` will become."""
    if not (folder / "CARD.md").exists():
        (folder / "CARD.md").touch()
    some = rasters[:: max(1, len(rasters) // COST_WINDOWS)]
    with tempfile.TemporaryDirectory() as scratch:
        bundle = build.build(folder, Path(scratch) / "bundle")
        reference, onnx = ReferenceBackend(), OnnxBackend()
        reference.load(bundle)
        onnx.load(bundle)
        counted, took_ns = [], []
        for raster in some:
            trace = Trace.empty(len(raster), bundle.network.neurons)
            reference.infer(raster, trace=trace)
            counted.append(energy.operations(bundle.network, raster, trace))
            start_ns = time.perf_counter_ns()
            onnx.infer(raster)
            took_ns.append(time.perf_counter_ns() - start_ns)
        onnx.close()
        reference.close()
    synaptic, dense = np.mean([(one.synaptic, one.dense) for one in counted], axis=0)
    return (
        f"Per window of {rasters.shape[1]} steps, mean of {len(some)} test windows: {synaptic / 1e3:.0f} thousand "
        f"synaptic operations\n(done densely {dense / 1e3:.0f} thousand multiplications), "
        f"{np.mean([r.sum() for r in some]):.0f} input spikes; "
        f"{np.median(took_ns) / 1e3:.0f} us on ONNX Runtime\non one core of the virtual machine that trained it. "
        "`axond model bench` tells for your device."
    )


def card(recipe: Recipe, judged: Judgement, texts: Texts, costs: str, minutes: float) -> str:
    """CARD.md."""
    return f"""# {recipe.name} {recipe.version}

{texts.about.strip()}

## Data and licence

{texts.data.strip()}

No recording is part of this bundle; `statistics.npz` has means, covariances and quantiles of hidden activity only.

## Recipe

{texts.how.strip()}

Trained in {max(1.0, minutes):.0f} min on one core of a virtual machine.

## Accuracy

On the test part: float {judged.accuracy_float:.4f}, int8 {judged.accuracy_int8:.4f}.
{texts.more.rstrip()}

Rows are the truth, columns what the int8 model said:

{export.confusion_table(recipe.labels, judged.counts)}

## Cost

{costs}

## Limits and bias

{texts.limits.strip()}
"""
