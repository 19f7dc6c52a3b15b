import hashlib
import json
import lzma
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.base import EndOfInput, Misconfigured
from drivers.event_camera.file import ENOUGH_EVENTS, EventFileConfig, FileEvents
from drivers.packet import Packet

faery = pytest.importorskip("faery")

FOUR = [("t_u64", "t_ns", "<u8"), ("x_u16", "x", "<u2"), ("y_u16", "y", "<u2"), ("on_u8", "on", "u1")]
FORMATS = ["a.es", "a.aedat4", "a.dat", "evt2.raw", "evt3.raw"]


def camera(path: Path, **options: Any) -> FileEvents:
    return FileEvents("camera", EventFileConfig.model_validate({"path": str(path), "pace": "fast", **options}))


def play(source: FileEvents, limit: int = 100_000) -> list[Packet]:
    packets: list[Packet] = []
    try:
        while len(packets) < limit:
            packet = source.read(1)
            assert packet is not None
            packets.append(packet)
    except EndOfInput:
        pass
    return packets


def joined(packets: list[Packet]) -> np.ndarray:
    return np.concatenate([p.data for p in packets])


def made(count: int = 5000, span_us: int = 100_000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.zeros(count, faery.EVENTS_DTYPE)
    events["t"] = np.sort(rng.integers(0, span_us, count))
    events["x"], events["y"] = rng.integers(0, 320, count), rng.integers(0, 240, count)
    events["on"] = rng.integers(0, 2, count)
    return events


def write(path: Path, events: np.ndarray) -> Path:
    version = path.stem if path.suffix == ".raw" else None
    stream = faery.events_stream_from_array(events, (320, 240))
    stream.to_file(path, version=version)
    return path


def refusal(source: FileEvents) -> str:
    with pytest.raises(Misconfigured) as caught:
        source.open()
        play(source)
    source.close()
    assert "\n" not in str(caught.value)
    assert str(source.cfg.path) in str(caught.value)
    return str(caught.value)


RECORDINGS = {
    "evt2_gen3_640x480.raw": (640, 480),
    "evt3_gen41_1280x720.raw": (1280, 720),
    "dvs_320x240.es": None,
    "dvxplorer_320x240.aedat4": None,
    "ncars_sample.dat": (304, 240),
    "nmnist_sample.bin": (34, 34),
    "dvs128_1.bs2": (128, 128),
    "dvs128_2.bs2": (128, 128),
    "dvs128_8.bs2": (128, 128),
}
REFUSED = ["generic.es", "aedat2_header_only.aedat", "ntidigits_sample.bs1"]


def recorded(data_dir: Path, name: str, folder: Path) -> Path:
    stored = data_dir / "event_recordings" / name
    if stored.exists():
        return stored
    unpacked = folder / name
    unpacked.write_bytes(lzma.decompress(stored.with_name(f"{name}.xz").read_bytes()))
    return unpacked


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("packet_ms", [10, 1])
def test_recordings_decode_to_their_digests(data_dir: Path, tmp_path: Path, name: str, packet_ms: int) -> None:
    expected = json.loads((data_dir / "event_recordings" / "expected.json").read_text())[name]
    source = camera(recorded(data_dir, name, tmp_path), geometry=RECORDINGS[name], packet_ms=packet_ms)
    source.open()
    packets = play(source)
    source.close()
    events = joined(packets)
    assert len(events) == expected["n_events"]
    assert source.counters.out_of_range == 0
    t_us = (events["t_ns"] - events["t_ns"][0]) // 1000 + expected["t_first"]
    literal = {**expected["sha3_224"]}
    if "t_word_level_clamp" in expected:
        # Where the camera's low time word steps back, faery's time stands still; the literal decode steps back, too.
        literal["t_u64"] = expected["t_word_level_clamp"]["sha3_224_t_u64"]
    for digest, column, dtype in FOUR:
        values = t_us if column == "t_ns" else events[column]
        assert hashlib.sha3_224(values.astype(dtype).tobytes()).hexdigest() == literal[digest], column
    slices = (t_us - t_us[0]) // (packet_ms * 1000)
    ends = np.cumsum([len(p.data) for p in packets])
    assert all(len(set(part)) == 1 for part in np.split(slices, ends)[:-1])
    sparse = [packet for packet in packets if len(packet.data) < ENOUGH_EVENTS]
    assert len(sparse) <= len(np.unique(slices))


def test_no_recording_is_left_over(data_dir: Path) -> None:
    folder = data_dir / "event_recordings"
    expected = json.loads((folder / "expected.json").read_text())
    stored = {path.name.removesuffix(".xz") for path in folder.iterdir()} - {"README.md", "expected.json"}
    assert stored == {*RECORDINGS, *REFUSED}
    assert {name for name in expected if "sha3_224" in expected[name]} == set(RECORDINGS)


@pytest.mark.parametrize("name", REFUSED)
def test_recordings_of_other_things_are_refused(data_dir: Path, tmp_path: Path, name: str) -> None:
    assert "expected" in (text := refusal(camera(recorded(data_dir, name, tmp_path)))) or "convert" in text


@pytest.mark.parametrize("name", FORMATS)
def test_events_come_as_they_were_written(tmp_path: Path, name: str) -> None:
    events = made()
    source = camera(write(tmp_path / name, events))
    before_ns = time.monotonic_ns()
    source.open()
    after_ns = time.monotonic_ns()
    packets = play(source)
    source.close()
    got = joined(packets)
    assert before_ns <= packets[0].t0_ns <= after_ns
    assert np.array_equal((got["t_ns"] - got["t_ns"][0]) // 1000, events["t"] - events["t"][0])
    assert np.array_equal(got["x"], events["x"])
    # faery turns the pictures of ES files upside down when it writes; we give what is in the file.
    assert np.array_equal(got["y"], 239 - events["y"] if name == "a.es" else events["y"])
    assert np.array_equal(got["on"], events["on"])


def test_an_empty_stretch_gives_no_packets_and_a_loop_goes_on(tmp_path: Path) -> None:
    events = made(100, 1000)
    events["t"][50:] += 200_000
    events["t"] -= events["t"][0]
    source = camera(write(tmp_path / "a.es", events), loop=True)
    source.open()
    packets = play(source, limit=5)
    source.close()
    assert [p.seq for p in packets] == list(range(5))
    got = joined(packets)
    t_us = ((got["t_ns"] - got["t_ns"][0]) // 1000).tolist()
    lap_us = int(events["t"][-1]) + 1
    assert t_us[:200] == [*events["t"].tolist(), *(events["t"] + lap_us).tolist()]
    assert not any(np.shares_memory(a.data, b.data) for a in packets for b in packets if a is not b)


def test_real_pace_waits_for_the_last_event_of_a_slice(tmp_path: Path) -> None:
    source = camera(write(tmp_path / "a.es", made(1000, 60_000)), pace="real")
    assert source.live
    assert not camera(tmp_path / "a.es").live
    source.open()
    assert source.read(0) is None
    while (packet := source.read(1)) is None or packet.seq < 4:
        if packet is not None:
            assert packet.data["t_ns"][-1] <= time.monotonic_ns()
    source.close()


def test_times_that_step_back_are_held_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.bs2"
    t_us = [100, 200, 150, 199, 300]
    path.write_bytes(b"".join(bytes([1, 2]) + (0x800000 | t).to_bytes(3, "big") for t in t_us))
    source = camera(path, geometry=(128, 128))
    source.open()
    got = joined(play(source))
    source.close()
    assert ((got["t_ns"] - got["t_ns"][0]) // 1000).tolist() == [0, 100, 100, 100, 200]
    assert source.counters.out_of_range == 2
    assert got["on"].tolist() == [1] * 5


def test_the_size_is_needed_once_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.bs2"
    path.write_bytes(bytes([1, 2, 0, 0, 9, 100, 2, 0, 0, 10]))
    assert "geometry" in refusal(camera(path))
    assert "event 1 lies outside of 64 x 64" in refusal(camera(path, geometry=(64, 64)))
    write(tmp_path / "a.es", made())
    assert "320 x 240" in refusal(camera(tmp_path / "a.es", geometry=(640, 480)))
    bare = tmp_path / "bare.raw"
    bare.write_bytes(b"% evt 2.0\n" + (0x8 << 28).to_bytes(4, "little"))
    assert "geometry" in refusal(camera(bare))
    assert "no events" in refusal(camera(bare, geometry=(640, 480)))


@pytest.mark.parametrize("name", [*FORMATS, "a.bs2"])
def test_what_is_no_recording_is_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert "cannot be opened" in refusal(camera(path, geometry=(10, 10)))
    path.write_bytes(b"")
    refusal(camera(path, geometry=(10, 10)))
    path.write_bytes(np.random.default_rng(0).bytes(999))
    refusal(camera(path, geometry=(10, 10)))


@pytest.mark.parametrize("name", ["a.dat", "evt2.raw", "evt3.raw", "a.aedat4"])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, made())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3 * 2 + (len(whole) // 3 * 2 - len(whole) + 1) % 8])
    assert "copy" in refusal(camera(path))


@pytest.mark.parametrize(
    "head",
    [
        b"% format EVT3;height=72;width=128\n% evt 2.1\n",
        b"% format EVT3;height=72;width=128\n% Version 2\n",
        b"% evt 3.0\n% geometry 128x72\n% geometry 64x64\n",
        b"% Version 2\n% geometry 128x72\n% geometry 64x64\n",
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(head + (b"\x00\x08" if b"geometry" in head and b"Version" in head else b"") + bytes(16))
    assert "contradicts itself" in refusal(camera(path, geometry=(128, 72)))


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_events_or_one_sentence(tmp_path: Path, name: str) -> None:
    """faery 0.7 aborts its process on some of the damaged AEDAT4 headers; this process must live."""
    whole = write(tmp_path / name, made(500)).read_bytes()
    path = tmp_path / f"damaged.{name}"
    dice = random.Random(1)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 3, 30))):
            damaged[dice.randrange(min(len(damaged), dice.choice((200, 2000, 100_000))))] = dice.choice((0, 255, 7))
        path.write_bytes(damaged)
        source = camera(path, geometry=None)
        try:
            source.open()
            got = joined(play(source))
        except Misconfigured as error:
            assert "\n" not in str(error)
        else:
            assert (np.diff(got["t_ns"]) >= 0).all()
        source.close()
