"""The real firmware in simavr, before virtual HC-SR04, read by the driver over a terminal."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from drivers.ultrasonic.array import Array, ArrayConfig
from tests.conftest import eventually
from tests.drivers.damage import read_until, samples
from tests.drivers.firmware import SOURCE, build

ECHO_US = [1166, 5830, 0, 12345]
RESOLUTION_US = 12
"""The firmware's loop looks at an echo pin so often, at worst."""


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("firmware")
    return build("all", "ultrasonic_array.elf", folder, needs=["make", "avr-gcc", "avr-size", "avr-objcopy"])


@pytest.fixture
def terminal(firmware: Path, tmp_path: Path) -> Iterator[Path]:
    simavr = Path("/usr/include/simavr/sim_avr.h")
    rig = build("rig", "simavr_rig", firmware.parent, needs=["make", "cc"], header=simavr)
    link = tmp_path / "array"
    process = subprocess.Popen([rig, firmware, link, *map(str, ECHO_US)], stdin=subprocess.PIPE)
    try:
        eventually(link.is_symlink, "the simulated board's terminal")
        yield link
        assert process.poll() is None, "the simulated board has stopped"
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(10)


def test_it_fits_the_chip(firmware: Path) -> None:
    sizes = subprocess.run(["avr-size", firmware], capture_output=True, text=True, check=True).stdout
    text, data, bss = map(int, sizes.splitlines()[1].split()[:3])
    assert text + data < 32_256
    assert data + bss < 1024


def test_a_ring_of_24_is_told_that_its_frames_need_a_longer_cycle(firmware: Path, tmp_path: Path) -> None:
    source = shutil.copytree(SOURCE, tmp_path / "ring", ignore=shutil.ignore_patterns("build"))
    pins = " ".join(f"X({trigger}, {bit}, {echo}, {bit})" for trigger, echo in ("AC", "LF", "BK") for bit in range(8))
    header = source / "pins.h"
    header.write_text(
        re.sub(r"(#define TRANSDUCERS\(X\)) \\.*?\n\n", rf"\1 {pins}\n\n", header.read_text(), flags=re.DOTALL)
    )
    make = ["make", "-C", source, "MCU=atmega2560"]
    short = subprocess.run(make, capture_output=True, text=True, check=False)
    assert short.returncode != 0
    assert "the groups and the frame do not fit the period" in short.stderr
    subprocess.run([*make, "DEFINES=-DPERIOD_US=60000UL"], capture_output=True, check=True)


def test_the_driver_reads_the_firmware(terminal: Path) -> None:
    driver = Array("ring0", ArrayConfig(port=str(terminal)))
    driver.open()
    packets = read_until(driver, lambda p: samples(p) >= 30, deadline_s=30)
    driver.close()
    data = np.concatenate([packet.data for packet in packets])
    assert np.abs(data - ECHO_US).max() <= RESOLUTION_US
    assert (data[:, 2] == 0).all()
    assert driver.counters.out_of_range == len(data)
    assert driver.counters.bad_checksum == driver.counters.lost == 0
    assert driver.counters.resync_bytes < 20


def test_frames_come_20_times_a_second_of_the_boards_own_clock(terminal: Path) -> None:
    driver = Array("ring0", ArrayConfig(port=str(terminal)))
    parser = driver.new_parser()
    ticks: list[int] = []
    with terminal.open("rb", buffering=0) as port:
        while len(ticks) < 20:
            ticks += parser.feed(port.read(64), 0).ticks.tolist()
    assert np.abs(np.diff(ticks) - 50_000).max() <= RESOLUTION_US
