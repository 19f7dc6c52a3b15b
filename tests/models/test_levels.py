"""The encoder of slow channels: where a level is, how it moves, and that a dead sensor says nothing."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from drivers.imu.csv import Csv, CsvConfig
from drivers.packet import Packet, SensorInfo
from hil.emulators.imu_csv import CsvEmulator
from models.base import BadModel, Window
from models.datasets.pumps import PUMPS_INFO
from models.encoders.levels import Levels, LevelsConfig
from models.registry import make_encoder, open_bundle
from models.select import load_backend
from models.session import Session

PERIOD_NS = 100_000_000
INFO = SensorInfo("vibration", ("spare", "p", "v"), ("1", "MPa", "mm/s"), (1.0, 0.001, 0.01), 10.0)
CONFIG = LevelsConfig(
    channels=("v", "p"), units=("mm/s", "MPa"), low=(0.0, 0.0), high=(10.0, 1.0), cells=11, steps=(0.1,), margin=0.2
)


def raster(p: object, v: object, cfg: LevelsConfig = CONFIG) -> npt.NDArray[np.uint8]:
    """Of ten samples with these values in MPa and mm/s: (steps, v and p, cells then rise then fall)."""
    physical = np.stack([np.broadcast_to(np.asarray(x, np.float64), 10) for x in (7.0, p, v)], axis=1)
    encoder = Levels(cfg, INFO, 10)
    out = np.full(encoder.shape, 7, np.uint8)
    data = np.rint(physical / INFO.scale).astype(np.int32)
    encoder.encode(Window(0, PERIOD_NS, data, INFO), out)
    return out.reshape(len(out), 2, -1)


def test_a_level_is_where_it_is_between_the_two_nearest_cells() -> None:
    made = raster(p=0.55, v=3.0)
    assert np.flatnonzero(made[0, 0]).tolist() == [3]
    assert np.flatnonzero(made[0, 1]).tolist() == [5, 6]
    assert (made == made[0]).all()


def test_a_wider_cell_overlaps_more() -> None:
    wide = CONFIG.model_copy(update={"width": 2.5})
    assert np.flatnonzero(raster(p=0.5, v=3.0, cfg=wide)[0, 0]).tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("v", "cells"), [(-1.0, [0]), (11.9, [10]), (-2.1, []), (12.1, []), (20_000_000.0, [])])
def test_outside_its_range_it_is_at_the_end_and_far_outside_nowhere(v: float, cells: list[int]) -> None:
    assert np.flatnonzero(raster(p=0.5, v=v)[0, 0]).tolist() == cells


def test_rising_and_falling_are_told_apart_in_parts_of_the_range() -> None:
    made = raster(p=0.5, v=[1, 1, 1.8, 1.8, 4, 4, 3, 3, 3, 3.4])
    assert np.flatnonzero(made[:, 0, 11]).tolist() == [2, 4]
    assert np.flatnonzero(made[:, 0, 12]).tolist() == [6]
    assert not made[:, 1, 11:].any()


def test_a_sensor_that_dies_does_not_look_like_one_that_falls() -> None:
    made = raster(p=0.5, v=[4] * 5 + [-400] * 3 + [6] * 2)
    assert not made[5:8, 0].any()
    assert not made[:, 0, 11:].any()
    assert made[8:, 0, 6].all()


def test_a_step_of_several_samples_has_the_last_level_and_every_crossing() -> None:
    made = raster(p=0.5, v=[1, 3, 5, 2, 2, 2, 2, 2, 8, 8], cfg=CONFIG.model_copy(update={"pool": 5}))
    assert [np.flatnonzero(step).tolist() for step in made[:, 0]] == [[2, 11, 12], [8, 11]]


def test_the_order_of_the_sensor_does_not_matter() -> None:
    turned = SensorInfo("vibration", ("v", "p"), ("mm/s", "MPa"), (0.01, 0.001), 10.0)
    encoder = Levels(CONFIG, turned, 10)
    out = np.zeros(encoder.shape, np.uint8)
    encoder.encode(Window(0, PERIOD_NS, np.tile(np.array([[300, 550]], np.int16), (10, 1)), turned), out)
    assert (out.reshape(10, 2, -1) == raster(p=0.55, v=3.0)).all()


@pytest.mark.parametrize(
    ("info", "samples", "words"),
    [
        (SensorInfo("vibration", ("p",), ("MPa",), (0.001,), 10.0), 10, "wants channel v in mm/s, .* has p in MPa"),
        (SensorInfo("vibration", ("p", "v"), ("bar", "mm/s"), (1.0, 1.0), 10.0), 10, "p in MPa"),
        (SensorInfo("vibration", ("p", "v"), ("MPa", "mm/s"), (1.0, 1.0), 100.0), 10, "gives 100 Hz"),
        (INFO, 9, "9 is no multiple"),
    ],
)
def test_another_sensor_is_refused(info: SensorInfo, samples: int, words: str) -> None:
    with pytest.raises(BadModel, match=words):
        Levels(CONFIG.model_copy(update={"pool": 2}), info, samples)


def test_a_window_of_another_length_is_refused() -> None:
    with pytest.raises(BadModel, match="expected"):
        encoder = Levels(CONFIG, INFO, 10)
        encoder.encode(Window(0, PERIOD_NS, np.zeros((9, 3), np.int32), INFO), np.zeros(encoder.shape, np.uint8))


@pytest.mark.parametrize(
    "wrong", [{"low": (0.0,)}, {"high": (0.0, 1.0)}, {"steps": (0.0,)}, {"cells": 1}, {"cell": 9}, {"low": (0, np.nan)}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LevelsConfig.model_validate({**CONFIG.model_dump(), **wrong})


def test_a_board_on_a_serial_port_feeds_the_shipped_model(tmp_path: Path) -> None:
    """Lines at the bench's rate, from the driver as the configuration in drivers/imu/csv.py sets it up."""
    bundle = open_bundle("pump-condition", [])
    steady = np.array([0.18, 0.175, 1.03, 0.77, 0.93, 0.32])
    rows = steady + np.random.default_rng(1).normal(0, 1, (400, 6)) * [0.001, 0.001, 0.01, 0.01, 0.01, 0.01]
    config = CsvConfig(
        port=str(tmp_path / "bench"),
        family="vibration",
        rate_hz=10,
        columns=PUMPS_INFO.channels,
        units=PUMPS_INFO.units,
        scale=PUMPS_INFO.scale,
        limit=(2.0, 2.0, 30.0, 30.0, 30.0, 30.0),
    )
    driver = Csv("bench", config)
    assert driver.info() == PUMPS_INFO
    _, backend = load_backend(bundle, "reference")
    session = Session(bundle, backend, driver.info())
    with CsvEmulator(rows, 10, tmp_path / "bench"):
        driver.open()
        packet = first_packet(driver)
        driver.close()
    # The rest of ten seconds need not be waited for.
    later = [
        Packet(
            "bench", i, packet.t0_ns + i * 100_000_000, 100_000_000, np.rint(rows[i : i + 1] * 1000).astype(np.int32)
        )
        for i in range(1, 100)
    ]
    decided = [one for part in (packet, *later) for one in session.push(part)]
    assert [one.label for one in decided] == ["1_pump"]


def test_to_the_shipped_model_a_dead_bench_says_nothing() -> None:
    bundle = open_bundle("pump-condition", [])
    encoder = make_encoder(bundle, PUMPS_INFO)
    out = np.ones(encoder.shape, np.uint8)
    encoder.encode(Window(0, PERIOD_NS, np.zeros((bundle.windows.samples, 6), np.int32), PUMPS_INFO), out)
    assert not out.any()


def steps(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    made: npt.NDArray[np.int32] = np.rint(rows / PUMPS_INFO.scale).astype(np.int32)
    return made


def first_packet(driver: Csv) -> Packet:
    for _ in range(50):
        packet = driver.read(0.2)
        if packet is not None:
            return packet
    pytest.fail("no line was read in ten seconds")
