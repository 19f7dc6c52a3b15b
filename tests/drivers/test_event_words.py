"""Our own decoders of event recordings beside faery's, and at the places where words run over or files end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.base import EndOfInput, Misconfigured
from drivers.event_camera import es, words
from drivers.event_camera.file import EventFileConfig, FileEvents

faery = pytest.importorskip("faery")
from faery.extension import dat as faery_dat  # noqa: E402
from faery.extension import es as faery_es  # noqa: E402
from faery.extension import evt as faery_evt  # noqa: E402

SIZE = (2048, 2048)
EVT2_HEAD = b"% evt 2.0\n% end\n"
EVT3_HEAD = b"% evt 3.0\n% end\n"
DAT_HEAD = b"% Version 2\n% end\n\x00\x08"
ES_HEAD = b"Event Stream\x02\x00\x00\x01" + (2048).to_bytes(2, "little") * 2


@pytest.fixture(autouse=True, params=[7, 1 << 17])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "BLOCK", request.param)
    monkeypatch.setattr(es, "BLOCK_BYTES", request.param)


def played(path: Path) -> tuple[np.ndarray, FileEvents]:
    """Times in us since the first event, x, y and polarity."""
    size = None if path.suffix == ".es" else SIZE
    source = FileEvents("camera", EventFileConfig(path=path, geometry=size, pace="fast"))
    source.open()
    parts = []
    try:
        while True:
            packet = source.read(0)
            assert packet is not None
            parts.append(packet.data)
    except EndOfInput:
        pass
    finally:
        source.close()
    return columns(np.concatenate(parts), "t_ns", "on", 1000), source


def columns(events: Any, t: str, on: str, ticks_per_us: int = 1) -> np.ndarray:
    since = (events[t].astype(np.int64) - int(events[t][0])) // ticks_per_us
    return np.stack([since, events["x"].astype(np.int64), events["y"], events[on]], axis=1)


def test_evt2_words_of_all_kinds_as_faery_decodes_them(tmp_path: Path) -> None:
    dice = np.random.default_rng(3)
    count = 3000
    kind = dice.choice([0, 1, 8, 0xA, 0xE, 0xF], count, p=[0.4, 0.4, 0.1, 0.04, 0.03, 0.03])
    kind[0] = 8
    stream = dice.integers(0, 1 << 28, count)
    stream[kind == 0xA] &= 0x003F_FFFF
    # Repeated, rising, and past the end of their 28 bits.
    stream[kind == 8] = (np.sort(dice.integers(0, 400, (kind == 8).sum())) - 200) % (1 << 28)
    path = tmp_path / "a.raw"
    path.write_bytes(EVT2_HEAD + (kind << 28 | stream).astype("<u4").tobytes())
    with faery_evt.Decoder(path, SIZE, "evt2") as file:
        wanted = columns(np.concatenate([packet["events"] for packet in file]), "t", "on")
    found, source = played(path)
    assert np.array_equal(found, wanted)
    assert source.counters.out_of_range > 0


def test_evt2_events_before_the_first_time_get_it(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    stream = np.array([0x1_FFF_FFFF, 5 << 22, 0x8000_0009, 0x1000_0000 | 3 << 22, 0x8000_000A, 2], "<u4")
    path.write_bytes(EVT2_HEAD + stream.tobytes())
    assert played(path)[0][:, 0].tolist() == [0, 0, 3, 64]


def test_dat_words_run_over_as_in_faery(tmp_path: Path) -> None:
    dice = np.random.default_rng(4)
    t_us = (np.cumsum(dice.integers(0, 1 << 26, 500)) + (1 << 31)) % (1 << 32)
    assert (np.diff(t_us) < 0).sum() >= 2
    t_us[100:103] -= [0, 5, 9]
    address = dice.integers(0, 2048, 500) | dice.integers(0, 2048, 500) << 14 | dice.integers(0, 3, 500) << 28
    path = tmp_path / "a.dat"
    path.write_bytes(DAT_HEAD + np.stack([t_us, address], axis=1).astype("<u4").tobytes())
    with faery_dat.Decoder(path, SIZE, "dat2") as file:
        events = np.concatenate(list(file))
    events["payload"] = events["payload"] != 0
    found, source = played(path)
    assert np.array_equal(found, columns(events, "t", "payload"))
    assert source.counters.out_of_range == np.count_nonzero(np.diff(t_us.astype(np.int64))[100:102] < 0)


def es_stream(count: int = 2000) -> tuple[bytes, list[int]]:
    """Events with pauses and empty bytes between them, and where each one ends."""
    dice = np.random.default_rng(5)
    stream, ends = bytearray(ES_HEAD), []
    for _ in range(count):
        stream += bytes(dice.choice([0xFE, 0xFF], dice.choice([0, 0, 0, 1, 4])).tolist())
        # Places of 254 and 255, which look like pauses.
        x, y = dice.choice([3, 254, 255, 510, 511, 1000], 2).tolist()
        stream += bytes([dice.integers(0, 254)]) + x.to_bytes(2, "little") + y.to_bytes(2, "little")
        ends.append(len(stream))
    return bytes(stream), ends


def test_es_events_between_pauses_as_faery_decodes_them(tmp_path: Path) -> None:
    path = tmp_path / "a.es"
    path.write_bytes(es_stream()[0] + b"\xff\xfe\xff")
    with faery_es.Decoder(path, 0) as file:
        wanted = columns(np.concatenate(list(file)), "t", "on")
    assert np.array_equal(played(path)[0], wanted)


def test_an_es_file_that_ends_within_an_event_is_refused(tmp_path: Path) -> None:
    whole, ends = es_stream(200)
    path = tmp_path / "a.es"
    for missing in range(1, 5):
        path.write_bytes(whole[:-missing])
        with pytest.raises(Misconfigured, match=f"cut short at byte {len(whole) - missing}, within an event"):
            played(path)
    path.write_bytes(whole[: ends[-2]])
    assert len(played(path)[0]) == len(ends) - 1


def test_an_event_outside_is_told_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(EVT2_HEAD + np.array([0x8000_0001, *range(20), 700 << 11], "<u4").tobytes())
    source = FileEvents("camera", EventFileConfig(path=path, geometry=(640, 480), pace="fast"))
    with pytest.raises(Misconfigured, match="event 20 lies outside of 640 x 480"):
        source.open()


def test_faery_never_lets_the_time_of_evt3_go_back(tmp_path: Path) -> None:
    """Blocks of faery's are not looked through for it."""
    stream = np.random.default_rng(6).integers(0, 1 << 16, 50_000).astype("<u2")
    path = tmp_path / "a.raw"
    path.write_bytes(EVT3_HEAD + stream.tobytes())
    with faery_evt.Decoder(path, SIZE, "evt3") as file:
        t_us = np.concatenate([packet["events"]["t"] for packet in file if "events" in packet]).astype(np.int64)
    assert len(t_us) > 10_000
    assert (np.diff(t_us) >= 0).all()


def test_a_panic_of_faery_is_one_sentence(tmp_path: Path) -> None:
    """At an AEDAT4 packet of no bytes."""
    path = tmp_path / "a.aedat4"
    events = np.zeros(5, faery.EVENTS_DTYPE)
    faery.events_stream_from_array(events, (320, 240)).to_file(path)
    whole = path.read_bytes()
    begin = 18 + int.from_bytes(whole[14:18], "little")
    end = begin + 8 + int.from_bytes(whole[begin + 4 : begin + 8], "little")
    # The head of its LZ4 frame, and the mark at a frame's end.
    packet = whole[begin : begin + 4] + (11).to_bytes(4, "little") + whole[begin + 8 : begin + 15] + bytes(4)
    header = whole[:begin].replace(end.to_bytes(8, "little"), (begin + len(packet)).to_bytes(8, "little"))
    path.write_bytes(header + packet + whole[end:])
    with pytest.raises(Misconfigured, match="cannot be decoded") as caught:
        FileEvents("camera", EventFileConfig(path=path, pace="fast")).open()
    assert type(caught.value.__cause__).__name__ == "PanicException"
