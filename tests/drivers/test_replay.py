import resource
import time
from pathlib import Path

import numpy as np
import pytest

from drivers import recording
from drivers.base import EndOfInput, Misconfigured
from drivers.packet import EVENT, Packet, SensorInfo
from drivers.replay import Replay, ReplayConfig

INFO = SensorInfo("imu", ("x", "y"), ("g", "g"), (0.5, 0.25), 100.0)


def packets(count: int = 5, start_ns: int = 7_000_000_000) -> list[Packet]:
    rng = np.random.default_rng(0)
    made, at_ns = [], start_ns
    for i in range(count):
        lost = 2 if i == 2 else 0
        at_ns += lost * 10_000_000
        data = rng.integers(-99, 99, (i + 1, 2)).astype(np.int16)
        made.append(Packet("imu0", i, at_ns, 10_000_000, data, lost))
        at_ns += 10_000_000 * len(data)
    return made


def same(left: Packet, right: Packet) -> bool:
    return np.array_equal(left.data, right.data) and left.data.dtype == right.data.dtype and left.lost == right.lost


@pytest.fixture
def path(tmp_path: Path) -> Path:
    recording.save(tmp_path / "a.npz", INFO, packets())
    return tmp_path / "a.npz"


def test_what_was_saved_is_loaded(path: Path) -> None:
    loaded = recording.load(path)
    assert loaded.info == INFO
    assert loaded.sensor == "imu0"
    for left, right in zip(loaded.packets, packets(), strict=True):
        assert same(left, right)
        assert (left.seq, left.t0_ns, left.dt_ns) == (right.seq, right.t0_ns, right.dt_ns)
        assert not left.data.flags.writeable
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    before = path.read_bytes()
    mixed = [*packets(1), Packet("imu0", 1, 0, 1, np.zeros((1, 2), np.int32))]
    with pytest.raises(ValueError, match="one sensor and one integer type"):
        recording.save(path, INFO, mixed)
    with pytest.raises(ValueError, match="one packet or more"):
        recording.save(path, INFO, [])
    narrow = [*packets(1), Packet("imu0", 1, 0, 1, np.zeros((1, 3), np.int16))]
    with pytest.raises(ValueError, match="dimensions"):
        recording.save(path, INFO, narrow)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


def test_a_disk_that_does_not_take_it_keeps_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    noise = np.random.default_rng(1).integers(-9999, 9999, (5000, 2)).astype(np.int16)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            recording.save(path, INFO, [Packet("imu0", 0, 0, 1, noise)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


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


def damaged(path: Path, how: str) -> None:
    whole = path.read_bytes()
    arrays = dict(np.load(path))
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "flipped":
        middle = len(whole) // 3
        path.write_bytes(whole[:middle] + bytes(b ^ 0xFF for b in whole[middle : middle + 40]) + whole[middle + 40 :])
    elif how == "text":
        path.write_text("not an archive")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "one array":
        with path.open("wb") as file:
            np.save(file, arrays["data"])
    else:
        name, _, value = how.partition("=")
        if name == "drop":
            del arrays[value]
        elif name == "pickle":
            arrays["data"] = np.array([[{}, {}]], object)
        elif name == "header":
            arrays["header"] = np.frombuffer(value.encode(), np.uint8)
        elif name == "length":
            arrays["length"] = arrays["length"] + int(value)
        elif name == "dtype":
            arrays["data"] = arrays["data"].astype(value)
        elif name == "t0_ns":
            arrays["t0_ns"] = arrays["t0_ns"][:-1]
        with path.open("wb") as file:
            np.savez(file, **arrays)


FOREIGN = (
    '{"format": "x", "sensor": "a", "info": {"family": "imu", "channels": [], "units": [], "scale": [], "rate_hz": 1}}'
)
DAMAGES = (
    *("cut", "flipped", "text", "empty", "one array", "drop=lost", "drop=header", "pickle=", "header={}", "header=[1]"),
    *("header=\xff", f"header={FOREIGN}", "length=1", "length=-9", "dtype=float64", "t0_ns="),
)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_broken_recording_is_one_sentence(path: Path, how: str) -> None:
    damaged(path, how)
    for action in (Replay("imu0", ReplayConfig(path=path)).open, Replay("imu0", ReplayConfig(path=path)).info):
        with pytest.raises(Misconfigured, match=r"a.npz: cannot be replayed, .*; record it again") as caught:
            action()
        assert "\n" not in str(caught.value)


def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"none.npz: cannot be opened \(No such file or directory\)"):
        recording.load(tmp_path / "none.npz")


def test_any_damaged_byte_is_noticed_or_harmless(path: Path) -> None:
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.choice(len(whole), 150, replace=False).tolist():
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << (position % 8))]) + whole[position + 1 :])
        try:
            loaded = recording.load(path)
        except Misconfigured:
            refused += 1
        else:
            assert all(same(left, right) for left, right in zip(loaded.packets, packets(), strict=True))
    assert refused > 50
