"""Made bundles that fuse sensors, and made sensors whose packets come as they would live."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drivers.packet import EVENT, Packet, SensorInfo
from models.build import manifest_of
from models.bundle import Bundle
from models.datasets.nmnist import CAMERA_INFO
from models.datasets.recording import IMU_INFO, audio_info
from models.fused import FusedEncoder, FusedSession
from tests.models import networks

AUDIO_INFO = audio_info(8000)
AUDIO = {
    "name": "audio",
    "input": {"family": "audio", "channels": ["mono"], "rate_hz": 8000.0},
    "window": {"mode": "onset", "samples": 4000, "pre": 400},
    "encoder": {"kind": "audio_mel"},
}
EVENTS = {
    "name": "events",
    "input": {"family": "event_camera", "channels": ["x", "y", "on"], "rate_hz": 1e6},
    "window": {"mode": "onset", "samples": 500_000, "pre": 50_000},
    "encoder": {"kind": "event_bins", "width": 128, "height": 128, "pool": 16, "step_us": 12_500},
}
MOTION = {
    "name": "motion",
    "input": {"family": "imu", "channels": list(IMU_INFO.channels), "rate_hz": 50.0},
    "window": {"mode": "time", "samples": 128, "hop": 64},
    "encoder": {"kind": "imu_delta"},
}
LIVE = (True, True)
SPAN_NS = 500_000_000
LATE_MS = 150.0
S = 1_000_000_000


def recipe(*inputs: dict[str, Any], late_ms: float = LATE_MS) -> dict[str, Any]:
    """Of a made fused model."""
    return {
        "name": "made-fused",
        "version": "1.0.0",
        "inputs": list(inputs),
        "late_ms": late_ms,
        "labels": ["c0", "c1", "c2"],
        "state": "reset",
        "temperature": 1000.0,
    }


def write(folder: Path, *inputs: dict[str, Any], infos: Sequence[SensorInfo] = (AUDIO_INFO, CAMERA_INFO)) -> Bundle:
    """A bundle with a random network: what it says means nothing, but it is always the same."""
    document = recipe(*(inputs or (AUDIO, EVENTS)))
    encoder = FusedEncoder(manifest_of(document), infos, "made")
    network = networks.random_network(np.random.default_rng(8), encoder.shape[1])
    alone = {"input": None, "window": None, "encoder": None}
    return networks.write_bundle(folder / "made-fused", network, **alone, **document)


def sound(seconds: float, onsets_s: Iterable[float], *, noise: float = 3.0) -> np.ndarray:
    """(n, 1) int16: tone bursts of 0.3 s in noise."""
    t = np.arange(round(seconds * 8000))
    out = np.random.default_rng(1).normal(0, noise, len(t))
    for onset_s in onsets_s:
        first, stop = round(onset_s * 8000), round((onset_s + 0.3) * 8000)
        out[first:stop] += 8000 * np.sin(t[first:stop] * (0.2 + 0.1 * (onset_s % 1)))
    return out.astype(np.int16)[:, None]


def flashes(onsets_s: Iterable[float], *, count: int = 1500) -> np.ndarray:
    """EVENT[n]: so many events in 0.3 s from each onset on; time 0 is capture time 0."""
    rng = np.random.default_rng(2)
    parts = []
    for onset_s in onsets_s:
        part = np.zeros(count, EVENT)
        part["t_ns"] = np.sort(rng.integers(round(onset_s * S), round((onset_s + 0.3) * S), count))
        part["x"], part["y"], part["on"] = (rng.integers(0, most, count) for most in (128, 128, 2))
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros(0, EVENT)


@dataclass(frozen=True)
class Delivery:
    """A packet on its way: whose it is, and when it comes."""

    index: int
    at_ns: int
    packet: Packet


def sampled(index: int, data: np.ndarray, rate_hz: float, *, size: int = 256, delay_ns: int = 0) -> list[Delivery]:
    """Packets of ``size`` samples, each there when its last sample is measured, and ``delay_ns`` later."""
    dt_ns = round(S / rate_hz)
    found = []
    for seq, first in enumerate(range(0, len(data), size)):
        part = data[first : first + size].copy()
        end_ns = (first + len(part)) * dt_ns
        found.append(Delivery(index, end_ns + delay_ns, Packet("s", seq, first * dt_ns, dt_ns, part)))
    return found


def evented(index: int, events: np.ndarray, *, slice_ns: int = 4_000_000, delay_ns: int = 0) -> list[Delivery]:
    """A packet for each slice of time that has events."""
    found = []
    slices = events["t_ns"] // slice_ns
    for seq, number in enumerate(np.unique(slices)):
        part = events[slices == number].copy()
        packet = Packet("e", seq, int(part["t_ns"][0]), 0, part)
        found.append(Delivery(index, int(number + 1) * slice_ns + delay_ns, packet))
    return found


def play(
    session: FusedSession,
    deliveries: Iterable[Delivery],
    *,
    live: Sequence[bool] = LIVE,
    until_s: float = 0.0,
    tick_ns: int = 20_000_000,
) -> list[Any]:
    """What the session infers while the packets come one by one, and the clock ticks in between."""
    ordered = sorted(deliveries, key=lambda d: d.at_ns)
    end_ns = max([d.at_ns for d in ordered] + [round(until_s * S)])
    results, at = list(session.tick(0, live)), 0
    for now_ns in range(0, end_ns + tick_ns, tick_ns):
        while at < len(ordered) and ordered[at].at_ns <= now_ns:
            session.push(ordered[at].index, ordered[at].packet)
            results += session.tick(ordered[at].at_ns, live)
            at += 1
        results += session.tick(now_ns, live)
    return results
