"""Where the transducers of an array are, and closed-form positions from few of their distances.

Formula: differences of squared ranges are linear in the position (spherical intersection, Smith and Abel 1987). In
coordinates about the centre of the array |s|^2 - r^2 = 2 s.x - |x|^2, linear in x and |x|^2. A flat array in space, or
a straight row in a plane, gives the coordinates along itself that way and the distance from itself from |x|^2; of the
two mirror images the one in front of the array is meant.
"""

from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from models.base import BadModel

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

MOST_SENSORS = 64
MOST_MM = 1e6
MOST_SUBSETS = 48
"""With 40 % outliers every fifth subset of three is clean."""
FLAT_RATIO = 1e-3
"""An array that is this much thinner than long is flat."""
LEAST_DETERMINANT = 1e-3
"""Of the directions of a subset, scaled by its size: sensors nearly in a row tell nothing across it."""


class Geometry:
    """An array of N >= 3 transducers in a plane or in space; millimetres, in the coordinates of the user."""

    def __init__(self, positions_mm: Floats) -> None:
        """(N, 2) or (N, 3). Raises BadModel when no position could be found with it."""
        if positions_mm.ndim != 2 or positions_mm.shape[1] not in (2, 3):
            raise BadModel("geometry_mm: expected a list of positions, all with 2 or all with 3 coordinates")
        count, self.dimensions = positions_mm.shape
        if not 3 <= count <= MOST_SENSORS:
            raise BadModel(f"geometry_mm: {count} transducers, expected 3 to {MOST_SENSORS}")
        if not (np.abs(positions_mm) <= MOST_MM).all():
            raise BadModel(f"geometry_mm: a coordinate is beyond {MOST_MM:.0f} mm (1 km); give millimetres")
        self.positions_mm = positions_mm
        self.centre_mm: Floats = positions_mm.mean(axis=0)
        _, sizes, axes = np.linalg.svd(positions_mm - self.centre_mm)
        self._rank = int(np.count_nonzero(sizes > FLAT_RATIO * sizes[0])) if sizes[0] > 0 else 0
        if self._rank < self.dimensions - 1:
            what = "at one place" if self._rank == 0 else "in one straight row, which tells nothing in space"
            raise BadModel(f"geometry_mm: the transducers are {what}; spread them")
        self._axes = axes
        normal = axes[-1]
        self.front: Floats | None = None
        """Unit vector away from a flat array, to the side where objects are; None for arrays that are not flat. Its
        largest component is positive."""
        if self._rank < self.dimensions:
            self.front = normal * np.sign(normal[np.abs(normal).argmax()])
            self._axes = np.vstack([axes[:-1], self.front])
        self._local = (positions_mm - self.centre_mm) @ self._axes.T

    @property
    def count(self) -> int:
        """N."""
        return len(self.positions_mm)

    def candidates(self, ranges_mm: Floats, valid: Bools) -> Floats:
        """(n, dimensions) positions, each from a smallest set of the ``valid`` distances (N,); perhaps none."""
        index = np.flatnonzero(valid)
        size = self._rank + 1
        if len(index) < size:
            return np.zeros((0, self.dimensions))
        subsets = index[_subsets(len(index), size)]
        places = self._local[subsets][:, :, : self._rank]
        linear = np.concatenate([2 * places, np.full((*subsets.shape, 1), -1.0)], axis=2)
        spread = np.abs(places - places.mean(axis=1, keepdims=True)).max(axis=(1, 2))
        scaled = linear / np.append(np.full(self._rank, 2.0), 1.0)
        scaled[:, :, : self._rank] /= np.maximum(spread, 1e-9)[:, None, None]
        usable = np.abs(np.linalg.det(scaled)) > LEAST_DETERMINANT
        if not usable.any():
            return np.zeros((0, self.dimensions))
        right = (self._local[subsets] ** 2).sum(axis=2) - ranges_mm[subsets] ** 2
        solved = np.linalg.solve(linear[usable], right[usable][:, :, None])[:, :, 0]
        local = np.zeros((len(solved), self.dimensions))
        local[:, : self._rank] = solved[:, : self._rank]
        if self.front is not None:
            away = solved[:, -1] - (solved[:, :-1] ** 2).sum(axis=1)
            # An object in the plane of the array may seem to be behind it; a step in front the search can begin.
            local[:, -1] = np.sqrt(np.maximum(away, (0.05 * spread[usable]) ** 2))
        found: Floats = local @ self._axes + self.centre_mm
        return found

    def in_front(self, positions_mm: Floats) -> Floats:
        """(..., dimensions) positions, those behind a flat array mirrored to its front."""
        if self.front is None:
            return positions_mm
        away = (positions_mm - self.centre_mm) @ self.front
        mirrored: Floats = positions_mm - 2 * np.minimum(away, 0.0)[..., None] * self.front
        return mirrored

    def lines(self, positions_mm: Floats) -> tuple[Floats, Floats]:
        """Distances (..., N) of positions (..., dimensions) from the transducers, and unit vectors (..., N, dimensions)
        from each to the position: the derivative of the distance."""
        offsets = positions_mm[..., None, :] - self.positions_mm
        distances = np.sqrt((offsets * offsets).sum(axis=-1))
        return distances, offsets / np.maximum(distances, 1e-6)[..., None]


@lru_cache(maxsize=256)
def _subsets(count: int, size: int) -> Indices:
    """(n, size): all subsets of ``size`` of ``count``, or ``MOST_SUBSETS`` of them by lot, always the same."""
    total = comb(count, size)
    if total <= 4 * MOST_SUBSETS:
        everything = np.array(list(combinations(range(count), size)), np.intp)
        if total <= MOST_SUBSETS:
            return everything
        return everything[np.random.default_rng(total).permutation(total)[:MOST_SUBSETS]]
    rng = np.random.default_rng([count, size])
    return rng.permuted(np.tile(np.arange(count), (MOST_SUBSETS, 1)), axis=1)[:, :size]
