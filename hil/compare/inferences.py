"""Do two machines decide the same? One makes a minute of what the demo's sensors see, both decide on it, bit for bit.

    python -m hil.compare.inferences make FOLDER        three recordings: speech, motion, events
    python -m hil.compare.inferences decide FOLDER      each inference as a line of JSON, to standard output

A line has everything that could differ: spikes of the encoder, integer potentials of the network, label and score.
"""

import argparse
import hashlib
import heapq
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers import recording
from drivers.packet import EVENT, Packet, SensorInfo
from hil.demo.sights import shown
from hil.demo.stimuli import Stimulus, body_motion, digits
from models.base import Backend, Inference, Outputs, Raster, State, Trace
from models.bundle import Bundle
from models.datasets.nmnist import CAMERA_INFO
from models.datasets.recording import IMU_INFO, audio_info
from models.fused import FusedSession
from models.registry import make_backend, open_bundle
from models.session import Session

SECONDS = 60.0
SEED = 7
PACKET_NS = 20_000_000
BEGIN_NS = 1_000_000_000
BACKENDS = ("reference", "onnx", "tflite")
SENSORS = {"spoken-digits": ("mic",), "activity": ("imu",), "event-digits": ("cam",), "fused-digits": ("mic", "cam")}
"""Models of the demo and the sensors that they take."""
Recordings = dict[str, recording.Recording]


class Watched:
    """A backend that keeps what it was asked and what it answered last."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.spikes = self.potentials = ""

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        outputs = self._backend.infer(raster, state, trace)
        self.spikes, self.potentials = _digest(raster), _digest(outputs.astype("<i4"))
        return outputs


def _digest(array: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def make(folder: Path, seconds: float) -> None:
    """Write the recordings; on another machine, or where other voices are installed, they would be others."""
    words = digits(seconds, SEED)
    _save(folder / "mic.npz", "mic", audio_info(int(words.rate_hz)), words)
    _save(folder / "imu.npz", "imu", IMU_INFO, body_motion(seconds, SEED))
    sight = shown(words, SEED)
    events = np.zeros(len(sight.t_us), EVENT)
    events["t_ns"] = sight.t_us * 1000 + BEGIN_NS
    events["x"], events["y"], events["on"] = sight.x, sight.y, sight.on
    edges = np.arange(BEGIN_NS, int(events["t_ns"][-1]) + PACKET_NS, PACKET_NS)
    parts = np.split(events, np.searchsorted(events["t_ns"], edges[1:]))
    packets = [Packet("cam", i, int(edges[i]), 0, part) for i, part in enumerate(parts) if len(part)]
    recording.save(folder / "cam.npz", CAMERA_INFO, packets)


def _save(path: Path, name: str, info: SensorInfo, stimulus: Stimulus) -> None:
    dt_ns = round(1e9 / stimulus.rate_hz)
    each = max(1, PACKET_NS // dt_ns)
    packets = [
        Packet(name, seq, BEGIN_NS + at * dt_ns, dt_ns, stimulus.data[at : at + each])
        for seq, at in enumerate(range(0, len(stimulus.data), each))
    ]
    recording.save(path, info, packets)


def decide(folder: Path) -> Iterator[dict[str, Any]]:
    """Each inference of each model on each backend, in an order that is always the same."""
    heard = {name: recording.load(folder / f"{name}.npz") for name in ("mic", "imu", "cam")}
    for model, sensors in SENSORS.items():
        bundle = open_bundle(model, [])
        for kind in BACKENDS:
            with closing(make_backend(kind)) as backend:
                backend.load(bundle)
                watched = Watched(backend)
                for inference in _inferences(bundle, watched, [heard[name] for name in sensors]):
                    yield {
                        "model": bundle.id,
                        "backend": kind,
                        "t0_ns": inference.t0_ns,
                        "end_ns": inference.end_ns,
                        "label": inference.label,
                        "score": inference.score.hex(),
                        "lost": inference.lost,
                        "input_spikes": inference.input_spikes,
                        "quality": inference.quality,
                        "missing": inference.missing,
                        "spikes": watched.spikes,
                        "potentials": watched.potentials,
                    }


def _inferences(bundle: Bundle, backend: Any, heard: Sequence[recording.Recording]) -> Iterator[Inference]:
    if len(heard) > 1:
        fused = FusedSession(bundle, backend, [each.info for each in heard])
        live = [True] * len(heard)
        for end_ns, index, packet in heapq.merge(*(_arrivals(i, each) for i, each in enumerate(heard))):
            fused.push(index, packet)
            yield from fused.tick(end_ns, live)
        return
    session = Session(bundle, backend, heard[0].info)
    for end_ns, _, packet in _arrivals(0, heard[0]):
        yield from session.push(packet)
        if not packet.dt_ns:
            yield from session.advance(end_ns)


def _arrivals(index: int, heard: recording.Recording) -> Iterator[tuple[int, int, Packet]]:
    """Each packet with the time at which a live sensor would have given it."""
    for packet in heard.packets:
        yield packet.t0_ns + (packet.dt_ns * len(packet.data) or PACKET_NS), index, packet


def main() -> int:
    parser = argparse.ArgumentParser(description="Do two machines decide the same?")
    parser.add_argument("action", choices=("make", "decide"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    if options.action == "make":
        make(options.folder, options.seconds)
    else:
        for row in decide(options.folder):
            sys.stdout.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
