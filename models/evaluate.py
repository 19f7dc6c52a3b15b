"""Accuracy of a bundle on labelled recordings: the integer network on a backend, and the float graph beside it."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import float_network, nir_graph
from models.base import Backend, BadModel
from models.bundle import Bundle
from models.datasets import Recording, live_window
from models.registry import make_encoder

_FLOAT_BATCH = 64


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What ``evaluate`` found. Recordings in which no window began count as wrong, for both networks."""

    total: int
    correct: int
    correct_float: int
    no_window: int
    confusion: npt.NDArray[np.int64]
    """(labels, labels): true class by row, decided class by column; recordings without a window are in no column."""
    groups: dict[str, tuple[int, int]]
    """Group (speaker) -> (correct, total)."""
    backend_us: float
    """Median time of one window in the backend."""
    encoder_us: float
    disagreements: int
    """Windows which the integer and the float network label differently."""


def evaluate(bundle: Bundle, backend: Backend, recordings: list[Recording]) -> Evaluation:
    """Cut, encode and infer every recording as a live pipeline would. Raises BadModel if a recording does not fit."""
    labels = bundle.manifest.labels
    unknown = sorted({r.label for r in recordings} - set(labels))
    if unknown:
        raise BadModel(f"the data has labels that {bundle.id} does not know: {', '.join(unknown)}")
    if not recordings:
        raise BadModel("the data has no recordings")
    encoder = make_encoder(bundle, recordings[0].info)
    rasters = np.zeros((len(recordings), *encoder.shape), np.uint8)
    decided = np.full(len(recordings), -1)
    infer_ns, encode_ns = [], []
    for i, recording in enumerate(recordings):
        if recording.info != recordings[0].info:
            raise BadModel(f"{recording.name}: another rate or other channels than {recordings[0].name}")
        window = live_window(recording, bundle.windows)
        if window is None:
            continue
        start_ns = time.perf_counter_ns()
        encoder.encode(window, rasters[i])
        encoded_ns = time.perf_counter_ns()
        decided[i] = int(backend.infer(rasters[i]).sum(axis=0).argmax())
        infer_ns.append(time.perf_counter_ns() - encoded_ns)
        encode_ns.append(encoded_ns - start_ns)
    truth = np.array([labels.index(r.label) for r in recordings])
    heard = decided >= 0
    by_float = _decide_float(bundle, rasters)
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (truth[heard], decided[heard]), 1)
    groups = {}
    for group in sorted({r.group for r in recordings} - {""}):
        mine = np.array([r.group == group for r in recordings])
        groups[group] = (int((decided == truth)[mine].sum()), int(mine.sum()))
    return Evaluation(
        total=len(recordings),
        correct=int((decided == truth).sum()),
        correct_float=int(((by_float == truth) & heard).sum()),
        no_window=int((~heard).sum()),
        confusion=confusion,
        groups=groups,
        backend_us=float(np.median(infer_ns)) / 1e3 if infer_ns else 0.0,
        encoder_us=float(np.median(encode_ns)) / 1e3 if encode_ns else 0.0,
        disagreements=int(((by_float != decided) & heard).sum()),
    )


def _decide_float(bundle: Bundle, rasters: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    bundle.artefact("network.nir")
    network = nir_graph.read(bundle.path / "network.nir")
    parts = [
        float_network.run(network, rasters[i : i + _FLOAT_BATCH]).readout.argmax(axis=1)
        for i in range(0, len(rasters), _FLOAT_BATCH)
    ]
    return np.concatenate(parts).astype(np.int64)
