"""Positions from distances: exact where they are right, unmoved where some are wrong, honest about what is unknown."""

import numpy as np
import pytest

from hil.sonar.ranging import measure, places_mm, ring_mm, square_mm, walk_mm
from models.base import BadModel
from models.locate.geometry import Geometry
from models.locate.kalman import COAST_S, Tracker
from models.locate.multilateration import Multilateration

pytest.importorskip("scipy")

ROW = np.array([[0.0, 0], [400, 0], [900, 0]])
TURNED = np.array([[0.0, 0, 0], [300, 300, 0], [0, 0, 500], [300, 300, 500]])
SOLID = np.array([[0.0, 0, 0], [800, 0, 0], [0, 800, 0], [0, 0, 800], [800, 800, 800]])
ARRAYS = {
    "square": square_mm(1000, 2) + np.array([250, -300]),
    "ring": ring_mm(24, 500, 2),
    "row": ROW,
    "square in space": square_mm(1000, 3) + np.array([10, 20, 30]),
    "upright square": TURNED,
    "solid": SOLID,
    "three": square_mm(1000, 3)[:3],
}
STEP_NS = 50_000_000


def in_front(geometry: Geometry, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return geometry.in_front(geometry.centre_mm + rng.uniform(-1500, 1500, (count, geometry.dimensions)))


@pytest.mark.parametrize("name", ARRAYS)
def test_right_distances_give_the_place(name: str) -> None:
    geometry = Geometry(ARRAYS[name])
    locate = Multilateration(geometry, 10.0)
    for place in in_front(geometry, 30):
        ranges_mm, _ = geometry.lines(place)
        fix = locate.locate(ranges_mm, np.ones(geometry.count, np.bool_))
        assert fix is not None
        assert fix.rms_mm < 1
        # Where an array is nearly blind (in its own plane) a hundredth of a millimetre of distance is much of a place.
        assert np.linalg.norm(fix.position_mm - place) < max(1.0, 0.01 * np.sqrt(np.trace(fix.covariance_mm2)))


@pytest.mark.parametrize("wrong_mm", [-400.0, 150.0, 1200.0])
def test_one_of_four_is_told_from_the_others(wrong_mm: float) -> None:
    geometry = Geometry(ARRAYS["square"])
    locate = Multilateration(geometry, 10.0)
    rng = np.random.default_rng(5)
    told = certain = 0
    for place in in_front(geometry, 60):
        ranges_mm = geometry.lines(place)[0] + rng.normal(0, 10, 4)
        ranges_mm[1] = max(ranges_mm[1] + wrong_mm, 50)
        fix = locate.locate(ranges_mm, np.ones(4, np.bool_))
        if fix is not None and fix.certain:
            certain += 1
            told += fix.accepted.tolist() == [True, False, True, True] and (
                np.linalg.norm(fix.position_mm - place) < 5 * np.sqrt(np.trace(fix.covariance_mm2))
            )
    assert certain >= 35
    assert told >= 0.93 * certain


def test_two_stories_that_fit_as_well_are_not_certain() -> None:
    """Far ahead of a square two transducers tell nearly the same: where they differ nobody knows which is wrong."""
    geometry = Geometry(square_mm(1000, 2))
    ranges_mm, _ = geometry.lines(np.array([6000.0, 0.0]))
    ranges_mm[1] += 300
    fix = Multilateration(geometry, 10.0).locate(ranges_mm, np.ones(4, np.bool_))
    assert fix is None or not fix.certain


def test_a_third_of_a_ring_may_be_wrong() -> None:
    geometry = Geometry(ring_mm(24, 500, 3))
    locate = Multilateration(geometry, 10.0)
    rng = np.random.default_rng(1)
    places = places_mm(60, 3, rng)
    measured = measure(places, geometry.positions_mm, rng, outliers=1 / 3)
    fixes = [locate.locate(row, row > 0) for row in measured.ranges_mm]
    off_mm = [np.inf if f is None else np.linalg.norm(f.position_mm - p) for f, p in zip(fixes, places, strict=True)]
    assert np.mean(np.array(off_mm) < 60) >= 0.95


def test_the_covariance_is_as_large_as_the_errors() -> None:
    geometry = Geometry(ring_mm(24, 500, 2))
    locate = Multilateration(geometry, 10.0)
    rng = np.random.default_rng(2)
    places = places_mm(300, 2, rng)
    squares = []
    for place, row in zip(places, measure(places, geometry.positions_mm, rng, outliers=0).ranges_mm, strict=True):
        fix = locate.locate(row, row > 0)
        assert fix is not None
        off = fix.position_mm - place
        squares.append(off @ np.linalg.inv(fix.covariance_mm2) @ off)
    # Chi-squared with two degrees of freedom: median 1.39, 95 % below 5.99.
    assert 1.0 < np.median(squares) < 1.8
    assert 4.0 < np.percentile(squares, 95) < 8.0


def test_too_few_distances_are_no_place() -> None:
    geometry = Geometry(square_mm(1000, 2))
    valid = np.array([True, False, False, True])
    assert Multilateration(geometry, 10.0).locate(np.full(4, 1000.0), valid) is None
    assert Multilateration(geometry, 10.0).locate(np.zeros(4), np.zeros(4, np.bool_)) is None


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (np.zeros((2, 2)), "2 transducers, expected 3 to 64"),
        (np.zeros((4, 2)), "are at one place"),
        (np.arange(9.0).reshape(3, 3), "in one straight row"),
        (np.zeros((4, 4)), "2 or all with 3 coordinates"),
        (np.random.default_rng(0).normal(0, 1, (65, 2)), "65 transducers"),
        (np.array([[0, 0], [1e308, 0], [0, -1e308]]), r"beyond 1000000 mm \(1 km\); give millimetres"),
    ],
)
def test_a_geometry_that_cannot_work_is_refused(places: np.ndarray, said: str) -> None:
    with pytest.raises(BadModel, match=said):
        Geometry(places)


def tracked(name: str, places: np.ndarray, seed: int) -> np.ndarray:
    """How far off each row's position is; infinite where there is none."""
    geometry = Geometry(ARRAYS[name])
    rng = np.random.default_rng(seed)
    tracker = Tracker(Multilateration(geometry, 10.0), 1000.0)
    off_mm = []
    for row, ranges_mm in enumerate(measure(places, geometry.positions_mm, rng).ranges_mm):
        estimate = tracker.step(row * STEP_NS, ranges_mm)
        off_mm.append(np.inf if estimate is None else float(np.linalg.norm(estimate.position_mm - places[row])))
    return np.array(off_mm)


@pytest.mark.parametrize("name", ["ring", "square in space"])
@pytest.mark.parametrize("moving", [False, True])
def test_nine_of_ten_positions_are_within_5_cm(name: str, moving: bool) -> None:
    off_mm = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        geometry = Geometry(ARRAYS[name])
        size = geometry.dimensions
        places = walk_mm(100, size, 20.0, 500.0, rng) if moving else np.repeat(places_mm(1, size, rng), 100, axis=0)
        off_mm.append(tracked(name, places + geometry.centre_mm, seed))
    assert np.mean(np.concatenate(off_mm) <= 50) > 0.9


class Scene:
    """A tracker at a square of four, without noise, and an object that stands at (1200, 700)."""

    def __init__(self) -> None:
        self.geometry = Geometry(square_mm(1000, 2))
        self.tracker = Tracker(Multilateration(self.geometry, 10.0), 1000.0)
        self.place = np.array([1200.0, 700.0])
        self.row = 0

    def step(self, gone: tuple[int, ...] = (), longer_mm: float = 0.0):  # type: ignore[no-untyped-def]
        """``gone``: transducers without an echo; ``longer_mm``: the detour of transducer 2."""
        ranges_mm, _ = self.geometry.lines(self.place)
        ranges_mm[2] += longer_mm
        ranges_mm[list(gone)] = 0
        self.row += 1
        return self.tracker.step(self.row * STEP_NS, ranges_mm)

    def settle(self) -> None:
        for _ in range(20):
            self.step()


def test_a_lasting_detour_is_rejected_as_long_as_it_lasts() -> None:
    scene = Scene()
    scene.settle()
    for _ in range(100):
        estimate = scene.step(longer_mm=250)
        assert estimate.rejected.tolist() == [False, False, True, False]
        assert np.linalg.norm(estimate.position_mm - scene.place) < 10
    assert scene.step().accepted.all()


def test_fewer_echoes_than_a_position_needs_still_help() -> None:
    scene = Scene()
    scene.settle()
    for _ in range(40):
        estimate = scene.step(gone=(1, 2, 3))
        assert (estimate.state, estimate.quality) == ("tracked", 0.25)
    assert np.linalg.norm(estimate.position_mm - scene.place) < 150


def test_without_echoes_it_coasts_and_then_is_lost_and_found_again() -> None:
    scene = Scene()
    scene.settle()
    sigma = [np.trace(scene.step(gone=(0, 1, 2, 3)).covariance_mm2) for _ in range(10)]
    assert sigma == sorted(sigma)
    states = []
    while (estimate := scene.step(gone=(0, 1, 2, 3))) is not None:
        states.append(estimate.state)
    assert states == ["coasting"] * (len(states) - 1) + ["lost"]
    assert (10 + len(states)) * STEP_NS / 1e9 == pytest.approx(COAST_S, abs=0.11)
    assert scene.step().state == "tracked"


def test_an_object_that_is_suddenly_elsewhere_is_followed_there() -> None:
    scene = Scene()
    scene.settle()
    scene.place = np.array([-900.0, -1500.0])
    seen = [scene.step() for _ in range(6)]
    assert np.linalg.norm(seen[0].position_mm - [1200, 700]) < 50
    assert np.linalg.norm(seen[-1].position_mm - scene.place) < 5


def test_a_clock_that_leapt_ahead_and_is_back_does_not_keep_a_track_for_ever() -> None:
    geometry = Geometry(np.array([[0.0, 0, 0], [1000, 0, 0], [0, 1000, 0]]))  # no fix of three in space is certain
    tracker = Tracker(Multilateration(geometry, 10.0), 1000.0)
    here, there = np.array([400.0, 500, 900]), np.array([900.0, 200, 1500])
    for row in range(20):
        tracker.step(3600 * 10**9 + row * STEP_NS, geometry.lines(here)[0])
    seen = [tracker.step(row * STEP_NS, geometry.lines(there)[0]) for row in range(10)]
    assert seen[-1] is not None
    assert seen[-1].state == "tracked"
    assert np.linalg.norm(seen[-1].position_mm - there) < 5


def test_velocity_is_that_of_the_object() -> None:
    scene = Scene()
    for _ in range(60):
        scene.place = scene.place + np.array([20, -10])
        estimate = scene.step()
    assert estimate.velocity_mm_s == pytest.approx([400, -200], abs=20)
