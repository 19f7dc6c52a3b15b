"""Accuracy of a bundle that decides on a stream, on labelled clips, each from rest; and what its detector tells."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.packet import Packet
from models import float_network, nir_graph
from models.base import Backend, BadModel, Raster, StreamEncoder
from models.bundle import Bundle
from models.datasets.recording import Recording
from models.detect import Detector
from models.registry import make_stream_encoder

Scores = npt.NDArray[np.float64]
"""(steps, classes), softmax."""


@dataclass(frozen=True, slots=True)
class StreamEvaluation:
    """What ``evaluate_stream`` found. Clips without a time step count as wrong, for both networks."""

    total: int
    correct: int
    correct_float: int
    no_window: int
    """Clips too short for one time step."""
    confusion: npt.NDArray[np.int64]
    """(labels, labels): true class by row, decided class by column; clips without a step are in no column."""
    groups: dict[str, tuple[int, int]]
    """Group (speaker) -> (correct, total)."""
    backend_us: float
    """Median over the clips of the time of one step in the backend."""
    encoder_us: float
    """The same in the encoder."""
    disagreements: int
    """Clips which the integer and the float network label differently."""
    hits: int | None
    """Clips whose label the detector told; None without the bundle's part ``detect``."""
    false_alarms: int | None
    """Its other detections: of another label, or once more."""
    seconds: float
    """Length of all clips."""


def evaluate_stream(bundle: Bundle, backend: Backend, recordings: list[Recording]) -> StreamEvaluation:
    """Stream every clip from rest, as its sensor would send it, and silence for the length of the readout behind it.

    Its class is, where the bundle has a part ``detect``, the label with the highest score at any step, those that are
    never reported aside; else the decision at the last step. Raises BadModel if a recording does not fit.
    """
    manifest = bundle.manifest
    labels, detect = manifest.labels, manifest.detect
    unknown = sorted({r.label for r in recordings} - set(labels))
    if unknown:
        raise BadModel(f"the data has labels that {bundle.id} does not know: {', '.join(unknown)}")
    if not recordings:
        raise BadModel("the data has no recordings")
    bundle.artefact("network.nir")
    floats = nir_graph.read(bundle.path / "network.nir")
    decided, by_float = np.full(len(recordings), -1), np.full(len(recordings), -1)
    encode_us, infer_us = [], []
    hits = false_alarms = 0
    for i, recording in enumerate(recordings):
        encoder = make_stream_encoder(bundle, recording.info)
        start_ns = time.perf_counter_ns()
        raster = _steps(encoder, recording, manifest.readout_steps)
        encoded_ns = time.perf_counter_ns()
        if not len(raster):
            continue
        outputs = backend.infer(raster).astype(np.float64)
        infer_us.append((time.perf_counter_ns() - encoded_ns) / 1e3 / len(raster))
        encode_us.append((encoded_ns - start_ns) / 1e3 / len(raster))
        found = scores(outputs, manifest.readout_steps, manifest.temperature)
        decided[i] = _decision(bundle, found)
        exact = float_network.run(floats, raster[None])
        plain = exact.v_last[0] if floats.layers[-1].threshold is None else exact.spikes[-1][0].astype(np.float64)
        plain = plain * _unit(outputs, plain)
        by_float[i] = _decision(bundle, scores(plain, manifest.readout_steps, manifest.temperature))
        if detect is not None:
            told = [label for _, label in detections(Detector(detect), found, labels, encoder.step_ns)]
            hits += recording.label in told
            false_alarms += len(told) - (recording.label in told)
    truth = np.array([labels.index(r.label) for r in recordings])
    heard = decided >= 0
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (truth[heard], decided[heard]), 1)
    groups = {}
    for group in sorted({r.group for r in recordings} - {""}):
        mine = np.array([r.group == group for r in recordings])
        groups[group] = (int((decided == truth)[mine].sum()), int(mine.sum()))
    return StreamEvaluation(
        total=len(recordings),
        correct=int((decided == truth).sum()),
        correct_float=int((by_float == truth).sum()),
        no_window=int((~heard).sum()),
        confusion=confusion,
        groups=groups,
        backend_us=float(np.median(infer_us)) if infer_us else 0.0,
        encoder_us=float(np.median(encode_us)) if encode_us else 0.0,
        disagreements=int((by_float != decided).sum()),
        hits=None if detect is None else hits,
        false_alarms=None if detect is None else false_alarms,
        seconds=sum(_seconds(r) for r in recordings),
    )


def scores(outputs: npt.NDArray[np.float64], readout_steps: int, temperature: float) -> Scores:
    """Softmax at each step of the sums of ``outputs`` (steps, classes) over the last ``readout_steps`` steps."""
    total = np.concatenate([np.zeros((1, outputs.shape[1])), np.cumsum(outputs, axis=0)])
    end = np.arange(1, len(total))
    logits = (total[end] - total[np.maximum(end - readout_steps, 0)]) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    made: Scores = powers / powers.sum(axis=1, keepdims=True)
    return made


def detections(detector: Detector, found: Scores, labels: list[str], step_ns: int) -> list[tuple[int, str]]:
    """Step and label of each detection in scores that follow those of the last call."""
    best = found.argmax(axis=1)
    return [
        (step, labels[i])
        for step, i in enumerate(best.tolist())
        if detector.hears(labels[i], float(found[step, i]), (step + 1) * step_ns)
    ]


def _steps(encoder: StreamEncoder, recording: Recording, behind: int) -> Raster:
    info = recording.info
    dt_ns = round(1e9 / info.rate_hz)
    data = recording.data
    if info.family != "event_camera":
        silence = np.zeros((round(behind * encoder.step_ns / dt_ns), data.shape[1]), data.dtype)
        data = np.concatenate([data, silence])
    t0_ns = int(data["t_ns"][0]) if info.family == "event_camera" else 0
    packet = Packet(recording.name, 0, t0_ns, 0 if info.family == "event_camera" else dt_ns, data)
    return encoder.push(packet).raster


def _seconds(recording: Recording) -> float:
    if recording.info.family == "event_camera":
        return float(np.ptp(recording.data["t_ns"])) / 1e9
    return len(recording.data) / recording.info.rate_hz


def _decision(bundle: Bundle, found: Scores) -> int:
    manifest = bundle.manifest
    if manifest.detect is None:
        return int(found[-1].argmax())
    ignored = [manifest.labels.index(label) for label in manifest.detect.ignore]
    best = found.max(axis=0)
    best[ignored] = -1
    return int(best.argmax())


def _unit(outputs: npt.NDArray[np.float64], plain: npt.NDArray[np.float64]) -> float:
    """Integer units in one of the float network's, by least squares: the scores are of the integer potentials."""
    power = float((plain**2).sum())
    return float((outputs * plain).sum()) / power if power else 1.0
