"""Files of event cameras, whole and damaged, into the driver that plays them. See ``fuzz_parsers``.

A file is events or one ``Misconfigured``. AEDAT4 is left to ``test_event_file``: it is tried in a process of its own.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from drivers.base import EndOfInput, Misconfigured
from drivers.event_camera.file import EventFileConfig, FileEvents
from drivers.packet import EVENT

SIZE = (128, 128)
MOST_EVENTS_PER_BYTE = 6
"""EVT3 has 12 pixels in a word of two bytes."""
HANG_S = 10.0
LINES = (
    *(b"% evt 2.0\n", b"% evt 3.0\n", b"% evt 2.1\n", b"% evt 9\n", b"% format EVT3;height=72;width=128\n"),
    *(b"% Version 2\n", b"% Data file containing CD events.\n", b"% geometry 128x128\n", b"% Width 128\n"),
    *(b"% Height 128\n", b"% geometry 99999999999999999999x3\n", b"% geometry 0x0\n", b"% geometry 16384x16384\n"),
    *(b"% end\n", b"%\n", b"% \n", b"\xff% \xfe\n", b"% end", b"\n", b"% Date 2020-09-25 07:48:31\r\n"),
)
OTHERS = (
    b"Event Stream\x02\x00\x00\x01\x80\x00\x80\x00",
    b"Event Stream\x02\x00\x00\x00",
    b"#!AER-DAT2.0\r\n# made\r\n",
    b"#!AER-DAT3.1\r\n#!END-HEADER\r\n",
    b"#!AER-DAT",
    b"",
)
WORDS = (
    np.array([0x8000_0001, 0x8000_0002, 0x1001_0801, 0x0001_1002, 0xA000_0000, 0xF000_0000], "<u4"),
    np.array([0x8001, 0x6002, 0x0005, 0x2803, 0x3008, 0x4FFF, 0x50FF, 0xA000, 0xE000, 0x8FFF], "<u2"),
    np.array([0x8000_0001_0000_0000, 0x1A82_0064_8000_0005, 0x0A82_0064_FFFF_FFFF], "<u8"),
    np.array([25, 0x0002_0019, 35, 0x1008_C043], "<u4"),
)
"""Of EVT2, EVT3, EVT2.1 and DAT."""


def made(rng: np.random.Generator) -> tuple[str, bytes]:
    """Name and content of a file."""
    if rng.random() < 0.4:
        count = int(rng.integers(0, 20))
        table = rng.integers(0, 128, (count, 5), np.uint8)
        table[:, 2] = rng.integers(0, 2, count) * 128
        table[:, 3] = np.sort(table[:, 3])
        return "a.bs2", table.tobytes()
    head = OTHERS[int(rng.integers(len(OTHERS)))]
    if rng.random() < 0.9:
        head = b"".join(LINES[i] for i in rng.integers(0, len(LINES), int(rng.integers(1, 6))))
        # Most orders of lines are refused at once; this is what lies behind the refusal.
        if rng.random() < 0.8:
            head = LINES[int(rng.choice([0, 1, 2, 4, 5]))] + LINES[7] + head
    words = WORDS[int(rng.integers(len(WORDS)))]
    body = rng.choice(words, int(rng.integers(0, 20))).tobytes()
    dat = (b"\x00\x08", b"\x0c\x08", b"\x0e\x08", b"\x07\x07", b"")[int(rng.integers(5))] if b"Version" in head else b""
    return ("a.dat" if b"Version" in head else "a.raw"), head + dat + body


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Now and then bits flipped, and bytes cut off or hung on."""
    data = np.frombuffer(content, np.uint8).copy()
    if rng.random() < 0.5:
        flipped = np.flatnonzero(rng.random(len(data)) < rng.choice([0.01, 0.1]))
        data[flipped] ^= (1 << rng.integers(0, 8, len(flipped))).astype(np.uint8)
    if rng.random() < 0.1:
        data = data[: int(rng.integers(0, len(data) + 1))]
    if rng.random() < 0.1:
        data = np.append(data, rng.integers(0, 256, int(rng.integers(1, 40)), np.uint8))
    return data.tobytes()


def play(path: Path) -> tuple[int, int]:
    """How many events a file has, and how many of them lay before their predecessors; raises Misconfigured."""
    source = FileEvents("camera", EventFileConfig(path=path, geometry=SIZE, pace="fast"))
    last_ns = count = 0
    try:
        source.open()
        while True:
            packet = source.read(1)
            assert packet is not None
            assert packet.data.dtype == EVENT
            assert last_ns <= int(packet.data["t_ns"][0])
            assert (np.diff(packet.data["t_ns"]) >= 0).all()
            assert int(packet.data["x"].max()) < SIZE[0]
            assert int(packet.data["y"].max()) < SIZE[1]
            assert int(packet.data["on"].max()) <= 1
            last_ns, count = int(packet.data["t_ns"][-1]), count + len(packet.data)
    except EndOfInput:
        return count, source.counters.out_of_range
    finally:
        source.close()


def fuzz_recordings(count: int, seed: int) -> tuple[int, list[int]]:
    """As many files; how many events came out, and how many files were played, refused, and out of order events."""
    rng = np.random.default_rng(seed)
    events = played = refused = back = 0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(count):
            name, content = made(rng)
            path = Path(folder) / name
            path.write_bytes(content := damaged(rng, content))
            if content.startswith(b"#!AER-DAT4"):
                continue
            begin_s = time.monotonic()
            try:
                found, late = play(path)
            except Misconfigured as error:
                assert "\n" not in str(error)
                assert str(path) in str(error)
                refused += 1
            else:
                assert found <= MOST_EVENTS_PER_BYTE * len(content)
                events, played, back = events + found, played + 1, back + late
            assert time.monotonic() - begin_s < HANG_S, content.hex()
    return events, [played, refused, back]
