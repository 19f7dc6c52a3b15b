"""What every driver must do; finds drivers and rigs by itself. A driver without a rig fails."""

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from drivers.base import Disconnected, Driver, Unavailable
from drivers.packet import EVENT, Packet
from drivers.registry import driver_class, kinds
from tests.contract.rig import Rig
from tests.contract.rigs_driver import RIGS, WITHOUT

FAMILIES = {"audio", "imu", "ultrasonic", "event_camera"}
DEADLINE_S = 10.0


@pytest.fixture(params=[*RIGS, *WITHOUT])
def rig(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    if request.param in WITHOUT:
        pytest.fail(
            f"driver {request.param} has nothing to be tried on: add CASES to the module of its emulator in "
            "hil/emulators, or a rig to tests/contract/rigs_*.py"
        )
    with RIGS[request.param](tmp_path, monkeypatch) as made:
        assert type(made.driver) in (driver_class(kind) for kind in kinds() if request.param.startswith(kind))
        yield made
        made.driver.close()


def take(driver: Driver, count: int) -> list[Packet]:
    packets: list[Packet] = []
    end = time.monotonic() + DEADLINE_S
    while len(packets) < count:
        assert time.monotonic() < end, f"{len(packets)} of {count} packets in {DEADLINE_S} s"
        packet = driver.read(0.2)
        if packet is not None:
            assert packet.dt_ns == 0 or packet.t0_ns <= time.monotonic_ns()
            packets.append(packet)
    return packets


def handles() -> tuple[int, int]:
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def test_info_says_what_the_integers_mean_before_open(rig: Rig) -> None:
    before = handles()
    info = rig.driver.info()
    assert info.family in FAMILIES
    assert len(info.channels) == len(info.units) == len(info.scale)
    assert info.rate_hz > 0
    assert all(scale > 0 for scale in info.scale)
    assert handles() == before
    rig.driver.open()
    take(rig.driver, 1)
    assert rig.driver.info() == info


def test_a_new_driver_holds_nothing_even_when_its_device_is_missing(rig: Rig) -> None:
    before = handles()
    for driver in filter(None, (rig.driver, rig.missing)):
        made = type(driver)("other", driver.cfg)
        assert (made.name, made.cfg) == ("other", driver.cfg)
        made.close()
    assert handles() == before


def test_packets_keep_the_contract(rig: Rig) -> None:
    rig.driver.open()
    packets = take(rig.driver, 6)
    info = rig.driver.info()
    assert [p.seq for p in packets] == list(range(6))
    assert {p.sensor for p in packets} == {"dut"}
    assert {p.data.dtype for p in packets} == {packets[0].data.dtype}
    for packet in packets:
        assert len(packet.data) > 0
        assert packet.lost >= 0
        assert not packet.data.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            packet.data[0] = 0
        if packet.data.dtype == EVENT:
            assert packet.dt_ns == 0
        else:
            assert packet.data.dtype.kind in "iu"
            assert packet.data.shape[1:] == (len(info.channels),)
            assert packet.dt_ns == pytest.approx(1e9 / info.rate_hz, rel=1e-3)
    assert np.diff([p.t0_ns for p in packets]).min() >= 0
    assert not any(np.shares_memory(a.data, b.data) for a, b in pairwise(packets))


def test_open_and_close_may_be_repeated_and_counting_starts_again(rig: Rig) -> None:
    rig.driver.close()
    for _ in range(3):
        rig.driver.open()
        assert take(rig.driver, 2)[0].seq == 0
        rig.driver.close()
        rig.driver.close()


def test_times_of_a_later_opening_are_later(rig: Rig) -> None:
    rig.driver.open()
    first = take(rig.driver, 2)
    rig.driver.close()
    rig.driver.open()
    assert take(rig.driver, 1)[0].t0_ns >= first[0].t0_ns


def test_read_keeps_its_time_out(rig: Rig) -> None:
    rig.driver.open()
    take(rig.driver, 1)
    for timeout in (0.0, 0.05):
        begin = time.monotonic()
        rig.driver.read(timeout)
        assert time.monotonic() - begin < timeout + 0.3


def test_openings_leave_nothing_behind(rig: Rig) -> None:
    rig.driver.open()
    rig.driver.close()
    before = handles()
    for _ in range(10):
        rig.driver.open()
        rig.driver.close()
    assert handles() == before


def test_a_missing_device_is_one_sentence_that_leaves_nothing_behind(rig: Rig) -> None:
    if rig.missing is None:
        pytest.skip("nothing can be missing")
    with pytest.raises(rig.missing_raises):
        rig.missing.open()
    before = handles()
    for _ in range(10):
        with pytest.raises(rig.missing_raises) as caught:
            rig.missing.open()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) > 20
    rig.missing.close()
    assert handles() == before


def test_unplugging_is_disconnected_until_it_is_plugged_in_again(rig: Rig) -> None:
    if rig.unplug is None or rig.plug is None:
        pytest.skip("cannot be unplugged here")
    rig.driver.open()
    take(rig.driver, 2)
    rig.unplug()
    with pytest.raises(Disconnected):
        take(rig.driver, 1000)
    rig.driver.close()
    with pytest.raises(Unavailable):
        rig.driver.open()
    rig.plug()
    rig.driver.open()
    assert take(rig.driver, 2)[0].seq == 0


def test_every_setting_can_be_said_in_toml(rig: Rig) -> None:
    said = rig.driver.cfg.model_dump(mode="json", exclude_none=True)
    assert type(rig.driver).Config.model_validate(said) == rig.driver.cfg
