"""Packets in, positions or echo ranges out: what a pipeline with ``locate`` in the place of a model runs."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from drivers.packet import Packet, SensorInfo
from models.base import BadModel, Inference
from models.locate import classes, echo
from models.locate.classes import NOTHING
from models.locate.geometry import Floats, Geometry
from models.locate.kalman import Estimate, Tracker
from models.locate.multilateration import Multilateration

AXES = "xyz"
DEFAULT_NOISE_MM = 10.0
DEFAULT_ACCELERATION_MM_S2 = 1000.0
ECHO = "echo"
"""The label of a ping with an echo where no classes were learnt."""
WARM_UP_MM = 1000.0


@dataclass(frozen=True, slots=True)
class LocateSpec:
    """``[pipelines.NAME.locate]``: what is needed depends on what the sensor gives, distances or echo waveforms."""

    geometry_mm: tuple[tuple[float, ...], ...] = ()
    """Of an array: a position per channel."""
    noise_mm: float = DEFAULT_NOISE_MM
    """Of an array: standard deviation of a good distance."""
    acceleration_mm_s2: float = DEFAULT_ACCELERATION_MM_S2
    """Of an array: standard deviation of the object's acceleration."""
    sound_m_s: float | None = None
    """Of waveforms; None for 343 m/s, which is at 20 degC (0.6 m/s more for each degree)."""
    classes: Path | None = None
    """Of waveforms: what ``axond locate learn`` wrote."""


@dataclass(frozen=True, slots=True)
class Located:
    """One result: what all inferences have, and the columns of its own."""

    inference: Inference
    """``label`` and ``score`` say the tracker's state and quality, or the object's class."""
    columns: Mapping[str, int | float | str]


class RangeSession:
    """Distances of an array to the position of one object, at every row of a packet."""

    given_up_samples = 0

    def __init__(self, spec: LocateSpec, info: SensorInfo) -> None:
        """Raises BadModel when sensor and geometry do not fit, or scipy is missing."""
        if info.family != "ultrasonic" or set(info.units) != {"mm"}:
            given = f"{info.family} in {', '.join(sorted(set(info.units)))}"
            raise BadModel(f"an ultrasonic sensor with distances in mm is needed, this one gives {given}")
        if spec.sound_m_s is not None or spec.classes is not None:
            raise BadModel("sound_m_s and classes are for sensors that give echo waveforms; this one gives distances")
        if not spec.geometry_mm:
            raise BadModel("geometry_mm is missing: the position of each transducer, [[0, 0], [1000, 0], ...]")
        if len({len(place) for place in spec.geometry_mm}) > 1:
            raise BadModel("geometry_mm: expected a list of positions, all with 2 or all with 3 coordinates")
        geometry = Geometry(np.array(spec.geometry_mm, np.float64))
        if geometry.count != len(info.channels):
            raise BadModel(
                f"geometry_mm has {geometry.count} positions, the sensor has {len(info.channels)} channels: one each"
            )
        self._geometry = geometry
        self._multilateration = Multilateration(geometry, spec.noise_mm)
        self._tracker = Tracker(self._multilateration, spec.acceleration_mm_s2)
        self._acceleration_mm_s2 = spec.acceleration_mm_s2
        self._names = np.array(info.channels)
        self._scale: Floats = np.array(info.scale, np.float64)

    @property
    def columns(self) -> dict[str, str]:
        """Names and units of the columns of its own."""
        axes = AXES[: self._geometry.dimensions]
        pairs = [a + b for i, a in enumerate(axes) for b in axes[i:]]
        return {
            **{f"{axis}_mm": "mm, in the coordinates of the geometry" for axis in axes},
            **{f"v{axis}_mm_s": "mm/s" for axis in axes},
            "sigma_mm": "mm, root of the summed variances of the position",
            **{f"cov_{pair}_mm2": "mm2, covariance of the position" for pair in pairs},
            "used": "distances that fit the position",
            "rejected": "channels whose distance does not fit, parted by blanks",
        }

    def warm_up(self) -> None:
        """Go through everything once, so that the first real row does not pay for first times."""
        away = self._geometry.front if self._geometry.front is not None else np.eye(self._geometry.dimensions)[0]
        ranges_mm, _ = self._geometry.lines(self._geometry.centre_mm + WARM_UP_MM * away)
        tracker = Tracker(self._multilateration, self._acceleration_mm_s2)
        for step in range(4):
            tracker.step(step, ranges_mm)

    def push(self, packet: Packet) -> Iterator[Located]:
        """Take a packet; yield where the object is at each row, as long as that is known."""
        _check(packet, len(self._names))
        rows = packet.data.astype(np.float64) * self._scale
        for index, ranges_mm in enumerate(rows):
            ready_ns = time.monotonic_ns()
            t_ns = packet.t0_ns + index * packet.dt_ns
            estimate = self._tracker.step(t_ns, ranges_mm)
            if estimate is not None:
                lost = 0 if index else packet.lost
                inference = _inference(t_ns, packet.dt_ns, estimate.state, estimate.quality, lost, ready_ns)
                yield Located(inference, self._row(estimate))

    def _row(self, estimate: Estimate) -> dict[str, int | float | str]:
        covariance = estimate.covariance_mm2
        upper = covariance[np.triu_indices(len(covariance))]
        values = (
            *estimate.position_mm.tolist(),
            *estimate.velocity_mm_s.tolist(),
            float(np.sqrt(np.trace(covariance))),
            *upper.tolist(),
        )
        used = int(np.count_nonzero(estimate.accepted))
        rejected = " ".join(self._names[estimate.rejected].tolist())
        return dict(zip(self.columns, (*(round(value, 1) for value in values), used, rejected), strict=True))


class EchoSession:
    """Echo waveforms of one transducer to ranges and, where classes were learnt, the kind of object; at every ping."""

    given_up_samples = 0
    columns: Mapping[str, str] = {
        "range_mm": "mm to the nearest echo, null where there is none",
        "echoes": "how many were found",
        "ranges_mm": "mm to each of them, parted by blanks",
        "width_us": "us, width of the nearest echo at half its height",
        "level_db": "dB, height of the nearest echo above the noise floor",
    }

    def __init__(self, spec: LocateSpec, info: SensorInfo) -> None:
        """Raises BadModel when the sensor gives no waveforms, or the classes cannot be read."""
        self._sample_hz = echo.sample_rate_hz(info)
        if spec.geometry_mm:
            raise BadModel("geometry_mm is for arrays that give distances; this sensor gives echo waveforms")
        self._samples = len(info.channels)
        self._sound_m_s = spec.sound_m_s or echo.SOUND_M_S
        self._classes = classes.load(spec.classes) if spec.classes else None

    def warm_up(self) -> None:
        """Go through everything once, so that the first real ping does not pay for first times."""
        noise = np.random.default_rng(0).integers(-99, 99, (1, self._samples)).astype(np.int16)
        echo.find_echoes(echo.envelope(noise, self._sample_hz)[0], self._sample_hz)

    def push(self, packet: Packet) -> Iterator[Located]:
        """Take a packet; yield what came back of each ping."""
        _check(packet, self._samples)
        curves = echo.envelope(packet.data, self._sample_hz)
        for index, curve in enumerate(curves):
            ready_ns = time.monotonic_ns()
            found = echo.find_echoes(curve, self._sample_hz, self._sound_m_s)
            label, score = self._name(curve, found)
            lost = 0 if index else packet.lost
            t_ns = packet.t0_ns + index * packet.dt_ns
            yield Located(_inference(t_ns, packet.dt_ns, label, score, lost, ready_ns), _echo_row(found))

    def _name(self, curve: Floats, found: echo.Echoes) -> tuple[str, float]:
        if not len(found.range_mm):
            return NOTHING, 1.0
        if self._classes is None:
            height = float(found.amplitude[0])
            return ECHO, height / (height + found.floor)
        return self._classes.classify(classes.features(curve, found, self._sample_hz))


LocateSession: TypeAlias = RangeSession | EchoSession


def open_locate(spec: LocateSpec, info: SensorInfo) -> LocateSession:
    """The session for what the sensor gives. Raises BadModel when the two do not fit."""
    waveforms = info.family == "ultrasonic" and "FS" in info.units
    return EchoSession(spec, info) if waveforms else RangeSession(spec, info)


def _check(packet: Packet, channels: int) -> None:
    if packet.data.ndim != 2 or packet.data.shape[1] != channels:
        raise BadModel(
            f"a packet of {packet.sensor!r} has shape {packet.data.shape}, expected (n, {channels}) as its info says"
        )


def _inference(t_ns: int, dt_ns: int, label: str, score: float, lost: int, ready_ns: int) -> Inference:
    return Inference(
        t0_ns=t_ns,
        last_ns=t_ns,
        end_ns=t_ns + dt_ns,
        label=label,
        score=round(score, 4),
        lost=lost,
        input_spikes=0,
        encoded_ns=ready_ns,
        inferred_ns=time.monotonic_ns(),
    )


def _echo_row(found: echo.Echoes) -> dict[str, int | float | str]:
    near = [float("nan")] * 3
    if len(found.range_mm):
        level_db = 20 * np.log10(max(float(found.amplitude[0]), 1e-9) / max(found.floor, 1e-9))
        near = [float(found.range_mm[0]), float(found.width_s[0]) * 1e6, float(level_db)]
    return {
        "range_mm": round(near[0], 1),
        "echoes": len(found.range_mm),
        "ranges_mm": " ".join(f"{value:.0f}" for value in found.range_mm),
        "width_us": round(near[1], 1),
        "level_db": round(near[2], 1),
    }
