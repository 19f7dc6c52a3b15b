"""A recording as a sensor."""

import time
from pathlib import Path

import numpy as np
import pytest

from drivers import recording
from drivers.base import EndOfInput
from drivers.packet import EVENT, Packet, SensorInfo
from drivers.replay import Replay, ReplayConfig
from tests.drivers.recordings import INFO, packets, same


@pytest.fixture
def path(tmp_path: Path) -> Path:
    recording.save(tmp_path / "a.npz", INFO, packets())
    return tmp_path / "a.npz"


@pytest.mark.parametrize("pace", ["real", "fast"])
def test_packets_come_as_recorded_from_now_on(path: Path, pace: str) -> None:
    driver = Replay("imu7", ReplayConfig.model_validate({"path": path, "pace": pace}))
    assert driver.info() == INFO
    opened_ns = time.monotonic_ns()
    driver.open()
    played = []
    for original in packets():
        packet = driver.read(1)
        assert packet is not None
        assert same(packet, original)
        assert packet.sensor == "imu7"
        late_ns = time.monotonic_ns() - packet.t0_ns - packet.dt_ns * len(packet.data)
        assert late_ns >= 0 if pace == "real" else late_ns < 0
        played.append(packet)
    assert 0 <= played[0].t0_ns - opened_ns < 500_000_000
    shifts = {p.t0_ns - o.t0_ns for p, o in zip(played, packets(), strict=True)}
    assert len(shifts) == 1
    assert driver.counters.lost == 2
    with pytest.raises(EndOfInput, match="last of 5 packets"):
        driver.read(1)
    driver.close()


def test_a_loop_goes_on_where_the_recording_ends(path: Path) -> None:
    driver = Replay("imu0", ReplayConfig(path=path, pace="fast", loop=True))
    driver.open()
    played = [driver.read(1) for _ in range(12)]
    driver.close()
    made = [p for p in played if p]
    assert [p.seq for p in made] == list(range(12))
    assert same(made[10], made[0])
    assert made[5].t0_ns == made[4].t0_ns + made[4].dt_ns * len(made[4].data)


def test_events_are_moved_with_their_packet(tmp_path: Path) -> None:
    events = np.zeros(3, EVENT)
    events["t_ns"] = [100, 200, 300]
    info = SensorInfo("event_camera", (), (), (), 0.0)
    recording.save(tmp_path / "e.npz", info, [Packet("cam0", 0, 100, 0, events)])
    driver = Replay("cam0", ReplayConfig(path=tmp_path / "e.npz", pace="fast"))
    driver.open()
    packet = driver.read(1)
    assert packet is not None
    assert (packet.data.copy().view(EVENT)["t_ns"] - packet.t0_ns).tolist() == [0, 100, 200]
