"""One position from the distances of one instant, although some of them are wrong: consensus, then least squares.

Each smallest subset of distances gives a candidate in closed form; all of them are polished at once with weights that
fade distances which do not fit (Geman-McClure, its scale shrinking), and the one with which most distances agree is
refined by scipy's ``least_squares`` with a robust loss. What is 3 sigma off is rejected. An echo that came on a detour
or from a neighbour's burst is such a distance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from drivers.extras import how_to_install
from models.base import BadModel
from models.locate.geometry import Bools, Floats, Geometry

AGREES_SIGMA = 3.0
"""A distance this far from what a position predicts does not agree with it."""
SHORT_COST = 2.0
"""What a wrong distance costs more when it is too short: detours, which are too long, are more common."""
POLISH_SIGMA = (12.0, 6.0, 4.0, 3.0, 3.0)
"""Scale of the fading weights, step by step."""
AMBIGUOUS_COST = 6.0
"""Another position that costs so little more, in squared sigma, may be the true one."""
AMBIGUOUS_SIGMA2 = 25.0
"""Squared Mahalanobis distance from which a position is another one."""
ENOUGH = 1e-5
"""Of the distance to the origin: hundredths of a millimetre; smaller steps are not worth their time."""
DAMPING = 1e-3
"""Of the Gauss-Newton steps: an array tells little of some directions."""


@dataclass(frozen=True, slots=True)
class Fix:
    """A position from one instant."""

    position_mm: Floats
    """(dimensions,)."""
    covariance_mm2: Floats
    """(dimensions, dimensions), from the noise, or from the residuals where they are greater."""
    accepted: Bools
    """(N,) distances that agree with the position."""
    rms_mm: float
    """Of the accepted distances' residuals."""
    certain: bool
    """More distances agree than any position would make agree, and no other position explains as many."""


class Multilateration:
    """Robust multilateration for one array."""

    def __init__(self, geometry: Geometry, noise_mm: float) -> None:
        """``noise_mm``: standard deviation of a good distance. Raises BadModel where scipy is not installed."""
        self.geometry = geometry
        self.noise_mm = noise_mm
        self._least_squares = _scipy_least_squares()

    def locate(self, ranges_mm: Floats, valid: Bools, guess_mm: Floats | None = None) -> Fix | None:
        """The position that most of the ``valid`` (N,) distances agree with; None where no position can be found.

        ``guess_mm`` (dimensions,) is one more candidate.
        """
        start = self.geometry.candidates(ranges_mm, valid)
        if guess_mm is not None:
            start = np.vstack([start, guess_mm])
        if not len(start) or np.count_nonzero(valid) < self.geometry.dimensions:
            return None
        places = self._polish(start, ranges_mm, valid)
        distances, _ = self.geometry.lines(places)
        residuals = np.where(valid, (ranges_mm - distances) / self.noise_mm, 0.0)
        squares = residuals**2
        cost = np.minimum(squares, AGREES_SIGMA**2 + SHORT_COST * (residuals < 0)).sum(axis=1)
        best = int(cost.argmin())
        agreeing = valid & (squares[best] <= AGREES_SIGMA**2)
        if np.count_nonzero(agreeing) < self.geometry.dimensions:
            return None
        place = self._refine(places[best], ranges_mm, agreeing)
        fix = self._judge(place, ranges_mm, valid)
        if fix is None:
            return None
        offsets = places[cost <= cost[best] + AMBIGUOUS_COST] - fix.position_mm
        apart = (offsets @ np.linalg.inv(fix.covariance_mm2) * offsets).sum(axis=1)
        redundant = np.count_nonzero(fix.accepted) > self.geometry.dimensions
        certain = redundant and not (apart > AMBIGUOUS_SIGMA2).any()
        return Fix(fix.position_mm, fix.covariance_mm2, fix.accepted, fix.rms_mm, certain)

    def _polish(self, places: Floats, ranges_mm: Floats, valid: Bools) -> Floats:
        """Gauss-Newton steps of all candidates (n, dimensions) at once."""
        eye = np.eye(self.geometry.dimensions)
        for scale in POLISH_SIGMA:
            distances, slopes = self.geometry.lines(places)
            residuals = (ranges_mm - distances) / self.noise_mm
            weights = np.where(valid, (1 + (residuals / scale) ** 2) ** -2.0, 0.0)
            weighted = slopes * weights[:, :, None]
            normal = weighted.transpose(0, 2, 1) @ slopes + DAMPING * eye
            right = (weighted * residuals[:, :, None]).sum(axis=1)
            places = places + self.noise_mm * np.linalg.solve(normal, right[:, :, None])[:, :, 0]
        return self.geometry.in_front(places)

    def _refine(self, place: Floats, ranges_mm: Floats, agreeing: Bools) -> Floats:
        geometry, noise_mm = self.geometry, self.noise_mm

        def residuals(at: Floats) -> Floats:
            found: Floats = ((geometry.lines(at)[0] - ranges_mm) / noise_mm)[agreeing]
            return found

        def slopes(at: Floats) -> Floats:
            found: Floats = (geometry.lines(at)[1] / noise_mm)[agreeing]
            return found

        solved = self._least_squares(
            residuals, place, jac=slopes, loss="soft_l1", f_scale=2.0, x_scale=noise_mm, xtol=ENOUGH, ftol=ENOUGH
        )
        return geometry.in_front(np.asarray(solved.x, np.float64))

    def _judge(self, place: Floats, ranges_mm: Floats, valid: Bools) -> Fix | None:
        distances, slopes = self.geometry.lines(place)
        residuals = ranges_mm - distances
        accepted = valid & (np.abs(residuals) <= AGREES_SIGMA * self.noise_mm)
        used = int(np.count_nonzero(accepted))
        spare = used - self.geometry.dimensions
        if spare < 0:
            return None
        square = float((residuals[accepted] ** 2).sum())
        variance = max(self.noise_mm**2, square / spare if spare else 0.0)
        information = slopes[accepted].T @ slopes[accepted] + 1e-6 * np.eye(self.geometry.dimensions)
        return Fix(place, variance * np.linalg.inv(information), accepted, (square / used) ** 0.5, False)


def _scipy_least_squares() -> Callable[..., Any]:
    try:
        from scipy.optimize import least_squares
    except ImportError as error:
        raise BadModel(f"localisation needs scipy, which is not installed: {how_to_install('locate')}") from error
    found: Callable[..., Any] = least_squares
    return found
