"""Shipped models beside the small int8 CNN that a user would otherwise pick: same test windows, same run, one core.

The CNNs are made by ``make compare`` (DS-CNN class, full-integer TFLite, trained on the same recordings with the same
augmentation) and lie in ``build/compare/NAME.tflite``. Times are of the front end and of the network apart; ours runs
on ONNX Runtime.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.cli.command import CommandError
from hil.compare.tasks import TASKS, Task
from models.datasets.load import find, load
from models.datasets.recording import live_windows
from models.registry import make_encoder, open_bundle
from models.select import load_backend

FOLDER = Path("build/compare")


def measure(_seconds: float) -> dict[str, Any]:
    """Every model for which there are both a CNN and recordings. Raises CommandError when there is none."""
    numbers: dict[str, Any] = {}
    for name, task in TASKS.items():
        graph, folder = FOLDER / f"{name}.tflite", find(task.dataset)
        if graph.is_file() and folder is not None:
            numbers |= {f"{name}.{key}": value for key, value in _compare(name, task, graph, folder).items()}
    if not numbers:
        raise CommandError(f"{FOLDER}: no CNN is there, or no recordings are found; run make compare")
    return numbers


def _compare(name: str, task: Task, graph: Path, folder: Path) -> dict[str, Any]:
    bundle = open_bundle(name, [])
    recordings = load(folder, "test")
    pairs = [pair for recording in recordings for pair in live_windows(recording, bundle.windows)]
    truth = np.array([bundle.manifest.labels.index(label) for _, label in pairs])
    missed = sum(not live_windows(recording, bundle.windows) for recording in recordings if recording.truth is None)
    encoder = make_encoder(bundle, recordings[0].info)
    raster = np.zeros(encoder.shape, np.uint8)
    _, backend = load_backend(bundle, "onnx")
    cnn = Cnn(graph)
    ours, theirs = _Clock(), _Clock()
    right = np.zeros(2, np.int64)
    for (window, _), label in zip(pairs, truth, strict=True):
        ours.begin()
        encoder.encode(window, raster)
        ours.front_done()
        said = int(backend.infer(raster).sum(axis=0).argmax())
        ours.network_done()
        theirs.begin()
        features = task.front(window)
        theirs.front_done()
        other = cnn.decide(features)
        theirs.network_done()
        right += said == label, other == label
    backend.close()
    total = len(truth) + missed
    return {
        "windows": total,
        "accuracy": round(int(right[0]) / total, 4),
        "cnn_accuracy": round(int(right[1]) / total, 4),
        **ours.medians(""),
        **theirs.medians("cnn_"),
        "bytes": (bundle.path / "network.npz").stat().st_size,
        "cnn_bytes": graph.stat().st_size,
    }


class Cnn:
    """A full-integer TFLite graph on LiteRT, one thread, XNNPACK."""

    def __init__(self, graph: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(graph), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input, self._output = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        self._scale, self._zero = self._input["quantization"]

    def decide(self, features: npt.NDArray[np.float32]) -> int:
        """Class of (rows, columns, channels)."""
        coded = np.clip(np.rint(features / self._scale + self._zero), -128, 127).astype(np.int8)
        self._interpreter.set_tensor(self._input["index"], coded[None])
        self._interpreter.invoke()
        return int(self._interpreter.get_tensor(self._output["index"])[0].argmax())


class _Clock:
    """Front end and network of one contender."""

    def __init__(self) -> None:
        self._front_ns: list[int] = []
        self._network_ns: list[int] = []
        self._at_ns = 0

    def begin(self) -> None:
        self._at_ns = time.perf_counter_ns()

    def front_done(self) -> None:
        now_ns = time.perf_counter_ns()
        self._front_ns.append(now_ns - self._at_ns)
        self._at_ns = now_ns

    def network_done(self) -> None:
        self._network_ns.append(time.perf_counter_ns() - self._at_ns)

    def medians(self, prefix: str) -> dict[str, float]:
        return {
            f"{prefix}front_us": round(float(np.median(self._front_ns)) / 1e3, 1),
            f"{prefix}network_us": round(float(np.median(self._network_ns)) / 1e3, 1),
        }
