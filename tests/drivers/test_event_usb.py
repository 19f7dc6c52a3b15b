"""The USB camera driver on an emulated DVXplorer: real child process, real vendor library, real libusb."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from drivers.base import Disconnected, Misconfigured, Unavailable
from drivers.event_camera import usb_process
from drivers.event_camera.usb import UsbCamera, UsbConfig
from drivers.packet import Packet
from hil.emulators.dvxplorer import HEIGHT, SERIAL, WIDTH, DvxplorerEmulator, missing
from tests.conftest import eventually

pytest.importorskip("neuromorphic_drivers")
pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

COUNT = 20_000
SPAN_US = 900_000
HOLDER = """
import sys, threading
from drivers.event_camera.usb import UsbCamera, UsbConfig
camera = UsbCamera("camera", UsbConfig(device="dvxplorer"))
camera.open()
print(camera._child.pid, flush=True)
threading.Event().wait()
"""


def made() -> np.ndarray:
    rng = np.random.default_rng(0)
    events = np.zeros(COUNT, usb_process.WIRE)
    events.dtype.names = ("t", "x", "y", "on")
    events["t"] = np.sort(rng.integers(0, SPAN_US, COUNT))
    events["x"], events["y"] = rng.integers(0, WIDTH, COUNT), rng.integers(0, HEIGHT, COUNT)
    events["on"] = rng.integers(0, 2, COUNT)
    return events


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DvxplorerEmulator]:
    with DvxplorerEmulator(made(), tmp_path, repeats=True) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def camera(emulator: DvxplorerEmulator) -> Iterator[UsbCamera]:
    source = UsbCamera("camera", UsbConfig(device="dvxplorer", serial=SERIAL))
    source.open()
    yield source
    source.close()


def take(source: UsbCamera, events: int) -> list[Packet]:
    packets: list[Packet] = []
    end_s = time.monotonic() + 20
    while sum(len(p.data) for p in packets) < events:
        assert time.monotonic() < end_s, "too few events in 20 s"
        packet = source.read(0.2)
        if packet is not None:
            packets.append(packet)
    return packets


def child_of(source: UsbCamera) -> psutil.Process:
    child = source._child
    assert child is not None
    return psutil.Process(child.pid)


def loss(source: UsbCamera, deadline_s: float) -> str:
    """Reads until Disconnected; returns its sentence."""
    end_s = time.monotonic() + deadline_s
    with pytest.raises(Disconnected) as caught:
        while time.monotonic() < end_s:
            source.read(0.1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_event_is_exact_over_wraps_of_the_counter(camera: UsbCamera) -> None:
    sent = made()
    packets = take(camera, COUNT * 3 // 2)
    assert [p.seq for p in packets] == list(range(len(packets)))
    assert sum(p.lost for p in packets) == 0
    assert camera.counters.lost == camera.counters.overruns == camera.counters.out_of_range == 0
    got = np.concatenate([p.data for p in packets])
    for column in ("x", "y", "on"):
        assert np.array_equal(got[column][:COUNT], sent[column])
        assert np.array_equal(got[column][COUNT:], sent[column][: len(got) - COUNT])
    assert (np.diff(got["t_ns"]) >= 0).all()
    assert got["t_ns"][-1] <= time.monotonic_ns()
    lap_us = (SPAN_US // 0x8000 + 1) * 0x8000
    t_us = np.concatenate([sent["t"], sent["t"] + lap_us]).astype(np.int64)
    at = 0
    for packet in packets:
        # The distances are the camera's own; a packet's beginning may be held to lie behind the packet before it.
        half = len(packet.data) // 2
        exact_ns = np.diff(t_us[at : at + len(packet.data)])[half:] * 1000
        assert np.array_equal(np.diff(packet.data["t_ns"])[half:], exact_ns)
        at += len(packet.data)
    # Most of them: a reader that had to wait for a busy machine finds more at once.
    assert np.median([len(p.data) for p in packets]) < COUNT // 10


def test_unplugging_is_survived_and_the_next_opening_plays_again(
    camera: UsbCamera, emulator: DvxplorerEmulator
) -> None:
    for _ in range(3):
        take(camera, 1000)
        emulator.unplug()
        loss(camera, 4)
        camera.close()
        with pytest.raises(Unavailable, match="no such camera"):
            camera.open()
        emulator.plug()
        camera.open()
        assert take(camera, 1000)[0].seq == 0


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL])
def test_a_child_that_breaks_is_disconnected_and_the_next_is_fresh(camera: UsbCamera, number: signal.Signals) -> None:
    take(camera, 1000)
    first = child_of(camera)
    os.kill(first.pid, number)
    assert number.name in loss(camera, 2)
    camera.close()
    assert not first.is_running()
    camera.open()
    assert child_of(camera).pid != first.pid
    assert np.array_equal(take(camera, 1000)[0].data["x"][:5], made()["x"][:5])


def test_a_child_that_hangs_is_disconnected_within_the_deadline(camera: UsbCamera) -> None:
    take(camera, 1000)
    first = child_of(camera)
    os.kill(first.pid, signal.SIGSTOP)
    begin_s = time.monotonic()
    assert "no sign" in loss(camera, 5)
    assert time.monotonic() - begin_s < 4
    camera.close()
    assert not first.is_running()
    camera.open()
    take(camera, 1000)


def test_a_reader_that_pauses_gets_the_stream_behind_it(camera: UsbCamera) -> None:
    take(camera, 1000)
    threading.Event().wait(2.5)
    take(camera, 5000)
    assert camera.counters.lost == 0


def test_no_child_outlives_a_killed_parent(emulator: DvxplorerEmulator) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
    segments = set(Path("/dev/shm").iterdir())
    parent.kill()
    parent.wait()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child ends", 5)
    assert not set(Path("/dev/shm").iterdir()) - segments


def test_another_serial_number_and_another_type_are_not_there(emulator: DvxplorerEmulator) -> None:
    for config in (UsbConfig(device="dvxplorer", serial="DVX99999"), UsbConfig(device="evk4")):
        source = UsbCamera("camera", config)
        with pytest.raises(Unavailable, match="no such camera"):
            source.open()
        source.close()


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = "import sys; sys.modules['neuromorphic_drivers'] = None; "
    monkeypatch.setattr(usb_process, "START", absent + usb_process.START)
    with pytest.raises(Misconfigured, match=r"axond\[events\]"):
        UsbCamera("camera", UsbConfig(device="dvxplorer")).open()


def test_transfers_that_are_dropped_before_the_first_one_comes_are_losses() -> None:
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb") as reader, os.fdopen(write_fd, "wb"):
        gathered = usb_process.Gathered(write_fd, packet_ms=0)
        ring = SimpleNamespace(raw_packets=0, dropped_packets=3)
        gathered.add(SimpleNamespace(ring=ring), None)
        packet = SimpleNamespace(polarity_events=made()[:2], polarity_events_overflow_indices=None)
        gathered.add(SimpleNamespace(ring=SimpleNamespace(raw_packets=1, dropped_packets=3)), packet)
        kind, length, lost, _, _ = usb_process.HEADER.unpack(reader.read(usb_process.HEADER.size))
    assert (kind, length, lost) == (usb_process.EVENTS, 2 * usb_process.WIRE.itemsize, 3)
