"""Accuracy of a bundle on labelled recordings: the integer network on a backend, and the float graph beside it."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import nir_graph
from models.base import Backend, BadModel, Encoder
from models.bundle import Bundle
from models.calibrate import float_decisions
from models.datasets.recording import Recording, live_windows
from models.registry import make_encoder
from models.select import softmax
from models.window import WindowSpec


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What ``evaluate`` found. Recordings in which no window began count as wrong, for both networks: a run by its last
    label."""

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


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a backend and the float graph say about windows; -1 where there was no window."""

    truth: npt.NDArray[np.int64]
    decided: npt.NDArray[np.int64]
    by_float: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    """(n, classes) softmax of the potentials at the bundle's temperature."""
    backend_us: float
    """Median time of one window in the backend."""


def evaluate(bundle: Bundle, backend: Backend, recordings: list[Recording]) -> Evaluation:
    """Cut, encode and infer every recording as a live pipeline would. Raises BadModel if a recording does not fit."""
    coded = code(bundle, recordings)
    return summary(coded, decide(bundle, backend, coded))


def code(bundle: Bundle, recordings: list[Recording]) -> "Coded":
    """The windows of ``recordings`` as ``bundle`` wants them. Raises BadModel if a recording does not fit."""
    if not recordings:
        raise BadModel("the data has no recordings")
    unknown = sorted({label for r in recordings for label in _labels(r)} - set(bundle.manifest.labels))
    if unknown:
        raise BadModel(f"the data has labels that {bundle.id} does not know: {', '.join(unknown)}")
    return encode(recordings, make_encoder(bundle, recordings[0].info), bundle.windows)


def decide(bundle: Bundle, backend: Backend, coded: "Coded") -> Decisions:
    """Ask ``backend``, which has loaded ``bundle``, and the float graph."""
    labels = bundle.manifest.labels
    potentials = np.zeros((len(coded.labels), len(labels)), np.int64)
    infer_ns = []
    for i in np.flatnonzero(coded.heard):
        start_ns = time.perf_counter_ns()
        potentials[i] = backend.infer(coded.rasters[i]).sum(axis=0)
        infer_ns.append(time.perf_counter_ns() - start_ns)
    return Decisions(
        truth=np.array([labels.index(label) for label in coded.labels]),
        decided=np.where(coded.heard, potentials.argmax(axis=1), -1),
        by_float=np.where(coded.heard, _decide_float(bundle, coded.rasters), -1),
        scores=np.stack([softmax(row, bundle.manifest.temperature) for row in potentials]),
        backend_us=float(np.median(infer_ns)) / 1e3 if infer_ns else 0.0,
    )


def summary(coded: "Coded", said: Decisions) -> Evaluation:
    """Count."""
    truth, decided, heard = said.truth, said.decided, coded.heard
    classes = said.scores.shape[1]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truth[heard], decided[heard]), 1)
    groups = {}
    for group in sorted(set(coded.groups) - {""}):
        mine = np.array(coded.groups) == group
        groups[group] = (int((decided == truth)[mine].sum()), int(mine.sum()))
    return Evaluation(
        total=len(truth),
        correct=int((decided == truth).sum()),
        correct_float=int((said.by_float == truth).sum()),
        no_window=int((~heard).sum()),
        confusion=confusion,
        groups=groups,
        backend_us=said.backend_us,
        encoder_us=coded.encoder_us,
        disagreements=int((said.by_float != decided).sum()),
    )


@dataclass(frozen=True, slots=True)
class Coded:
    """Windows of recordings as spikes: ``rasters`` (n, steps, features), and of each its label and group."""

    rasters: npt.NDArray[np.uint8]
    labels: list[str]
    groups: list[str]
    heard: npt.NDArray[np.bool_]
    """False for a clip in which no window began; its raster is empty."""
    encoder_us: float
    """Median time of encoding one."""


def encode(recordings: list[Recording], encoder: Encoder, spec: WindowSpec) -> Coded:
    """The windows that a live pipeline would cut and that count. Raises BadModel if a recording does not fit."""
    rasters: list[npt.NDArray[np.uint8]] = []
    labels: list[str] = []
    groups: list[str] = []
    heard: list[bool] = []
    encode_ns = []
    for recording in recordings:
        if recording.info != recordings[0].info:
            raise BadModel(f"{recording.name}: another rate or other channels than {recordings[0].name}")
        windows = live_windows(recording, spec)
        for window, label in windows:
            raster = np.zeros(encoder.shape, np.uint8)
            start_ns = time.perf_counter_ns()
            encoder.encode(window, raster)
            encode_ns.append(time.perf_counter_ns() - start_ns)
            rasters.append(raster)
            labels.append(label)
            heard.append(True)
        if not windows:
            rasters.append(np.zeros(encoder.shape, np.uint8))
            labels.append(recording.label if recording.truth is None else str(recording.truth[-1]))
            heard.append(False)
        groups += [recording.group] * max(1, len(windows))
    encoder_us = float(np.median(encode_ns)) / 1e3 if encode_ns else 0.0
    return Coded(np.stack(rasters), labels, groups, np.array(heard), encoder_us)


def _labels(recording: Recording) -> list[str]:
    if recording.truth is None:
        return [recording.label]
    return [str(label) for label in np.unique(recording.truth)]


def _decide_float(bundle: Bundle, rasters: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    bundle.artefact("network.nir")
    return float_decisions(nir_graph.read(bundle.path / "network.nir"), rasters)
