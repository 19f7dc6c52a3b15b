"""Every published and recorded vector decodes to its stated values, or is rejected where it says so."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from drivers.base import EndOfInput
from drivers.event_camera.edvs_events import EventScanner
from drivers.event_camera.file import EventFileConfig, FileEvents
from drivers.lib.ranging import NO_TARGET, RangeParser, within
from drivers.packet import Packet
from drivers.ultrasonic import a02, maxbotix, tfmini, urm07
from drivers.ultrasonic.us100 import ASK_DISTANCE, ASK_TEMPERATURE, Us100Answers
from tests.drivers import imu_vectors
from tests.drivers.damage import START_NS, feed, raw_bytes
from tests.drivers.imu_vectors import Vector
from tests.drivers.seeds import EDVS_TIMES

COUNT = 87
ANY = within(-(2**31), 2**31 - 1)


def four_bytes(vector: Vector, _: Path) -> None:
    expect = vector["expect"]
    wanted = expect.get("distances_mm", [expect.get("distance_mm")]) if vector["checksum_ok"] else []
    assert feed(RangeParser(a02.FORMAT, 9600, a02.decode, ANY), raw_bytes(vector)).ravel().tolist() == wanted


def tfmini_frame(vector: Vector, _: Path) -> None:
    expect = vector["expect"]
    wanted = [[expect["dist_cm"], expect["strength"], expect["temp_c"] * 8]] if vector["checksum_ok"] else []
    assert feed(RangeParser(tfmini.FORMAT, 115200, tfmini.decode_s, ANY), raw_bytes(vector)).tolist() == wanted


def urm07_answer(vector: Vector, _: Path) -> None:
    assert feed(RangeParser(urm07.frame_format(0x11), 19200, urm07.decode, ANY), raw_bytes(vector)).tolist() == [
        [vector["expect"]["distance_mm"]]
    ]


def urm07_question(vector: Vector, _: Path) -> None:
    assert urm07.question(0x11) == raw_bytes(vector)


def us100(vector: Vector, _: Path) -> None:
    expect = vector["expect"]
    parser = Us100Answers(10)
    assert parser.ask(7, START_NS) == ASK_TEMPERATURE
    if expect["request"] == "0x50":
        assert len(parser.feed(raw_bytes(vector), START_NS).values) == 0
    else:
        parser.give_up()
    assert parser.ask_on() == ASK_DISTANCE
    answer = raw_bytes(vector) if expect["request"] == "0x55" else b"\x01\x00"
    wanted = [expect.get("distance_mm", 256), expect.get("temp_c", 0)]
    assert parser.feed(answer, START_NS).values.tolist() == [wanted]


def maxbotix_text(vector: Vector, _: Path) -> None:
    parser = RangeParser(maxbotix.frame_format(4), 9600, maxbotix.decode, within(300, 4999))
    nothing = vector["expect"].get("no_target", False)
    wanted = NO_TARGET if nothing else vector["expect"]["range_mm"]
    assert feed(parser, raw_bytes(vector)).ravel().tolist() == [wanted]
    assert parser.tally().tolist() == [1, 0, 0, int(nothing)]


def no_maxbotix(vector: Vector, _: Path) -> None:
    assert (
        len(feed(RangeParser(maxbotix.frame_format(4), 9600, maxbotix.decode, within(300, 4999)), raw_bytes(vector)))
        == 0
    )


def edvs(vector: Vector, _: Path) -> None:
    number = int(vector["protocol"][-1])
    events = EventScanner(EDVS_TIMES[number]).feed(raw_bytes(vector), quiet=True)
    t_us, x, y, on = np.array(vector["expect"]).T
    assert np.array_equal(np.stack([events.x, events.y, events.on]), [x, y, on])
    wanted = {0: 0 * t_us, 1: np.diff(t_us, prepend=0)}.get(number, t_us % (1 << 8 * number))
    assert np.array_equal(events.ticks, wanted)


def events_of(path: Path, content: bytes) -> np.ndarray:
    """(n, 4) t x y on, as a file; t in us since the first event."""
    pytest.importorskip("faery")
    path.write_bytes(content)
    source = FileEvents("camera", EventFileConfig(path=path, geometry=(1280, 1024), pace="fast"))
    source.open()
    packets: list[Packet | None] = []
    with suppress(EndOfInput):
        while True:
            packets.append(source.read(1))
    source.close()
    events = np.concatenate([packet.data for packet in packets if packet is not None])
    t_us = (events["t_ns"] - events["t_ns"][0]) // 1000
    return np.stack([t_us, *(events[name].astype(np.int64) for name in ("x", "y", "on"))], axis=1)


def file_of(head: bytes, name: str) -> Callable[[Vector, Path], None]:
    def check(vector: Vector, folder: Path) -> None:
        expect = vector["expect"]
        wanted = np.array(expect if isinstance(expect, list) else expect["events"])
        found = events_of(folder / name, head + raw_bytes(vector))
        assert np.array_equal(found, wanted - [wanted[0, 0], 0, 0, 0])

    return check


def evt21_byte_order(vector: Vector, folder: Path) -> None:
    """Behind a TIME_HIGH of 0 in the same order, the example is a word of several pixels."""
    legacy = vector["expect"]["sensor"] == "IMX636"
    word = int(vector["expect"]["word64"], 16)
    t_us, x, y, mask = word >> 54 & 0x3F, word >> 43 & 0x7FF, word >> 32 & 0x7FF, word & 0xFFFF_FFFF
    first = bytes.fromhex("0000008000000000" if legacy else "0000000000000080")
    head = b"% format EVT21;height=1024;width=1280" + (b";endianness=legacy\n" if legacy else b"\n")
    wanted = [[0, x + bit, y, word >> 60] for bit in range(32) if mask >> bit & 1]
    assert t_us == 4
    assert events_of(folder / "a.raw", head + first + raw_bytes(vector)).tolist() == wanted


CHECKS: dict[str, Callable[[Vector, Path], None]] = {
    "bno08x_rvc": imu_vectors.bno08x,
    "bno08x_rvc_stream": imu_vectors.bno08x,
    "witmotion_uart": imu_vectors.witmotion,
    "witmotion_can_or_short": imu_vectors.no_witmotion,
    "witmotion_ble_5561": imu_vectors.no_witmotion,
    "xbus": imu_vectors.xsens,
    "vectornav_binary": imu_vectors.vectornav,
    "vectornav_ascii": imu_vectors.vectornav,
    "mavlink1": imu_vectors.mavlink,
    "mavlink2": imu_vectors.mavlink,
    "us_ff4": four_bytes,
    "us_ff4_stream": four_bytes,
    "dfrobot_urm07_cmd": urm07_question,
    "dfrobot_urm07": urm07_answer,
    "us100": us100,
    "maxbotix": maxbotix_text,
    "maxbotix_wrong_polarity": no_maxbotix,
    "tfmini": tfmini_frame,
    "evt2": file_of(b"% evt 2.0\n", "a.raw"),
    "evt3": file_of(b"% evt 3.0\n", "a.raw"),
    "evt21_byte_order": evt21_byte_order,
    "evt21_genx320": file_of(b"% evt 2.1\n", "a.raw"),
    "dat2": file_of(b"% Version 2\n", "a.dat"),
    "nmnist_bin": file_of(b"", "a.bin"),
    **{f"edvs4337_E{number}": edvs for number in range(5)},
}


@pytest.fixture(scope="module")
def every(data_dir: Path) -> list[Vector]:
    found: list[Vector] = json.loads((data_dir / "protocol_vectors" / "vectors.json").read_text())
    return found


def test_no_vector_and_no_check_is_left_over(every: list[Vector]) -> None:
    assert len(every) == COUNT
    assert {vector["protocol"] for vector in every} == CHECKS.keys()


@pytest.mark.parametrize("number", range(COUNT))
def test_the_vector_decodes_to_its_values_or_is_rejected(every: list[Vector], tmp_path: Path, number: int) -> None:
    vector = every[number]
    CHECKS[vector["protocol"]](vector, tmp_path)
