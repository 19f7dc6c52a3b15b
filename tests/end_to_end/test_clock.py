"""A device whose clock starts in 1970 and leaps until it is known: nothing is lost or out of order, all stamps right.

Real agent, broker and hub; CLOCK_REALTIME alone is moved, for each process by a shim (``hil.clock_shim``).
"""

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.hub.reader import HubReader
from agent.wire import decode
from drivers.synthetic import motion
from hil.clock_shim.clock import COMPILER, ShimClock
from hil.emulators.witmotion import WitmotionEmulator
from models.datasets.recording import IMU_INFO
from tests.brokers import MOSQUITTO, Mosquitto
from tests.end_to_end.rig import Process, Rig, axond, made_bundle, rig
from tests.end_to_end.rig import wait_for as wait_closely_for

pytestmark = [
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
    pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 waits by CLOCK_REALTIME, which the shim moves"),
    pytest.mark.skipif(COMPILER is None, reason="gcc is not installed: the shim of the clock cannot be built"),
]

TEN_YEARS_S = 10 * 365.25 * 86400
HOUR_S = 3600.0
CONFIG = """
[device]
id = "rig"
state_dir = "{state}"
[sensors.imu0]
driver = "imu.witmotion"
port = "{imu}"
baud = 115200
rate_hz = 50
[pipelines.motion]
sensors = ["imu0"]
model = "made-quick"
backend = "reference"
[outbox]
max_age_h = 2
[uplink]
host = "127.0.0.1"
port = {port}
metrics_interval_s = 1
[http]
listen = []
"""


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Each look opens databases: not so often that it is most of the work."""
    wait_closely_for(what, condition, 60.0, 0.1)


class Site:
    """An installation whose device and hub have clocks of their own."""

    def __init__(self, made: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = made
        self.device_clock = ShimClock(folder, "device")
        self.hub_clock = ShimClock(folder, "hub")
        self._monkeypatch = monkeypatch

    def agent(self) -> Process:
        with self._monkeypatch.context() as patch:
            for name, value in self.device_clock.environment.items():
                patch.setenv(name, value)
            process = self.rig.agent()
        wait_for("the agent answers", lambda: bool(self.rig.status()))
        return process

    def hub(self, *options: str) -> Process:
        with self._monkeypatch.context() as patch:
            for name, value in self.hub_clock.environment.items():
                patch.setenv(name, value)
            arguments = ("hub", "run", "--port", str(self.rig.port), "--db", str(self.rig.hub_db))
            process = Process("hub", self.rig.folder, *arguments, *options)
        self.rig.running.append(process)
        return process

    def more_results(self, count: int = 3) -> None:
        """Committed on the device, after now."""
        before = sum(self.rig.committed().values())
        wait_for("more results", lambda: sum(self.rig.committed().values()) >= before + count)

    def stored(self) -> int:
        return sum(line.stored for line in self.rig.hub_ledger())

    def rows(self) -> list[dict[str, Any]]:
        """As the hub gives them, in its order."""
        with closing(HubReader.open_for_reading(self.rig.hub_db)) as store:
            return store.results("rig", "motion", 10**6)

    def captured_us(self) -> dict[tuple[str, int], int]:
        """Boot and number -> CLOCK_MONOTONIC when it was captured, from the batches as they came."""
        times: dict[tuple[str, int], int] = {}
        with closing(sqlite3.connect(self.rig.hub_db)) as db:
            payloads = db.execute("SELECT payload FROM batches WHERE stream = 'motion'").fetchall()
        for (payload,) in payloads:
            batch = decode(payload)
            assert batch.offset_us is not None
            for number, t_us in enumerate(batch.t_us, batch.seq0):
                times[batch.boot, number] = t_us - batch.offset_us
        return times


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    broker = Mosquitto(tmp_path / "broker").start()
    rows = motion("walking", 3000, np.random.default_rng(1))
    try:
        with WitmotionEmulator(rows, 50.0, tmp_path / "imu"), rig(tmp_path, broker.port) as made:
            window = {"mode": "time", "samples": 32, "hop": 8}
            made_bundle(made.state / "models", "made-quick", IMU_INFO, window, {"kind": "imu_delta"})
            made.config.write_text(CONFIG.format(state=made.state, imu=made.imu, port=broker.port))
            yield Site(made, tmp_path, monkeypatch)
    finally:
        broker.stop()


def known_stamps(site: Site) -> bool:
    """All of the last half hour, by the clock that is right."""
    rows, now_us = site.rows(), time.time_ns() // 1000
    return bool(rows) and all(
        row["t_unc_ms"] is not None and 0 < now_us - row["t_us"] < HOUR_S * 1e6 / 2 for row in rows
    )


def check_everything(site: Site) -> None:
    """Every result is at the hub once, in the order of capture, at the time at which it was captured."""
    rows, captured_us = site.rows(), site.captured_us()
    truth_us = (time.time_ns() - time.monotonic_ns()) // 1000
    assert len(rows) == len({(row["boot"], row["seq"]) for row in rows})
    for row in rows:
        wrong_ms = abs(row["t_us"] - (captured_us[row["boot"], row["seq"]] + truth_us)) / 1000
        assert wrong_ms <= row["t_unc_ms"] + 1.0, row
        assert row["t_unc_ms"] < 250, "some minutes without a time service are no reason for more"
    for one, other in pairwise(rows):
        assert one["t_us"] < other["t_us"], (one, other)
        assert (one["boot"], one["seq"] + 1) == (other["boot"], other["seq"]) or other["seq"] == 1, (one, other)


def nothing_given_up(site: Site) -> bool:
    status = site.rig.status()
    assert all(counts["balanced"] and not counts["evicted"] for counts in status["ledger"].values())
    assert status["outbox"]["oldest_age_s"] < 600, "nothing here is older than this test"
    return True


def leaps_ms(site: Site) -> list[float]:
    """Of which the device has told."""
    with closing(HubReader.open_for_reading(site.rig.hub_db)) as store:
        return [one.event["by_ms"] for one in store.events("rig") if one.event.get("event") == "clock"]


def test_from_1970_over_every_leap_to_the_right_time(site: Site) -> None:
    clock, installed = site.device_clock, site.rig
    clock.set_to(12.0)
    site.hub_clock.synchronise()
    hub = site.hub()
    agent = site.agent()
    wait_for("results at the hub", lambda: site.stored() >= 3)
    assert installed.status()["clock"]["source"] == "wrong"
    assert "the clock is not set: it says 1970-01-01T" in installed.status()["health"]["reasons"]["clock"]
    assert {row["t_unc_ms"] for row in site.rows()} == {None}, "nobody knows, and nobody claims to"
    agent.kill()

    agent = site.agent()
    site.more_results()
    clock.synchronise()
    wait_for("the stamps of both runs are known", lambda: known_stamps(site))
    assert installed.status()["clock"]["source"] == "synchronised"
    assert "clock" not in installed.status()["health"]["reasons"]
    check_everything(site)
    shown = axond("status", "--config", str(installed.config)).stdout
    assert "clock   synchronised, right to 5 ms, leapt 1 times, last by +" in shown
    assert hub.stop()[0] == 0

    # While nobody takes the results: ten years on as it runs, across a restart; an hour back likewise.
    clock.synchronise(TEN_YEARS_S)
    wait_for("the leap is seen", lambda: installed.status()["clock"]["steps"] == 2)
    assert installed.status()["clock"]["last_step_ms"] == pytest.approx(TEN_YEARS_S * 1000, abs=1000)
    site.more_results()
    assert nothing_given_up(site)
    agent.kill()
    agent = site.agent()
    site.more_results()
    assert nothing_given_up(site)
    clock.set_to(time.time() - HOUR_S)
    site.more_results()
    assert agent.stop()[0] == 0
    agent = site.agent()
    site.more_results()
    assert installed.status()["clock"]["source"] == "wrong", "it was later already"
    assert nothing_given_up(site)

    committed = installed.committed()
    hub = site.hub("--keep-days", "30")
    clock.synchronise()
    wait_for("what waited is at the hub", lambda: installed.missing_at_hub(committed) == {})
    wait_for("the last clock counts", lambda: known_stamps(site))
    wait_for("the leap is told", lambda: any(abs(by_ms - HOUR_S * 1000) < 1000 for by_ms in leaps_ms(site)))
    assert hub.stop()[0] == 0
    stored = site.stored()
    site.hub_clock.synchronise(TEN_YEARS_S)
    site.hub("--keep-days", "30")
    wait_for("more at the hub", lambda: site.stored() >= stored + 3)
    committed = installed.committed()
    wait_for("everything at the hub", lambda: installed.missing_at_hub(committed) == {})
    assert sum(line.expired for line in installed.hub_ledger()) == 0, "the hub's own clock has leapt"
    assert [line.problem for line in installed.hub_ledger() if line.problem] == []
    check_everything(site)
    assert len({row["boot"] for row in site.rows()}) == 4
    assert agent.stop()[0] == 0
    assert "Traceback" not in agent.text() + hub.text()
