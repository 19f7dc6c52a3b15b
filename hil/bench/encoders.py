"""The front ends of the shipped models: what each takes of a core at its sensor's rate.

Signals are made. A model that cuts at onsets is charged as if windows followed one another without a pause. Events come
at 100 000 a second, more than a hand-held scene of a small camera gives.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from drivers.packet import EVENT, Packet, SensorInfo
from models.base import Window
from models.bundle import MANIFEST, Bundle, Part
from models.registry import ZOO, open_bundle, part_encoder, stream_encoder_for

EVENTS_HZ = 100_000
PACKETS_HZ = 50
SECOND_NS = 1_000_000_000


def measure(seconds: float) -> dict[str, Any]:
    """Percent of a core, by model and input; ``seconds`` of work in all."""
    bundles = [open_bundle(path.parent.name, []) for path in sorted(ZOO.glob(f"*/{MANIFEST}"))]
    numbers: dict[str, Any] = {"events_per_s": EVENTS_HZ}
    for bundle in bundles:
        for part in bundle.manifest.parts:
            share = _stream if bundle.manifest.state == "carry" else _windows
            key = bundle.manifest.name + (f".{part.name}" if len(bundle.manifest.parts) > 1 else "")
            numbers[f"{key}.percent_of_a_core"] = round(100 * share(bundle, part, seconds / len(bundles)), 3)
    return numbers


def _info(part: Part) -> SensorInfo:
    wanted = part.input
    scale = 1 / 32768 if wanted.family == "audio" else 16 / 32768 if wanted.family == "imu" else 1.0
    units = {"audio": "FS", "imu": "g", "ultrasonic": "mm"}.get(wanted.family, "")
    unit = tuple("deg/s" if name.startswith("g") and wanted.family == "imu" else units for name in wanted.channels)
    return SensorInfo(wanted.family, tuple(wanted.channels), unit, (scale,) * len(unit), wanted.rate_hz)


def _samples(info: SensorInfo, count: int) -> Any:
    """``count`` samples, or events in so many microseconds."""
    rng = np.random.default_rng(1)
    if info.family != "event_camera":
        swing = {"audio": 3000, "imu": 2000}.get(info.family, 1500)
        return np.abs(rng.normal(0, swing, (count, len(info.channels)))).astype(np.int16)
    events = np.zeros(count * EVENTS_HZ // 1_000_000, EVENT)
    events["t_ns"] = np.sort(rng.integers(0, count * 1000, len(events)))
    events["x"], events["y"], events["on"] = (rng.integers(0, n, len(events)) for n in (34, 34, 2))
    return events


def _windows(bundle: Bundle, part: Part, seconds: float) -> float:
    """Time of encoding a window over the time from one to the next."""
    spec, info = part.window, _info(part)
    if spec is None:
        return 0.0
    encoder = part_encoder(bundle.manifest.name, part, info, str(bundle.path))
    length_ns = round(spec.samples / info.rate_hz * SECOND_NS)
    events = info.family == "event_camera"
    window = Window(
        0, 0 if events else length_ns // spec.samples, _samples(info, spec.samples), info, span_ns=length_ns
    )
    raster = np.zeros(encoder.shape, np.uint8)
    took_ns: list[int] = []
    end_ns = time.perf_counter_ns() + int(seconds * 1e9)
    while not took_ns or time.perf_counter_ns() < end_ns:
        start_ns = time.perf_counter_ns()
        encoder.encode(window, raster)
        took_ns.append(time.perf_counter_ns() - start_ns)
    every_ns = round((spec.hop or spec.samples) / info.rate_hz * SECOND_NS)
    return float(np.median(took_ns)) / every_ns


def _stream(bundle: Bundle, part: Part, seconds: float) -> float:
    """Time of pushing packets over the time that is in them."""
    info = _info(part)
    encoder = stream_encoder_for(bundle.manifest, bundle.network.features, info, str(bundle.path))
    end_ns = time.perf_counter_ns() + int(seconds * 1e9)
    busy_ns = heard_ns = 0
    for packet in _packets(info):
        if time.perf_counter_ns() >= end_ns and heard_ns:
            break
        start_ns = time.perf_counter_ns()
        encoder.push(packet)
        busy_ns += time.perf_counter_ns() - start_ns
        heard_ns += SECOND_NS // PACKETS_HZ
    return busy_ns / heard_ns


def _packets(info: SensorInfo) -> Iterator[Packet]:
    count = round(info.rate_hz) // PACKETS_HZ
    whole = _samples(info, count * PACKETS_HZ)
    dt_ns = 0 if whole.dtype == EVENT else round(SECOND_NS / info.rate_hz)
    seq = 0
    while True:
        for part in np.array_split(whole, PACKETS_HZ):
            t0_ns = seq * SECOND_NS // PACKETS_HZ
            data = part
            if dt_ns == 0:
                data = part.copy()
                data["t_ns"] += seq // PACKETS_HZ * SECOND_NS
            yield Packet("made", seq, t0_ns, dt_ns, data)
            seq += 1
