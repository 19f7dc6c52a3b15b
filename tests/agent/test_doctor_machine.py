"""The doctor finds faults that were seeded in a machine: ports, sensors, USB, sound, clock, flash, power, service."""

import os
import pty
import shutil
import sqlite3
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pytest

from agent.doctor import clock, listening, serial_ports, service
from agent.doctor.configuration import set_up
from agent.doctor.examine import examine
from agent.doctor.finding import Check, Finding
from drivers import probe
from hil.emulators.witmotion import WitmotionEmulator
from tests.agent.doctor_stage import TREE, USB, Fault, Stage, check, staged

ROWS = np.random.default_rng(0).integers(-3000, 3000, (500, 6)).astype(np.int16)
Seed: TypeAlias = Callable[[Stage], None]
HOLD = """
import fcntl, sys, time
port = open(sys.argv[1], "rb", buffering=0)
fcntl.flock(port, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as made:
        yield made


def missing_port(stage: Stage) -> None:
    stage.imu(stage.folder / "imu")


def shared_port(stage: Stage) -> None:
    port = stage.port()
    stage.imu(port)
    (stage.folder / "other").symlink_to(port)
    stage.imu(stage.folder / "other", "imu1")


def held_port(stage: Stage) -> None:
    stage.real_proc()
    port = stage.port()
    stage.imu(port)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stage.things["holder"] = child
    stage.stack.callback(let_go, stage)
    assert child.stdout is not None and child.stdout.readline() == "held\n"


def let_go(stage: Stage) -> None:
    stage.things["holder"].communicate(timeout=10)


def numbered_port(stage: Stage) -> None:
    port = stage.usb_port()
    stage.put("dev/serial/by-id/.keep", "")
    (stage.root / "dev/serial/by-id/usb-1a86-A1B2C3D4-if00").symlink_to(port)
    stage.imu(port)


def stable_port(stage: Stage) -> None:
    stage.imu(stage.root / "dev/serial/by-id/usb-1a86-A1B2C3D4-if00")


def usb_with(place: str, text: str) -> Seed:
    def seed(stage: Stage) -> None:
        stage.imu(stage.usb_port())
        stage.put(place, text)

    return seed


def alsa(device: str, rate_hz: int = 16000) -> Seed:
    def seed(stage: Stage) -> None:
        stage.table("sensors.mic0", f'driver = "audio.alsa"\ndevice = "{device}"\nrate_hz = {rate_hz}')

    return seed


def no_card(stage: Stage) -> None:
    alsa("hw:CARD=ArrayUAC10,DEV=0")(stage)
    (stage.root / "proc/asound/pcm").write_text("")


def put(place: str, text: str) -> Seed:
    return lambda stage: stage.put(place, text)


def back(place: str) -> Seed:
    return lambda stage: stage.put(place, TREE[place])


def short_life(stage: Stage) -> None:
    """A card of 1 GB behind the state folder, and an outbox that has written a gigabyte in a day."""
    stage.fill(20)
    with sqlite3.connect(stage.state / "outbox.db") as connection:
        for name, value in (("written_bytes", 1 << 30), ("run_ms", 86_400_000)):
            connection.execute("INSERT OR REPLACE INTO totals (name, value) VALUES (?, ?)", (name, value))
    connection.close()
    card(stage, 2_000_000)


def card(stage: Stage, sectors: int) -> None:
    status = stage.state.stat()
    stage.put("sys/block/mmcblk1/size", f"{sectors}\n")
    stage.put("sys/block/mmcblk1/queue/rotational", "0\n")
    link = stage.root / "sys/dev/block" / f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(stage.root / "sys/block/mmcblk1")


OVERRIDE = "etc/systemd/system/axond.service.d/override.conf"
LIFE = "sys/block/mmcblk0/device/life_time"
SPARE = "sys/block/mmcblk0/device/pre_eol_info"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"

FAULTS = [
    Fault("a port that is not there", "serial", "serial.missing", "{folder}/imu", missing_port, Stage.port),
    Fault("a port that two sensors name", "serial", "serial.shared", "sensors.imu1.port", shared_port,
          lambda s: s.imu(s.port("second"), "imu1")),
    Fault("a port that another process holds", "serial", "serial.held", "python", held_port, let_go),
    Fault("a port by its number", "serial", "serial.unstable_name", "usb-1a86-A1B2C3D4-if00", numbered_port,
          stable_port),
    Fault("ModemManager", "serial", "serial.modemmanager", "dev/ttyUSB0", usb_with("proc/77/comm", "ModemManager\n"),
          put("run/udev/data/c188:0", "E:ID_MM_DEVICE_IGNORE=1\n")),
    Fault("brltty", "serial", "serial.brltty", "dev/ttyUSB0", usb_with("proc/78/comm", "brltty\n"),
          put("proc/78/comm", "sh\n")),
    Fault("USB that sleeps", "usb", "usb.autosuspend", "dev/ttyUSB0", usb_with(f"{USB}/power/control", "auto\n"),
          back(f"{USB}/power/control")),
    Fault("a socket with too much current", "usb", "usb.over_current", "1-0-port1",
          put("sys/bus/usb/devices/1-0:1.0/1-0-port1/over_current_count", "3\n"),
          back("sys/bus/usb/devices/1-0:1.0/1-0-port1/over_current_count")),
    Fault("no sound card", "audio", "audio.no_card", "hw:CARD=ArrayUAC10", no_card, back("proc/asound/pcm")),
    Fault("a card of another name", "audio", "audio.unknown_card", "hw:CARD=Array,", alsa("hw:CARD=Array,DEV=0"),
          alsa("hw:CARD=ArrayUAC10,DEV=0")),
    Fault("a rate that the card has not", "audio", "audio.rate", "44100", alsa("hw:CARD=ArrayUAC10,DEV=0", 44100),
          alsa("plughw:CARD=ArrayUAC10,DEV=0", 44100)),
    Fault("no clock without power", "clock", "clock.no_rtc", "sys/class/rtc",
          lambda s: shutil.rmtree(s.root / "sys/class/rtc"), put("sys/class/rtc/rtc0/date", "2026-01-01")),
    Fault("a clock with an empty battery", "clock", "clock.rtc_dead", "rtc0",
          put("sys/class/rtc/rtc0/since_epoch", ""), back("sys/class/rtc/rtc0/since_epoch")),
    Fault("worn flash", "disk", "flash.worn", "mmcblk0", put(LIFE, "0x01 0x0a\n"), back(LIFE)),
    Fault("flash without spare blocks", "disk", "flash.worn_out", "mmcblk0", put(SPARE, "0x03\n"), back(SPARE)),
    Fault("flash that will not last", "disk", "flash.short_life", "mmcblk1", short_life,
          lambda s: card(s, 500_000_000)),
    Fault("too low a voltage", "power", "power.under_voltage", "in0_lcrit_alarm",
          put("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n"), back("sys/class/hwmon/hwmon0/in0_lcrit_alarm")),
    Fault("too low a voltage since the start", "power", "power.under_voltage", "get_throttled",
          put(THROTTLED, "10000\n"), back(THROTTLED)),
    Fault("a slowed processor", "power", "power.throttled", "0x4", put(THROTTLED, "4\n"), back(THROTTLED)),
    Fault("heat", "power", "power.hot", "cpu-thermal", put("sys/class/thermal/thermal_zone0/temp", "79000\n"),
          back("sys/class/thermal/thermal_zone0/temp")),
    Fault("no service", "service", "service.none", "axond.service",
          lambda s: (s.root / "usr/lib/systemd/system/axond.service").unlink(),
          back("usr/lib/systemd/system/axond.service")),
    Fault("a watchdog that was switched off", "service", "service.no_watchdog", "axond.service",
          put(OVERRIDE, "[Service]\nWatchdogSec=0\n"), lambda s: (s.root / OVERRIDE).unlink()),
    Fault("restarts on a wrong configuration", "service", "service.restarts_on_wrong_config", "axond.service",
          put(OVERRIDE, "[Service]\nRestartPreventExitStatus=\n"), lambda s: (s.root / OVERRIDE).unlink()),
    Fault("a sandbox that was lifted", "service", "service.no_sandbox", "axond.service",
          put(OVERRIDE, "[Service]\nProtectSystem=no\n"), lambda s: (s.root / OVERRIDE).unlink()),
    Fault("a unit that was changed", "service", "service.overridden", "override.conf",
          put(OVERRIDE, "[Service]\nNice=1\n"), lambda s: (s.root / OVERRIDE).unlink()),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault(stage: Stage, fault: Fault) -> None:
    check(stage, fault)


def test_the_port_that_an_agent_holds_which_may_not_be_asked(stage: Stage) -> None:
    held_port(stage)
    scene = set_up(stage.config, stage.root)
    assert "serial.held" in {finding.id for finding in serial_ports.look(scene)}
    found = serial_ports.look(replace(scene, mute="axond.sock: permission denied"))
    assert [finding.id for finding in found] == ["serial.there"]


SHOWN = {
    "LoadState": "loaded", "ActiveState": "active", "Result": "success", "ExecMainStatus": "0", "NRestarts": "0",
    "WatchdogUSec": "30s", "RestartPreventExitStatus": "78", "DropInPaths": "", "NeedDaemonReload": "no",
    "UnitFileState": "enabled", "NoNewPrivileges": "yes", "ProtectSystem": "strict",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "id"),
    [
        ({"ActiveState": "failed", "ExecMainStatus": "78", "Result": "exit-code"}, "service.refused"),
        ({"ActiveState": "failed", "ExecMainStatus": "6", "Result": "watchdog"}, "service.failed"),
        ({"ActiveState": "inactive"}, "service.inactive"),
        ({"UnitFileState": "disabled"}, "service.not_enabled"),
        ({"NRestarts": "7"}, "service.restarts"),
        ({"NeedDaemonReload": "yes"}, "service.reload"),
    ],
)
def test_what_systemd_says(change: dict[str, str], id: str) -> None:  # noqa: A002 - as the finding calls it
    assert {finding.id for finding in service.judged(SHOWN)} == {"service.active"}
    found = {finding.id: finding for finding in service.judged({**SHOWN, **change})}
    assert id in found and found[id].remedy


def test_a_clock_that_was_never_set_or_went_back(stage: Stage) -> None:
    scene = set_up(stage.config, stage.root)
    now_us = 1_790_000_000_000_000

    def ids(*reading: object) -> set[str]:
        return {finding.id for finding in clock.judged(scene, *reading)}  # type: ignore[arg-type]

    assert ids(now_us, 2.0) == {"clock.synchronised"}
    assert ids(now_us, None) == {"clock.not_synchronised"}
    assert ids(1_000_000, None) == {"clock.never_set", "clock.not_synchronised"}
    assert ids(now_us, 2.0, now_us + 86_400_000_000) == {"clock.went_back", "clock.synchronised"}


class Line(WitmotionEmulator):
    """A sensor at 9600 baud on a line that may be read at another rate: what arrives are other bytes then."""

    def encode(self, first: int, count: int) -> list[bytes]:
        sent = super().encode(first, count)
        heard_baud = 9600 if self._slave is None else _BAUD_RATES[termios.tcgetattr(self._slave)[5]]
        return [resampled(row, 9600, heard_baud) for row in sent]


_BAUD_RATES = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}


def resampled(sent: bytes, sent_baud: int, heard_baud: int) -> bytes:
    """What a UART makes of 8N1 bytes that were sent at another rate: it samples the same line at its own times."""
    bits = [bit for byte in sent for bit in (0, *(byte >> i & 1 for i in range(8)), 1)] + [1] * 20
    line = np.repeat(np.array(bits), 16)
    step = 16 * sent_baud / heard_baud
    heard, at = bytearray(), 0.0
    while at < len(line) - 10 * step:
        if line[int(at)]:
            at += 1
            continue
        heard.append(sum(int(line[int(at + (i + 1.5) * step)]) << i for i in range(8)))
        at += 10 * step
    return bytes(heard)


def heard(stage: Stage) -> dict[str, Finding]:
    return {finding.id: finding for finding in stage.look("sensors")}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter times to listen: who says nothing says nothing for longer too."""
    monkeypatch.setattr(probe, "START_S", 1.0)
    monkeypatch.setattr(listening, "START_S", 0.6)


@pytest.mark.usefixtures("hurried")
def test_a_sensor_that_speaks_at_another_rate(stage: Stage) -> None:
    stage.real_proc()
    line = stage.folder / "range"
    with Line(ROWS, 40, line, baud=9600, timed=False, angles=False):
        stage.imu(line, more="baud = 115200")
        told = heard(stage)["sensors.wrong_baud"].told()
        assert "115200" in told["seen"] and str(line) in told["seen"] and "baud = 9600" in told["remedy"]
        assert "rate_hz = " in told["remedy"]
        stage.table("sensors.imu0", f'driver = "imu.witmotion"\nport = "{line}"\nbaud = 9600\nrate_hz = 25')
        assert set(heard(stage)) == {"sensors.speaks"}


@pytest.mark.usefixtures("hurried")
def test_another_sensor_than_the_configuration_says(stage: Stage) -> None:
    stage.real_proc()
    port = stage.folder / "imu"
    with WitmotionEmulator(ROWS, 100, port):
        stage.table("sensors.imu0", f'driver = "imu.bno08x_rvc"\nport = "{port}"')
        told = heard(stage)["sensors.wrong_protocol"].told()
        assert 'driver = "imu.witmotion"' in told["remedy"] and told["where"] == "sensors.imu0.driver"
        stage.imu(port)
        assert set(heard(stage)) == {"sensors.speaks"}


@pytest.mark.usefixtures("hurried")
def test_a_sensor_that_is_silent_or_makes_noise(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LISTEN_S", 0.1)
    monkeypatch.setattr(probe, "baud_rates", lambda: probe.FIRST_BAUDS)
    stage.real_proc()
    master, slave = pty.openpty()
    tty.setraw(slave)
    port = stage.folder / "imu"
    port.symlink_to(os.ttyname(slave))
    stage.imu(port)
    assert set(heard(stage)) == {"sensors.silent"}
    done = threading.Event()

    def noise() -> None:
        source = np.random.default_rng(3)
        while not done.wait(0.01):
            os.write(master, source.bytes(60))

    thread = threading.Thread(target=noise)
    thread.start()
    try:
        scene = set_up(stage.config, stage.root)
        begin_s = time.monotonic()
        (found,) = listening.look(scene)
    finally:
        done.set()
        thread.join()
        os.close(master)
        os.close(slave)
    assert found.id == "sensors.not_understood"
    assert time.monotonic() - begin_s < listening.DEADLINE_S


def test_a_check_that_raises_or_hangs_is_a_finding(stage: Stage) -> None:
    never = threading.Event()

    def raises(_: object) -> Iterator[Finding]:
        yield Finding("one.first", "ok", "fine")
        raise ZeroDivisionError("by nothing")

    def misfits(_: object) -> Iterator[Finding]:
        yield Finding("misfit.rate", "ok", "{rate_hz:g} samples/s", facts={"rate_hz": None})

    def hangs(_: object) -> Iterator[Finding]:
        yield Finding("two.first", "problem", "bad")
        never.wait()

    scene = set_up(stage.config, stage.root)
    begin_s = time.monotonic()
    found = examine(scene, [Check("one", raises), Check("misfit", misfits), Check("two", hangs, 0.2)])
    never.set()
    assert time.monotonic() - begin_s < 5
    ids = ["two.first", "one.raised", "misfit.raised", "two.deadline", "one.first"]
    assert [finding.id for finding in found] == ids
    assert "ZeroDivisionError: by nothing" in found[1].told()["seen"]


def test_a_healthy_machine_has_no_problem(stage: Stage) -> None:
    stage.real_proc()
    port = stage.folder / "imu"
    with WitmotionEmulator(ROWS, 100, port):
        stage.imu(port)
        stage.table("pipelines.motion", 'sensors = ["imu0"]\nmodel = "activity"')
        for topic in ("config", "agent", "service", "permissions", "serial", "usb", "sensors", "outbox", "power"):
            told = [finding for finding in stage.look(topic) if finding.level in ("problem", "warning")]
            assert told == [], [finding.told() for finding in told]
