"""The worker around a driver: how soon a device that comes back is found."""

import os
import pty
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from agent import capture
from agent.capture import Capture
from agent.mailbox import Mailbox
from drivers.base import Disconnected
from drivers.imu.witmotion import Witmotion, WitmotionConfig
from drivers.lib.serial_link import SerialLink
from hil.emulators.witmotion import WitmotionEmulator

ROWS = np.random.default_rng(0).integers(-3000, 3000, (500, 6)).astype(np.int16)
DEADLINE_S = 10.0
BACK_S = 1.0
NEVER_S = 600.0


@contextmanager
def running(worker: Capture) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop, lambda: None))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.005)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The back-off has grown without end."""
    monkeypatch.setattr(capture, "RETRY_FIRST_S", NEVER_S)
    monkeypatch.setattr(capture, "RETRY_LONGEST_S", NEVER_S)


@pytest.mark.usefixtures("patient")
def test_a_device_that_comes_is_found_whatever_the_back_off_says(tmp_path: Path) -> None:
    mailbox = Mailbox()
    worker = Capture(Witmotion("imu0", WitmotionConfig(port=str(tmp_path / "imu"), rate_hz=100)), [mailbox])
    with running(worker):
        wait_for(lambda: worker.info.state == "missing")
        with WitmotionEmulator(ROWS, 100, tmp_path / "imu") as sensor:
            begin_s = time.monotonic()
            assert mailbox.get(DEADLINE_S)
            assert time.monotonic() - begin_s < BACK_S
            for reopened in (1, 2, 3):
                sensor.unplug()
                wait_for(lambda: worker.info.state == "missing")
                begin_s = time.monotonic()
                sensor.plug()
                wait_for(lambda n=reopened: worker.info.reopened == n)
                assert time.monotonic() - begin_s < BACK_S
            assert worker.outage.sentence is None


@pytest.mark.usefixtures("patient")
def test_the_link_may_lead_to_another_terminal(tmp_path: Path) -> None:
    link = tmp_path / "imu"
    silent_master, silent_slave = pty.openpty()
    tty.setraw(silent_slave)
    link.symlink_to(os.ttyname(silent_slave))
    worker = Capture(Witmotion("imu0", WitmotionConfig(port=str(link), rate_hz=100)), [])
    with WitmotionEmulator(ROWS, 100, tmp_path / "other") as sensor, running(worker):
        wait_for(lambda: open_files().count(os.ttyname(silent_slave)) == 2)
        link.unlink()
        link.symlink_to(sensor.link.readlink())
        os.close(silent_slave)
        os.close(silent_master)
        begin_s = time.monotonic()
        wait_for(lambda: worker.info.state == "live")
        assert time.monotonic() - begin_s < BACK_S


def open_files() -> list[str]:
    """What the descriptors of this process lead to, those left out that are closed meanwhile."""
    files = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            files.append(str(descriptor.readlink()))
    return files


def test_while_a_device_is_away_the_worker_beats_and_costs_little(tmp_path: Path) -> None:
    beats: list[float] = []
    worker = Capture(Witmotion("imu0", WitmotionConfig(port=str(tmp_path / "imu"), rate_hz=100)), [])
    stop = threading.Event()
    spent_s = 0.0

    def run() -> None:
        nonlocal spent_s
        begin_s = time.thread_time()
        worker.run(stop, lambda: beats.append(time.monotonic()))
        spent_s = time.thread_time() - begin_s

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: bool(beats) and time.monotonic() - beats[0] > 3)
    stop.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert np.diff(beats).max() < 1
    assert spent_s < 0.15


def test_resting_ends_when_the_port_goes_away(tmp_path: Path) -> None:
    with WitmotionEmulator(ROWS, 100, tmp_path / "imu") as sensor:
        link = SerialLink(str(sensor.link), 115200)
        with closing(link):
            link.open()
            begin_s = time.monotonic()
            link.rest(0.1)
            assert 0.05 < time.monotonic() - begin_s < DEADLINE_S
            assert len(link.read(1)[0]) > 44
            threading.Timer(0.05, sensor.unplug).start()
            begin_s = time.monotonic()
            link.rest(NEVER_S)
            assert time.monotonic() - begin_s < DEADLINE_S
            with pytest.raises(Disconnected):
                while True:
                    link.read(1)


def test_where_a_port_appears() -> None:
    assert SerialLink("/dev/serial/by-id/x", 9600).place == "/dev/serial/by-id/x"
    assert SerialLink("1a86:7523", 9600).place == "/dev"
    assert Witmotion("imu0", WitmotionConfig(port="1a86:7523")).place == "/dev"
