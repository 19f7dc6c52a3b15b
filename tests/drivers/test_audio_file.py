import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from drivers.audio.file import FileAudio, FileConfig
from drivers.base import EndOfInput, Misconfigured
from drivers.packet import Packet

RATE_HZ = 8000


def noise(samples: int = 4000, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20000, 20000, (samples, channels)).astype(np.int16)


def write(path: Path, data: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, data, rate_hz, subtype=subtype)
    return path


def driver(path: Path | list[Path], **options: Any) -> FileAudio:
    return FileAudio("mic0", FileConfig.model_validate({"path": path, "pace": "fast", **options}))


def play(source: FileAudio, limit: int = 10_000) -> list[Packet]:
    packets: list[Packet] = []
    try:
        while len(packets) < limit:
            packet = source.read(1)
            assert packet is not None
            packets.append(packet)
    except EndOfInput:
        pass
    return packets


def samples(packets: list[Packet]) -> np.ndarray:
    return np.concatenate([p.data for p in packets])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_come_as_they_are(tmp_path: Path, name: str, channels: int) -> None:
    data = noise(channels=channels)
    source = driver(write(tmp_path / name, data), channels=channels)
    assert len(source.info().channels) == channels
    source.open()
    packets = play(source)
    source.close()
    assert np.array_equal(samples(packets), data)
    assert packets[0].data.shape == (160, channels)
    assert [p.t0_ns - packets[0].t0_ns for p in packets] == [i * 20_000_000 for i in range(len(packets))]


def test_files_follow_each_other_without_a_gap_and_loop(tmp_path: Path) -> None:
    first, second = noise(1000, seed=1), noise(333, seed=2)
    source = driver([write(tmp_path / "a.wav", first), write(tmp_path / "b.flac", second)], loop=True)
    source.open()
    packets = play(source, limit=2 * (7 + 3) + 1)
    source.close()
    cycle = np.concatenate([first, second])
    assert np.array_equal(samples(packets), np.concatenate([cycle, cycle, first[:160]]))
    ends = [p.t0_ns + len(p.data) * p.dt_ns for p in packets]
    assert [p.t0_ns for p in packets[1:]] == ends[:-1]


def test_the_grid_is_exact_where_the_period_is_no_whole_number(tmp_path: Path) -> None:
    source = driver(write(tmp_path / "a.wav", noise(44100), 44100), rate_hz=44100)
    source.open()
    packets = play(source)
    start = np.cumsum([0, *(len(p.data) for p in packets[:-1])])
    exact_ns = np.rint(start * 1e9 / 44100).astype(np.int64)
    assert np.array_equal([p.t0_ns - packets[0].t0_ns for p in packets], exact_ns)


def test_at_real_pace_a_packet_comes_when_its_last_sample_is_captured(tmp_path: Path) -> None:
    source = driver(write(tmp_path / "a.wav", noise(4000)), pace="real", packet_ms=25)
    source.open()
    opened_ns = time.monotonic_ns()
    lateness_ms = []
    for _ in range(20):
        packet = source.read(1)
        assert packet is not None
        lateness_ms.append((time.monotonic_ns() - packet.t0_ns - packet.dt_ns * len(packet.data)) / 1e6)
    assert min(lateness_ms) >= 0
    assert np.median(lateness_ms) < 10
    assert abs(packet.t0_ns - 475_000_000 - opened_ns) < 20_000_000
    with pytest.raises(EndOfInput):
        source.read(1)


def test_a_reader_that_was_away_gets_everything_with_the_right_times(tmp_path: Path) -> None:
    source = driver(write(tmp_path / "a.wav", noise(1600)), pace="real")
    source.open()
    first = source.read(1)
    assert first is not None
    assert not source._pacer.wait(10**9, 0.1)
    rest = [source.read(1) for _ in range(9)]
    assert [p.t0_ns - first.t0_ns for p in rest if p] == [i * 20_000_000 for i in range(1, 10)]


def test_the_time_out_is_kept(tmp_path: Path) -> None:
    source = driver(write(tmp_path / "a.wav", noise(8000)), pace="real", packet_ms=500)
    source.open()
    begin = time.monotonic()
    assert source.read(0.05) is None
    assert 0.05 <= time.monotonic() - begin < 0.4
    packet = source.read(2)
    assert packet is not None
    assert packet.seq == 0


def test_opening_again_starts_from_the_beginning(tmp_path: Path) -> None:
    data = noise(500)
    source = driver(write(tmp_path / "a.wav", data))
    for _ in range(2):
        source.open()
        packets = play(source)
        assert packets[0].seq == 0
        assert np.array_equal(samples(packets), data)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rate_hz": 16000}, "a.wav: has 8000 Hz, rate_hz is 16000"),
        ({"channels": 2}, r"a.wav: has 1 channel\(s\), channels is 2"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        driver(write(tmp_path / "a.wav", noise()), **options).open()


def test_floating_point_is_refused_instead_of_becoming_silence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise() / 32768, subtype="FLOAT")
    with pytest.raises(Misconfigured, match="holds FLOAT samples, expected integers"):
        driver(path).open()


@pytest.mark.parametrize("size", [5000, 60, 44, 30, 12])
def test_a_wav_that_was_cut_short_says_where(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav", noise())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        Misconfigured, match=rf"a.wav: (cut short at byte {size}: the chunk|ends at byte {size} before)"
    ):
        driver(path).open()


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFDB])
def test_a_wav_that_came_through_a_pipe_does_not_know_its_length(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "a.wav", noise())
    raw = path.read_bytes()
    path.write_bytes(raw[:4] + b"\xff\xff\xff\xff" + raw[8:40] + length.to_bytes(4, "little") + raw[44:])
    source = driver(path)
    source.open()
    assert np.array_equal(samples(play(source)), noise())


def test_a_flac_that_was_cut_short_ends_with_a_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(40_000))
    path.write_bytes(path.read_bytes()[:40_000])
    source = driver(path)
    source.open()
    with pytest.raises(Misconfigured, match=r"a.flac: (cannot be decoded from sample|ends at sample) \d+"):
        play(source)


@pytest.mark.parametrize("content", [b"", b"hello", b"RIFF\x10\x00\x00\x00WAVEjunk"])
def test_what_is_no_sound_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"a.wav: "):
        driver(path).open()


@pytest.mark.parametrize("name", ["a.raw", "A.RAW"])
def test_samples_without_a_header_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(4000))
    with pytest.raises(Misconfigured, match="raw samples do not say their rate and type; convert them to WAV"):
        driver(tmp_path / name).open()


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for name in ("pipe.wav", "."):
        with pytest.raises(Misconfigured, match="it is no regular file"):
            driver(tmp_path / name).open()


def test_the_second_file_is_checked_before_the_first_plays(tmp_path: Path) -> None:
    good = write(tmp_path / "a.wav", noise())
    with pytest.raises(Misconfigured, match=r"b.wav: cannot be opened \(No such file"):
        driver([good, tmp_path / "b.wav"]).open()
    with pytest.raises(Misconfigured, match="path is an empty list"):
        driver([]).open()
    with pytest.raises(Misconfigured, match="cannot be opened"):
        driver(tmp_path).open()
