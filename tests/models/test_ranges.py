"""Rangers: what the population code says about made distances, and how runs are read."""

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from drivers.ultrasonic.array import DRIVER as ARRAY
from drivers.ultrasonic.array import ArrayConfig
from models.base import BadModel, Window
from models.datasets.load import find, load
from models.datasets.ranges import ring_info
from models.datasets.recording import IMU_INFO, DataError
from models.encoders.ranges_population import RangesPopulation

CENTRES_M = (0.5, 1.0, 1.5, 2.0)


def cells(distances_mm: list[list[int]], **settings: object) -> npt.NDArray[np.uint8]:
    """(samples * hold, channels and sectors, centres)."""
    cfg = RangesPopulation.Config.model_validate({"centres_m": CENTRES_M, **settings})
    data = np.array(distances_mm, np.int32)
    info = ring_info(data.shape[1])
    encoder = RangesPopulation(cfg, info, len(data))
    out = np.full(encoder.shape, 9, np.uint8)
    encoder.encode(Window(0, 1, data, info), out)
    return out.reshape(len(out), -1, len(cfg.centres_m))


@pytest.mark.parametrize(
    ("distance_mm", "expected"),
    [
        (499, [1, 0, 0, 0]),
        (500, [1, 1, 0, 0]),
        (999, [1, 1, 0, 0]),
        (1000, [0, 1, 1, 0]),
        (1999, [0, 0, 1, 1]),
        (2000, [0, 0, 0, 1]),
        (60_000, [0, 0, 0, 1]),
    ],
)
def test_cells_around_the_distance_spike(distance_mm: int, expected: list[int]) -> None:
    assert cells([[distance_mm]])[0, 0].tolist() == expected


def test_a_greater_reach_is_a_wider_field() -> None:
    assert cells([[1100]], reach=2)[0, 0].tolist() == [1, 1, 1, 1]
    assert cells([[400]], reach=2)[0, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("nothing", [0, -1, -32768])
def test_no_echo_is_as_far_as_can_be(nothing: int) -> None:
    assert np.array_equal(cells([[nothing]]), cells([[4000]]))
    assert np.array_equal(cells([[nothing]], max_m=1.2), cells([[1200]]))
    assert np.array_equal(cells([[3000]], max_m=1.2), cells([[1200]]))


def test_a_sector_is_as_near_as_its_nearest_ranger_that_hears_an_echo() -> None:
    found = cells([[0, 1600, 1100, 400]], sectors=[[0, 1], [1, 2, 3], [0]])
    single = cells([[1600, 400, 0]])
    assert found.shape == (1, 7, 4)
    assert np.array_equal(found[0, 4:], single[0])


def test_each_sample_is_held() -> None:
    found = cells([[600], [1700]], hold=3)
    assert np.array_equal(found, np.repeat(cells([[600], [1700]]), 3, axis=0))


def test_microseconds_of_a_driver_are_distances_as_well() -> None:
    """Firmware frames carry echo times; their scale turns them into mm."""
    cfg = RangesPopulation.Config(centres_m=CENTRES_M)
    info = ARRAY("ring", ArrayConfig(port="/dev/null", transducers=1)).info()
    encoder = RangesPopulation(cfg, info, 1)
    out = np.zeros(encoder.shape, np.uint8)
    encoder.encode(Window(0, 1, np.array([[round(120 * 58.3)]]), info), out)
    assert out[0].tolist() == [0, 1, 1, 0]


def test_a_ring_of_the_driver_is_that_of_the_dataset() -> None:
    cfg = ArrayConfig(port="/dev/null", transducers=24, rate_hz=9, format="text", unit="mm")
    assert ARRAY("ring", cfg).info() == ring_info(24)


@pytest.mark.parametrize(
    "settings",
    [
        {"centres_m": (1.0,)},
        {"centres_m": (1.0, 1.0)},
        {"centres_m": (0.0, 1.0)},
        {"sectors": ((),)},
        {"sectors": ((0, -1),)},
        {"reach": 0},
        {"colour": 1},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RangesPopulation.Config.model_validate(settings)


def test_what_does_not_fit_is_named() -> None:
    cfg = RangesPopulation.Config(sectors=((0, 4),))
    with pytest.raises(BadModel, match="a sector has channel 4"):
        RangesPopulation(cfg, ring_info(4), 1)
    with pytest.raises(BadModel, match="the sensor is imu"):
        RangesPopulation(cfg, IMU_INFO, 1)
    with pytest.raises(BadModel, match="expected 65536"):
        RangesPopulation(RangesPopulation.Config(centres_m=tuple(range(1, 1025))), ring_info(65), 1)
    encoder = RangesPopulation(cfg, ring_info(5), 2)
    with pytest.raises(BadModel, match=r"got \(1, 5\) samples"):
        encoder.encode(Window(0, 1, np.zeros((1, 5), np.int32), ring_info(5)), np.zeros(encoder.shape, np.uint8))


def test_it_takes_less_than_a_fiftieth_of_a_core() -> None:
    centres_m = tuple(0.3 + 0.01 * i for i in range(74))
    sectors = tuple(tuple((i + j) % 24 for j in range(4)) for i in range(24)) * 2
    encoder = RangesPopulation(RangesPopulation.Config(centres_m=centres_m, sectors=sectors, hold=4), ring_info(24), 1)
    window = Window(0, 1, np.full((1, 24), 700, np.int32), ring_info(24))
    out = np.zeros(encoder.shape, np.uint8)
    started_s = time.process_time()
    for _ in range(90):  # ten seconds of the sensor
        encoder.encode(window, out)
    assert time.process_time() - started_s < 0.2


def table(folder: Path, rows: list[str], head: str = "S1,S2,OUTPUT") -> Path:
    (folder / "sensor_readings_2.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return folder


def test_a_run_is_split_in_time(tmp_path: Path) -> None:
    folder = table(tmp_path, [f"0.{i}00,5.000,{'left' if i < 4 else 'right'}" for i in range(1, 6)])
    (train,), (test,) = load(folder, "train"), load(folder, "test")
    assert train.data.tolist() == [[100, 0], [200, 0], [300, 0], [400, 0]]
    assert train.truth is not None
    assert train.truth.tolist() == ["left"] * 3 + ["right"]
    assert test.data.tolist() == [[500, 0]]
    assert train.info == ring_info(2)


@pytest.mark.parametrize(
    ("head", "rows", "says"),
    [
        ("S1,S3,OUTPUT", ["1,2,left"], "expected the columns S1, S2, ... and OUTPUT, found S1, S3, OUTPUT"),
        ("OUTPUT", ["left"], "expected the columns"),
        ("S1,S2,OUTPUT", ["1,2,left", "1,left"], "line 3 has 2 columns, expected 3"),
        ("S1,S2,OUTPUT", ["1,near,left"] * 9, "a distance is not a number"),
        ("S1,S2,OUTPUT", ["1,nan,left"] * 9, "negative or not finite"),
        ("S1,S2,OUTPUT", ["1,-2,left"] * 9, "negative or not finite"),
        ("S1,S2,OUTPUT", [], "split 'train' has no rows"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, head: str, rows: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(table(tmp_path, rows, head), "train")


def test_an_unknown_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'later'; there are train and test"):
        load(table(tmp_path, ["1,2,left"] * 9), "later")


def test_the_real_run() -> None:
    folder = find("ultrasonic_wall_following")
    if folder is None:
        pytest.skip("the dataset ultrasonic_wall_following is not here")
    (train,), (test,) = load(folder, "train"), load(folder, "test")
    assert (len(train.data), len(test.data)) == (3492, 873)
    assert train.info == ring_info(24)
    assert 300 < train.data[train.data > 0].min() < train.data.max() < 5000
