"""Pipelines that locate, in the real agent: from an array's and an echo recorder's bytes to positions at the hub."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.__main__ import main
from agent.hub.store import HubStore
from hil.emulators.tick_frames import WAVEFORM, TextArrayEmulator, TickFrameEmulator
from hil.sonar.echoes import Reflector, pings
from hil.sonar.ranging import measure, square_mm
from models.locate.session import AXES
from tests.brokers import MOSQUITTO, Mosquitto
from tests.end_to_end.rig import Rig, axond, rig, wait_for

pytest.importorskip("scipy")

PLACE_MM = np.array([1300.0, 700.0])
CONFIG = """
[device]
id = "rig"
state_dir = "{state}"
[http]
listen = []
[sensors.array0]
driver = "ultrasonic.array"
port = "{array}"
format = "text"
unit = "mm"
[sensors.echo0]
driver = "ultrasonic.echo"
port = "{echo}"
[pipelines.where]
sensors = ["array0"]
[pipelines.where.locate]
geometry_mm = [[-500, -500], [500, -500], [500, 500], [-500, 500]]
[pipelines.what]
sensors = ["echo0"]
locate = {{}}
report = "on_change"
"""
UPLINK = '[uplink]\nhost = "127.0.0.1"\nport = {port}\nmetrics_interval_s = 1\n'


@pytest.fixture
def sensors(tmp_path: Path) -> Iterator[dict[str, Path]]:
    rng = np.random.default_rng(0)
    ranges = np.rint(measure(np.tile(PLACE_MM, (400, 1)), square_mm(1000, 2), rng).ranges_mm).astype(np.int64)
    waveforms = pings(40, [Reflector(900)], rng)
    array, echo = tmp_path / "array", tmp_path / "echo"
    with (
        TextArrayEmulator(ranges, 20, array, style="json"),
        TickFrameEmulator(waveforms, 10, echo, kind=WAVEFORM, baud=921600),
    ):
        yield {"array": array, "echo": echo}


def test_check_and_birth_name_what_locates(tmp_path: Path) -> None:
    path = tmp_path / "axond.toml"
    path.write_text(CONFIG.format(state=tmp_path, array="/dev/a", echo="/dev/e"))
    done = axond("check", "--config", str(path), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pipelines"] == {"where": "sonar-locate", "what": "sonar-locate"}


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_positions_reach_the_hub(tmp_path: Path, sensors: dict[str, Path]) -> None:
    broker = Mosquitto(tmp_path / "broker").start()
    try:
        with rig(tmp_path, broker.port) as made:
            made.config.write_text(CONFIG.format(state=made.state, **sensors) + UPLINK.format(port=broker.port))
            _flow(made)
    finally:
        broker.stop()


def _flow(made: Rig) -> None:
    made.hub()
    agent = made.agent()
    wait_for("40 positions and an echo", lambda: _has_reported(made))
    status = made.status()
    assert status["health"]["state"] == "ok", status["health"]
    assert status["pipelines"]["where"]["model"] == "sonar-locate"
    assert status["pipelines"]["where"]["latency"]["backend_p50_ms"] < 50
    wait_for("40 positions and an echo at the hub", lambda: _has_stored(made))
    assert agent.stop()[0] == 0
    with closing(HubStore.open_for_reading(made.hub_db)) as store:
        positions = store.results("rig", "where", 1000)
        echoes = store.results("rig", "what", 1000)
        (device,) = store.devices()
    off_mm = [np.hypot(row["x_mm"] - PLACE_MM[0], row["y_mm"] - PLACE_MM[1]) for row in positions]
    assert np.mean(np.array(off_mm) < 50) > 0.9
    assert {row["label"] for row in positions} == {"tracked"}
    assert any(row["rejected"] for row in positions)
    assert all(row["sigma_mm"] > 0 and 0 < row["score"] <= 1 for row in positions)
    assert echoes[0]["label"] == "echo"
    assert echoes[0]["range_mm"] == pytest.approx(911, abs=20)
    columns: dict[str, Any] = device.info["streams"]["where"]["columns"]
    assert {f"{axis}_mm" for axis in AXES[:2]} < set(columns)
    assert set(positions[0]) - {"seq", "stream", "boot", "t_unc_ms"} <= set(columns)


def _has_reported(made: Rig) -> bool:
    pipelines = made.status().get("pipelines", {})
    return bool(pipelines) and pipelines["where"]["reported"] >= 40 and pipelines["what"]["reported"] >= 1


def _has_stored(made: Rig) -> bool:
    stored = {line.stream: line.stored for line in made.hub_ledger()}
    return stored.get("where", 0) >= 40 and stored.get("what", 0) >= 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[-500, 500]]", "[-500]]", "pipelines.where.locate: geometry_mm: expected a list of positions"),
        ("[-500, 500]]", "[-500, 500]]\nnoise_mm = 1e-300", "pipelines.where.locate.noise_mm: Input should be greater"),
        ("[-500, 500]]", "[-500, 1e308]]", "a coordinate is beyond 1000000 mm"),
        ("locate = {}", f'model = "{"x" * 5000}"', "pipelines.what.model: cannot be looked for (File name too long)"),
        ("[-500, 500]]", "[-500, nan]]", "pipelines.where.locate.geometry_mm.3.1"),
        (", [-500, 500]]", "]", "3 positions, the sensor has 4 channels"),
        ("locate = {}", "", "pipelines.what.model: missing"),
        ("locate = {}", 'locate = {}\nmodel = "activity"', "pipelines.what.locate: it stands in the place of a model"),
        ("locate = {}", "locate = {geometry_mm = [[0, 0]]}", "geometry_mm is for arrays"),
        ("locate = {}", "locate = {geometri_mm = []}", "unknown key; known here: geometry_mm"),
        ("locate = {}", 'locate = {classes = "/none.json"}', "/none.json: cannot be read"),
        ("locate = {}", "locate = {}\nisolate = true", "are for models, not for locate"),
        ('"on_change"', '"detect"', "are for models, not for locate"),
        ('["echo0"]', '["echo0", "array0"]', "locate takes one sensor"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    text = CONFIG.format(state=tmp_path, array="/dev/a", echo="/dev/e")
    assert old in text
    path = tmp_path / "axond.toml"
    path.write_text(text.replace(old, new, 1))
    assert main(["check", "--config", str(path)]) == 78
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert said in text
