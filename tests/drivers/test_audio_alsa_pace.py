"""A sound device with a real pace: the monitor of a private PulseAudio's null sink, through ALSA's pulse plugin."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from drivers.audio.alsa import Alsa, AlsaConfig
from drivers.base import Disconnected
from drivers.packet import Packet

RATE_HZ = 16000
DEADLINE_S = 15.0


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    driver: Alsa


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    pytest.importorskip("alsaaudio", reason="pyalsaaudio is not installed (pip install axond[alsa])")
    plugin = next(iter(Path("/usr/lib").glob("**/alsa-lib/libasound_module_pcm_pulse.so")), None)
    if plugin is None or shutil.which("pulseaudio") is None:
        pytest.skip("needs the Debian packages pulseaudio and libasound2-plugins")
    # A socket's path must be short, and the one of a test folder is not always.
    socket = tmp_path / "s"
    if len(str(socket)) > 100:
        pytest.skip(f"{tmp_path} is too long a path for a socket")
    (tmp_path / "asound.conf").write_text(
        f'pcm_type.pulse {{ lib "{plugin}" }}\npcm.monitor {{ type pulse device "made.monitor" }}\n'
    )
    for name in ("HOME", "XDG_RUNTIME_DIR", "PULSE_RUNTIME_PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PULSE_SERVER", f"unix:{socket}")
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
    process = subprocess.Popen(
        [
            *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm=yes"),
            *("-L", f"module-native-protocol-unix socket={socket}"),
            *("-L", f"module-null-sink sink_name=made rate={RATE_HZ} channels=1"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    driver = Alsa("mic0", AlsaConfig(device="monitor", rate_hz=RATE_HZ, packet_ms=20))
    try:
        wait_ready(process)
        yield Server(process, driver)
    finally:
        driver.close()
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE_S
    ready = ["pactl", "--server", os.environ["PULSE_SERVER"], "info"]
    while subprocess.run(ready, check=False, capture_output=True).returncode:
        if process.poll() is not None or time.monotonic() > end:
            pytest.skip("PulseAudio does not start here")


def take(driver: Alsa, count: int) -> list[Packet]:
    packets: list[Packet] = []
    end = time.monotonic() + DEADLINE_S
    while len(packets) < count:
        assert time.monotonic() < end
        packet = driver.read(0.5)
        if packet is not None:
            packets.append(packet)
    return packets


def test_times_follow_the_device_and_not_the_reader(server: Server) -> None:
    server.driver.open()
    take(server.driver, 10)
    packets = take(server.driver, 100)
    late_ms = (time.monotonic_ns() - packets[-1].t0_ns) / 1e6 - 20
    t0_ns = np.array([p.t0_ns for p in packets])
    assert {len(p.data) for p in packets} == {320}
    assert np.median(np.diff(t0_ns)) == pytest.approx(20_000_000, rel=0.01)
    assert (t0_ns[-1] - t0_ns[0]) / 99 == pytest.approx(20_000_000, rel=0.02)
    assert 0 <= late_ms < 100


def test_a_stalled_device_blocks_nobody(server: Server) -> None:
    server.driver.open()
    take(server.driver, 10)
    os.kill(server.process.pid, signal.SIGSTOP)
    silent_before_s = server.driver.counters.silent_s
    end = time.monotonic() + DEADLINE_S
    while server.driver.counters.silent_s < silent_before_s + 1.5 and time.monotonic() < end:
        begin = time.monotonic()
        server.driver.read(0.2)
        assert time.monotonic() - begin < 0.6
    assert "gives no samples" in server.driver.counters.notes["no_samples"]
    os.kill(server.process.pid, signal.SIGCONT)
    take(server.driver, 5)
    assert server.driver.counters.notes == {}


def test_a_device_that_goes_away_is_disconnected(server: Server) -> None:
    server.driver.open()
    take(server.driver, 5)
    server.process.kill()
    server.process.wait()
    with pytest.raises(Disconnected, match="went away"):
        take(server.driver, 10_000)
