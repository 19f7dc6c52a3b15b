"""What a pipeline runs to locate: packets of any size in, rows with the columns that were promised out."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drivers.packet import Packet, SensorInfo
from drivers.ultrasonic.array import Array, ArrayConfig
from drivers.ultrasonic.echo import Echo, EchoConfig
from hil.sonar.echoes import Reflector, pings
from hil.sonar.ranging import measure, square_mm, walk_mm
from models.datasets.recording import audio_info
from models.locate.session import EchoSession, LocateSpec, RangeSession, open_locate
from tests.models.sentence import one_sentence

pytest.importorskip("scipy")

SQUARE = tuple(map(tuple, square_mm(1000, 2).tolist()))
SPEC = LocateSpec(geometry_mm=SQUARE)
ARRAY = Array("array0", ArrayConfig(port="/dev/none", format="text", unit="mm")).info()
WAVES = Echo("echo0", EchoConfig(port="/dev/none")).info()
STEP_NS = 50_000_000


def distances(rows: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.rint(measure(walk_mm(rows, 2, 20, 400, rng), np.array(SQUARE), rng).ranges_mm).astype(np.int32)


def played(data: np.ndarray, size: int) -> list[tuple[object, ...]]:
    session = open_locate(SPEC, ARRAY)
    session.warm_up()
    rows = []
    for seq, first in enumerate(range(0, len(data), size)):
        packet = Packet("array0", seq, first * STEP_NS, STEP_NS, data[first : first + size].copy(), lost=int(seq == 2))
        for located in session.push(packet):
            common = replace(located.inference, encoded_ns=0, inferred_ns=0, lost=0)
            rows.append((common, tuple(located.columns.items())))
            assert set(located.columns) == set(session.columns)
    return rows


def test_packets_of_any_size_give_the_same_positions() -> None:
    data = distances()
    once = played(data, 60)
    assert 55 <= len(once) <= 60
    assert played(data, 1) == once
    assert played(data, 7) == once


def test_a_row_says_all_of_a_position() -> None:
    session = open_locate(SPEC, ARRAY)
    place = np.array([1500.0, 300.0])
    ranges = np.rint(np.linalg.norm(np.array(SQUARE) - place, axis=1)).astype(np.int32)
    session_rows = [*session.push(Packet("array0", 0, 7, STEP_NS, ranges[None], lost=3))]
    for seq in range(1, 10):
        session_rows += session.push(Packet("array0", seq, 7 + seq * STEP_NS, STEP_NS, ranges[None].copy()))
    first, last = session_rows[0], session_rows[-1]
    assert (first.inference.lost, first.inference.t0_ns, first.inference.end_ns) == (3, 7, 7 + STEP_NS)
    assert (last.inference.label, last.inference.score, last.inference.lost) == ("tracked", 1.0, 0)
    columns = last.columns
    assert (columns["x_mm"], columns["y_mm"]) == pytest.approx((1500, 300), abs=5)
    assert (columns["used"], columns["rejected"]) == (4, "")
    assert columns["sigma_mm"] == pytest.approx((columns["cov_xx_mm2"] + columns["cov_yy_mm2"]) ** 0.5, abs=0.1)  # type: ignore[operator]
    detour = ranges + np.array([0, 0, 300, 0], np.int32)
    (rejecting,) = session.push(Packet("array0", 10, 7 + 10 * STEP_NS, STEP_NS, detour[None]))
    assert (rejecting.columns["used"], rejecting.columns["rejected"]) == (3, "d2")
    assert rejecting.inference.score == 0.75


def test_in_space_there_is_a_third_axis() -> None:
    spec = LocateSpec(geometry_mm=tuple((x, y, 0.0) for x, y in SQUARE))
    session = open_locate(spec, ARRAY)
    assert isinstance(session, RangeSession)
    assert {"z_mm", "vz_mm_s", "cov_xz_mm2", "cov_zz_mm2"} < set(session.columns)


def test_waveforms_become_ranges_and_names(tmp_path: Path) -> None:
    session = open_locate(LocateSpec(), WAVES)
    assert isinstance(session, EchoSession)
    session.warm_up()
    rng = np.random.default_rng(0)
    data = np.concatenate([pings(2, [Reflector(800), Reflector(1400)], rng), pings(1, [], rng)])
    rows = list(session.push(Packet("echo0", 0, 0, 10**8, data)))
    assert [row.inference.label for row in rows] == ["echo", "echo", "nothing"]
    assert all(set(row.columns) == set(session.columns) for row in rows)
    assert rows[0].columns["range_mm"] == pytest.approx(811, abs=10)
    assert rows[0].columns["echoes"] == 2
    assert len(str(rows[0].columns["ranges_mm"]).split()) == 2
    assert np.isnan(rows[2].columns["range_mm"])
    warmer = open_locate(LocateSpec(sound_m_s=355.0), WAVES)
    (row, *_) = warmer.push(Packet("echo0", 0, 0, 10**8, data))
    assert row.columns["range_mm"] == pytest.approx(811 * 355 / 343, abs=10)


def imu() -> SensorInfo:
    return SensorInfo("imu", ("ax", "ay", "az"), ("g",) * 3, (1.0,) * 3, 50.0)


@pytest.mark.parametrize(
    ("spec", "info", "said"),
    [
        (LocateSpec(), ARRAY, "geometry_mm is missing"),
        (LocateSpec(geometry_mm=((0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0))), ARRAY, "all with 3 coordinates"),
        (LocateSpec(geometry_mm=SQUARE[:3]), ARRAY, "3 positions, the sensor has 4 channels"),
        (replace(SPEC, sound_m_s=340.0), ARRAY, "are for sensors that give echo waveforms"),
        (SPEC, imu(), "an ultrasonic sensor with distances in mm is needed, this one gives imu in g"),
        (
            LocateSpec(),
            audio_info(8000),
            "an ultrasonic sensor with distances in mm is needed, this one gives audio in FS",
        ),
        (SPEC, WAVES, "geometry_mm is for arrays"),
        (LocateSpec(), replace(WAVES, channels=("left", "right")), "gives no echo waveforms"),
        (LocateSpec(classes=Path("/nowhere.json")), WAVES, "/nowhere.json: cannot be read"),
    ],
)
def test_what_does_not_fit_is_one_sentence(spec: LocateSpec, info: SensorInfo, said: str) -> None:
    with one_sentence(said):
        open_locate(spec, info)


def test_a_packet_of_another_sensor_is_refused() -> None:
    with one_sentence("expected (n, 4)"):
        list(open_locate(SPEC, ARRAY).push(Packet("x", 0, 0, 1, np.zeros((1, 3), np.int16))))


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with one_sentence("pip install 'axond[locate]'"):
        open_locate(SPEC, ARRAY)
