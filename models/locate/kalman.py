"""An object followed through time: extended Kalman filter on distances, constant velocity, each distance gated.

Every distance updates the filter by itself, so a single one helps, and which of four is wrong is told by where the
object can be. Positions of one instant (``multilateration``) begin a track, and begin it anew where the distances have
left it for good.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.locate.geometry import Bools, Floats
from models.locate.multilateration import AGREES_SIGMA, Fix, Multilateration

GATE_SIGMA = 3.5
"""A distance further from the predicted one, in standard deviations of the two, is rejected."""
HUBER_SIGMA = 1.5
"""Beyond that the weight of an accepted distance falls with its residual."""
UPDATE_STEPS = 3
SPEED_MM_S = 1000.0
"""Standard deviation of each component of the velocity when a track begins."""
COAST_S = 1.0
"""So long a track goes on by its velocity alone; then the object is lost."""
SAME_MM_S = 3000.0
"""Two fixes further apart than this speed explains are not of one object."""
START_FIXES = 3
"""So many uncertain fixes in a row, of one object, begin a track; so many certain ones away from a track move it."""
DOUBT_ROWS = 5
DOUBT_SHARE = 0.25
"""After so many rows in a row in which this share is rejected, it is asked whether another position explains more."""

State = Literal["tracked", "coasting", "lost"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Where the object is at one moment."""

    state: State
    """``tracked``: measured; ``coasting``: predicted, nothing that was measured fits; ``lost``: given up now."""
    position_mm: Floats
    """(dimensions,)."""
    covariance_mm2: Floats
    """(dimensions, dimensions)."""
    velocity_mm_s: Floats
    """(dimensions,)."""
    accepted: Bools
    """(N,) distances that were used."""
    rejected: Bools
    """(N,) distances that were there and do not fit."""

    @property
    def quality(self) -> float:
        """0..1: the share of the array's distances that fit the position."""
        return float(np.count_nonzero(self.accepted)) / len(self.accepted)


@dataclass(slots=True)
class _Track:
    mean: Floats
    """(2 * dimensions,) position in mm, velocity in mm/s."""
    covariance: Floats
    t_ns: int
    used_ns: int
    """When a distance was last accepted."""


class Tracker:
    """Follows one object; one thread calls it."""

    def __init__(self, multilateration: Multilateration, acceleration_mm_s2: float) -> None:
        """``acceleration_mm_s2``: standard deviation of what the object does other than go straight on."""
        self._locate = multilateration
        self._geometry = multilateration.geometry
        self._variance = multilateration.noise_mm**2
        self._acceleration = acceleration_mm_s2
        self._track: _Track | None = None
        self._waiting: list[tuple[int, Fix]] = []
        """Fixes of one object, one after another, that no track has taken yet."""
        self._doubts = 0

    def step(self, t_ns: int, ranges_mm: Floats) -> Estimate | None:
        """One row of distances (N,), 0 for none, measured at ``t_ns``; None while there is no track."""
        valid = ranges_mm > 0
        if self._track is not None and t_ns < self._track.t_ns - COAST_S * 1e9:
            self._track = None  # another time: its age would never grow
        track = self._track
        if track is None:
            fix = self._locate.locate(ranges_mm, valid)
            return self._begin(t_ns, fix, valid, 1 if fix is not None and fix.certain else START_FIXES)
        self._predict(track, t_ns)
        accepted = self._update(track, ranges_mm, valid)
        used, there = np.count_nonzero(accepted), np.count_nonzero(valid)
        self._doubts = self._doubts + 1 if there - used >= max(1.0, DOUBT_SHARE * there) else 0
        if 2 * used < there or self._doubts >= DOUBT_ROWS:
            moved = self._reconsider(t_ns, ranges_mm, valid, int(used))
            if moved is not None:
                return moved
        else:
            self._waiting.clear()
        if used:
            track.used_ns = t_ns
            return self._estimate("tracked", track, accepted, valid)
        if t_ns - track.used_ns > COAST_S * 1e9:
            self._track = None
            self._waiting.clear()
            return self._estimate("lost", track, accepted, valid)
        return self._estimate("coasting", track, accepted, valid)

    def _predict(self, track: _Track, t_ns: int) -> None:
        dt_s = max(0.0, (t_ns - track.t_ns) / 1e9)
        track.t_ns = max(track.t_ns, t_ns)
        size = self._geometry.dimensions
        step = np.eye(2 * size)
        step[:size, size:] = dt_s * np.eye(size)
        pushed = np.concatenate([np.full(size, dt_s**2 / 2), np.full(size, dt_s)]) * self._acceleration
        drift = np.outer(pushed, pushed) * np.tile(np.eye(size), (2, 2))
        track.mean = step @ track.mean
        track.covariance = step @ track.covariance @ step.T + drift

    def _update(self, track: _Track, ranges_mm: Floats, valid: Bools) -> Bools:
        """Take in the distances that fit; says which (N,) did."""
        size = self._geometry.dimensions
        distances, slopes = self._geometry.lines(track.mean[:size])
        spread = track.covariance[:size, :size]
        expected = (slopes @ spread * slopes).sum(axis=1) + self._variance
        accepted: Bools = valid & ((ranges_mm - distances) ** 2 <= GATE_SIGMA**2 * expected)
        if not accepted.any():
            return accepted
        prior = np.linalg.inv(track.covariance)
        at = track.mean
        for _ in range(UPDATE_STEPS):
            distances, slopes = self._geometry.lines(at[:size])
            residuals = ranges_mm - distances
            strange = np.abs(residuals) / np.sqrt(self._variance)
            weights = np.where(accepted, 1 / np.maximum(strange / HUBER_SIGMA, 1.0), 0.0) / self._variance
            information = prior.copy()
            information[:size, :size] += (slopes * weights[:, None]).T @ slopes
            push = prior @ (track.mean - at)
            push[:size] += slopes.T @ (weights * residuals)
            at = at + np.linalg.solve(information, push)
        at[:size] = self._geometry.in_front(at[:size])
        residuals = ranges_mm - self._geometry.lines(at[:size])[0]
        fits: Bools = accepted & (np.abs(residuals) <= AGREES_SIGMA * np.sqrt(self._variance))
        if fits.any():
            track.mean, track.covariance = at, np.linalg.inv(information)
        return fits

    def _reconsider(self, t_ns: int, ranges_mm: Floats, valid: Bools, used: int) -> Estimate | None:
        """Most distances, or the same one for some time, do not fit: follow them where they agree with each other."""
        fix = self._locate.locate(ranges_mm, valid)
        if fix is None or not fix.certain or np.count_nonzero(fix.accepted) <= used:
            return None
        return self._begin(t_ns, fix, valid, START_FIXES)

    def _begin(self, t_ns: int, fix: Fix | None, valid: Bools, needed: int) -> Estimate | None:
        """A new track, once ``needed`` fixes in a row are of one object."""
        if fix is None:
            return None
        if self._waiting:
            last_ns, last = self._waiting[-1]
            reach_mm = SAME_MM_S * (t_ns - last_ns) / 1e9 + AGREES_SIGMA * (_sigma(last) + _sigma(fix))
            if np.linalg.norm(fix.position_mm - last.position_mm) > reach_mm:
                self._waiting.clear()
        self._waiting.append((t_ns, fix))
        if len(self._waiting) < needed:
            return None
        self._waiting.clear()
        self._doubts = 0
        size = self._geometry.dimensions
        covariance = np.zeros((2 * size, 2 * size))
        covariance[:size, :size] = fix.covariance_mm2
        covariance[size:, size:] = SPEED_MM_S**2 * np.eye(size)
        mean = np.concatenate([fix.position_mm, np.zeros(size)])
        self._track = _Track(mean, covariance, t_ns, t_ns)
        return self._estimate("tracked", self._track, fix.accepted, valid)

    def _estimate(self, state: State, track: _Track, accepted: Bools, valid: Bools) -> Estimate:
        size = self._geometry.dimensions
        return Estimate(
            state,
            track.mean[:size].copy(),
            track.covariance[:size, :size].copy(),
            track.mean[size:].copy(),
            accepted,
            valid & ~accepted,
        )


def _sigma(fix: Fix) -> float:
    return float(np.sqrt(np.trace(fix.covariance_mm2)))
