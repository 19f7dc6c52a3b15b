"""``axond bench locate``: made objects in front of made arrays; how near the positions are, and how long they take.

Distances have 1 cm of noise, 10 % of them are wrong (half of those detours, half a neighbour's burst) and 2 % missing;
the object is 0.5 to 3 m from the array's centre, all around it in a plane, up to 45 degrees off its axis in space. It
stands still, or goes 0.5 m/s and turns. Rows come at 20 Hz; each scene has 100 of them and starts without a track.
Beside the tracked positions: those of each tenth row by itself, and least squares of all its distances, which is what
one has without all this. A row without a position counts as far off.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from hil.sonar import ranging
from hil.sonar.ranging import Bools, Floats, Measured, ring_mm, square_mm
from models.locate.geometry import Geometry
from models.locate.kalman import Tracker
from models.locate.multilateration import Multilateration
from models.locate.session import DEFAULT_ACCELERATION_MM_S2, DEFAULT_NOISE_MM

RATE_HZ = 20.0
ROWS = 100
SPEED_MM_S = 500.0
NEAR_MM = 50.0
LEAST_SCENES = 4
MOST_SCENES = 200
TENTH = 10

ARRAYS: dict[str, Floats] = {
    "square4_1m_2d": square_mm(1000, 2),
    "ring24_1m_2d": ring_mm(24, 500, 2),
    "square4_1m_3d": square_mm(1000, 3),
    "ring24_1m_3d": ring_mm(24, 500, 3),
    "square4_0.3m_2d": square_mm(300, 2),
    "square4_0.5m_2d": square_mm(500, 2),
    "square4_2m_2d": square_mm(2000, 2),
    "square4_0.5m_3d": square_mm(500, 3),
}
"""Side of the square, diameter of the ring."""


@dataclass(slots=True)
class _Seen:
    tracked_mm: list[float] = field(default_factory=list)
    alone_mm: list[float] = field(default_factory=list)
    alone_ms: list[float] = field(default_factory=list)
    plain_mm: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


def measure(seconds: float) -> dict[str, Any]:
    """All arrays, object still and moving."""
    numbers: dict[str, Any] = {}
    share_s = seconds / (2 * len(ARRAYS))
    for name, sensors_mm in ARRAYS.items():
        multilateration = Multilateration(Geometry(sensors_mm), DEFAULT_NOISE_MM)
        for moving in (False, True):
            seen = _Seen()
            end_s = time.monotonic() + share_s
            for seed in range(MOST_SCENES):
                if seed >= LEAST_SCENES and time.monotonic() > end_s:
                    break
                _scene(multilateration, moving, seed, seen)
            numbers |= {f"{name}.{'moving' if moving else 'still'}.{k}": v for k, v in _summary(seen).items()}
    return numbers


def _scene(multilateration: Multilateration, moving: bool, seed: int, seen: _Seen) -> None:
    geometry = multilateration.geometry
    rng = np.random.default_rng(seed)
    if moving:
        places = ranging.walk_mm(ROWS, geometry.dimensions, RATE_HZ, SPEED_MM_S, rng)
    else:
        places = np.repeat(ranging.places_mm(1, geometry.dimensions, rng), ROWS, axis=0)
    measured = ranging.measure(places, geometry.positions_mm, rng, noise_mm=DEFAULT_NOISE_MM)
    tracker = Tracker(multilateration, DEFAULT_ACCELERATION_MM_S2)
    for row, ranges_mm in enumerate(measured.ranges_mm):
        wall_s, cpu_s = time.perf_counter(), time.thread_time()
        estimate = tracker.step(round(row * 1e9 / RATE_HZ), ranges_mm)
        seen.cpu_ms.append(1e3 * (time.thread_time() - cpu_s))
        seen.wall_ms.append(1e3 * (time.perf_counter() - wall_s))
        seen.tracked_mm.append(_off_mm(None if estimate is None else estimate.position_mm, places[row]))
    _beside(multilateration, places, measured, seen)


def _beside(multilateration: Multilateration, places: Floats, measured: Measured, seen: _Seen) -> None:
    geometry = multilateration.geometry
    for place, ranges_mm in zip(places[::TENTH], measured.ranges_mm[::TENTH], strict=True):
        there = ranges_mm > 0
        wall_s = time.perf_counter()
        fix = multilateration.locate(ranges_mm, there)
        seen.alone_ms.append(1e3 * (time.perf_counter() - wall_s))
        seen.alone_mm.append(_off_mm(None if fix is None else fix.position_mm, place))
        start = geometry.candidates(ranges_mm, there)
        if not len(start) or np.count_nonzero(there) < geometry.dimensions:
            seen.plain_mm.append(np.inf)
            continue
        solved = least_squares(_misfit, np.median(start, axis=0), args=(geometry, ranges_mm, there))
        seen.plain_mm.append(_off_mm(geometry.in_front(solved.x), place))


def _misfit(at: Floats, geometry: Geometry, ranges_mm: Floats, there: Bools) -> Floats:
    misfit: Floats = (geometry.lines(at)[0] - ranges_mm)[there]
    return misfit


def _off_mm(found: Floats | None, place: Floats) -> float:
    return float("inf") if found is None else float(np.linalg.norm(found - place))


def _summary(seen: _Seen) -> dict[str, float]:
    tracked = np.array(seen.tracked_mm)
    return {
        "rows": len(tracked),
        "within_5cm": _near(seen.tracked_mm),
        "p50_mm": round(float(np.median(tracked)), 1),
        "p95_mm": round(float(np.percentile(tracked[np.isfinite(tracked)], 95)), 1),
        "without_position": round(float(np.mean(~np.isfinite(tracked))), 4),
        "row_alone_within_5cm": _near(seen.alone_mm),
        "row_alone_p95_ms": round(float(np.percentile(seen.alone_ms, 95)), 3),
        "least_squares_within_5cm": _near(seen.plain_mm),
        "update_p50_ms": round(float(np.percentile(seen.wall_ms, 50)), 3),
        "update_p95_ms": round(float(np.percentile(seen.wall_ms, 95)), 3),
        "update_p99_ms": round(float(np.percentile(seen.wall_ms, 99)), 3),
        "update_cpu_p95_ms": round(float(np.percentile(seen.cpu_ms, 95)), 3),
    }


def _near(off_mm: list[float]) -> float:
    return round(float(np.mean(np.array(off_mm) <= NEAR_MM)), 4)
