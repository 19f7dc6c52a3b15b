"""Made distances of an object to a transducer array: seeded, with noise, outliers, multipath and missing echoes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NEAREST_MM, FARTHEST_MM = 500.0, 3000.0
"""Objects are so far from the centre of the array."""
CONE_DEG = 45.0
"""In space they are in front of the array, up to so far off its axis."""
DETOUR_MM = (100.0, 1500.0)
"""Half of the wrong distances came on a detour and are so much too long."""
SPURIOUS_MM = (200.0, 4000.0)
"""The other half are a neighbour's burst, anywhere in here."""


def square_mm(side_mm: float, dimensions: int) -> Floats:
    """(4, dimensions): the corners of a square about the origin; in space it lies in the plane z = 0."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side_mm / 2
    return np.hstack([corners, np.zeros((4, dimensions - 2))])


def ring_mm(count: int, radius_mm: float, dimensions: int) -> Floats:
    """(count, dimensions): evenly on a circle about the origin; in space it lies in the plane z = 0."""
    angles = 2 * np.pi * np.arange(count) / count
    circle = radius_mm * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    placed: Floats = np.hstack([circle, np.zeros((count, dimensions - 2))])
    return placed


def places_mm(count: int, dimensions: int, rng: np.random.Generator) -> Floats:
    """(count, dimensions) places of an object: uniform in distance and direction."""
    turn = rng.uniform(0, 2 * np.pi, count)
    direction = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if dimensions == 3:
        cosine = rng.uniform(np.cos(np.radians(CONE_DEG)), 1, count)
        direction = np.column_stack([direction * np.sqrt(1 - cosine**2)[:, None], cosine])
    places: Floats = rng.uniform(NEAREST_MM, FARTHEST_MM, count)[:, None] * direction
    return places


def walk_mm(count: int, dimensions: int, rate_hz: float, speed_mm_s: float, rng: np.random.Generator) -> Floats:
    """(count, dimensions) places of an object that goes from one random place to the next at a steady speed.

    Corners are rounded: the path is averaged over half a second.
    """
    blur = max(1, round(rate_hz / 2))
    wanted = (count + blur) / rate_hz * speed_mm_s
    stops = [places_mm(1, dimensions, rng)[0]]
    length = 0.0
    while length < wanted:
        stops.append(places_mm(1, dimensions, rng)[0])
        length += float(np.linalg.norm(stops[-1] - stops[-2]))
    marks = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(stops, axis=0), axis=1))])
    along = np.arange(count + blur - 1) / rate_hz * speed_mm_s
    route = np.stack([np.interp(along, marks, column) for column in np.array(stops).T], axis=1)
    smooth: Floats = np.lib.stride_tricks.sliding_window_view(route, blur, axis=0).mean(axis=-1)
    return smooth


@dataclass(frozen=True, slots=True)
class Measured:
    """What an array says of an object at (n, dimensions) places."""

    ranges_mm: Floats
    """(n, N); 0 where there was no echo."""
    wrong: Bools
    """(n, N) distances that are not to the object, and missing ones."""


def measure(
    places: Floats,
    sensors_mm: Floats,
    rng: np.random.Generator,
    *,
    noise_mm: float = 10.0,
    outliers: float = 0.1,
    missing: float = 0.02,
) -> Measured:
    """Distances of ``places`` with noise (standard deviation), a share of outliers, and a share of missing echoes."""
    ranges = np.linalg.norm(places[:, None] - sensors_mm, axis=2)
    shape = ranges.shape
    kind = rng.random(shape)
    detour, spurious = kind < outliers / 2, (kind >= outliers / 2) & (kind < outliers)
    ranges = ranges + rng.normal(0, noise_mm, shape) + detour * rng.uniform(*DETOUR_MM, shape)
    ranges = np.where(spurious, rng.uniform(*SPURIOUS_MM, shape), ranges)
    gone = rng.random(shape) < missing
    return Measured(np.where(gone, 0.0, ranges), detour | spurious | gone)
