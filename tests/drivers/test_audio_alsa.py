"""ALSA's own file plugin as the device. It has no pace: overruns and unplugging need a kernel with a sound card."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from drivers.audio.alsa import Alsa, AlsaConfig, lost_samples
from drivers.base import Disconnected, Unavailable
from tests.drivers.alsa_devices import RATE_HZ, sound, use_file_device


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return use_file_device(tmp_path, monkeypatch)


def test_samples_come_as_the_device_gives_them(device: str) -> None:
    driver = Alsa("mic0", AlsaConfig(device=device, rate_hz=RATE_HZ, packet_ms=20))
    driver.open()
    packets = [driver.read(1) for _ in range(40)]
    driver.close()
    data = np.concatenate([p.data for p in packets if p])
    assert {p.data.shape for p in packets if p} == {(320, 1)}
    assert np.array_equal(data, sound()[: 40 * 320])
    assert driver.counters.overruns == driver.counters.lost == 0


def test_channels_are_columns(device: str) -> None:
    driver = Alsa("mic0", AlsaConfig(device=device, rate_hz=RATE_HZ, channels=2))
    assert driver.info().channels == ("ch0", "ch1")
    driver.open()
    packet = driver.read(1)
    driver.close()
    assert packet is not None
    assert np.array_equal(packet.data, sound().reshape(-1, 2)[: len(packet.data)])


def test_a_device_that_does_not_exist_says_how_to_find_one(device: str) -> None:
    with pytest.raises(Unavailable, match=r"hw:CARD=None,DEV=0 cannot be opened \(.*\); names that exist: arecord -L"):
        Alsa("mic0", AlsaConfig(device="hw:CARD=None,DEV=0")).open()


def test_reading_a_closed_device_is_disconnected(device: str) -> None:
    driver = Alsa("mic0", AlsaConfig(device=device, rate_hz=RATE_HZ))
    driver.open()
    driver.close()
    driver.close()
    with pytest.raises(Disconnected, match="is not open"):
        driver.read(0)


@pytest.mark.parametrize("name", ["0", "hw:0", "hw:1,0", "plughw:2,0,0", "hw:CARD=1,DEV=0", "plughw:CARD=0"])
def test_a_card_s_number_is_refused_with_a_hint(name: str) -> None:
    with pytest.raises(ValidationError, match=r"names a card by number, .*'arecord -L'"):
        AlsaConfig(device=name)


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(ValidationError, match="no NUL characters"):
        AlsaConfig(device="hw:CARD=a\0b")


@pytest.mark.parametrize(
    "name", ["hw:CARD=ArrayUAC10,DEV=0", "plughw:CARD=U0x46d,DEV=1", "hw:CARD=2i2", "default", "mic1"]
)
def test_names_are_accepted(name: str) -> None:
    assert AlsaConfig(device=name).device == name


def test_without_the_library_the_sentence_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['alsaaudio'] = None\n"
        "from drivers.audio.alsa import Alsa, AlsaConfig\n"
        "from drivers.base import Unavailable\n"
        "try:\n    Alsa('mic0', AlsaConfig(device='default')).open()\n"
        "except Unavailable as error:\n    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'axond[alsa]'" in found.stdout


def test_an_overrun_s_length_is_the_time_that_has_no_samples() -> None:
    last_end_ns = 5_000_000_000
    assert lost_samples(last_end_ns, last_end_ns + 300_000_000, 320, 16000) == 4480
    assert lost_samples(last_end_ns, last_end_ns + 10_000_000, 320, 16000) == 0
    assert lost_samples(0, 10**12, 320, 16000) == 0
