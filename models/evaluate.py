"""Accuracy of a bundle on labelled recordings: the integer network on a backend, and the float graph beside it."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import nir_graph
from models.base import Backend, BadModel, Encoder
from models.bundle import Bundle
from models.calibrate import float_decisions
from models.datasets import Recording, live_window
from models.registry import make_encoder
from models.window import WindowSpec


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
    rasters, heard, encoder_us = encode(recordings, encoder, bundle.windows)
    decided = np.full(len(recordings), -1)
    infer_ns = []
    for i in np.flatnonzero(heard):
        start_ns = time.perf_counter_ns()
        decided[i] = int(backend.infer(rasters[i]).sum(axis=0).argmax())
        infer_ns.append(time.perf_counter_ns() - start_ns)
    truth = np.array([labels.index(r.label) for r in recordings])
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
        encoder_us=encoder_us,
        disagreements=int(((by_float != decided) & heard).sum()),
    )


def encode(
    recordings: list[Recording], encoder: Encoder, spec: WindowSpec
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], float]:
    """Rasters (n, steps, features) of the windows that a live pipeline would cut, in which recordings one began, and
    the median time of encoding one, in us. Raises BadModel if a recording does not fit."""
    rasters = np.zeros((len(recordings), *encoder.shape), np.uint8)
    heard = np.zeros(len(recordings), np.bool_)
    encode_ns = []
    for i, recording in enumerate(recordings):
        if recording.info != recordings[0].info:
            raise BadModel(f"{recording.name}: another rate or other channels than {recordings[0].name}")
        window = live_window(recording, spec)
        if window is not None:
            start_ns = time.perf_counter_ns()
            encoder.encode(window, rasters[i])
            encode_ns.append(time.perf_counter_ns() - start_ns)
            heard[i] = True
    return rasters, heard, float(np.median(encode_ns)) / 1e3 if encode_ns else 0.0


def _decide_float(bundle: Bundle, rasters: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    bundle.artefact("network.nir")
    return float_decisions(nir_graph.read(bundle.path / "network.nir"), rasters)
