"""Frames of every serial sensor, for the fuzzers; with the recordings at hand (``AXOND_DATA``) the real ones too."""

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hil.emulators import a02, bno08x_rvc, edvs, serial_pcm, tfmini, tick_frames, vectornav, witmotion, xsens
from hil.emulators.case import cases
from tests.drivers.damage import raw_bytes

ECHO_SAMPLES = 60
LONGEST_BYTES = 256
EDVS_TIMES: tuple[edvs.Time, ...] = ("none", "delta", "16", "24", "32")
MAVLINK = (
    "fe1a0701011bcb04fb711f010000640038ff5226fbff0600f9ff2c0170fef401cffc",
    "fd1a00000701011b0000cb04fb711f010000640038ff5226fbff0600f9ff2c0170fef4018cec",
    "fd1600000001011a000087d61200640038ffd503fbff0600f9ff2c0170fef4012bab",
    "fe180001011a87d61200640038ffd503fbff0600f9ff2c0170fef401000027b1",
    "fd16000000010174000087d61200640038ffd503fbff0600f9ff2c0170fef401ac68",
    "fd16000000010181000087d61200640038ffd503fbff0600f9ff2c0170fef401f95f",
    "fd3e0000080101690000e3b54f03000000000000003f000080be00001dc10ad7233c0ad7a3bc8fc2f53c3d0a573ecdcc4cbd"
    "f628dc3e00507d440000000000004841 0000c841ff0f1fd9",
    "fe09ef010100050000000203590303f1d7",
)
"""RAW_IMU, SCALED_IMU, 2 and 3, HIGHRES_IMU and HEARTBEAT as pymavlink packs them."""
TEXT = (
    b"0.497,-0.501,0.722,0.488,-1.526,-14.282\r\n",
    b"aX,aY,aZ,gX,gY,gZ\r\n\r\n",
    b"R1234\r",
    b"R123\r",
    b"12.3,45.6,0.0,7\r\n",
    b'{"t":123456,"d":[12.3,null,0,7]}\n',
    b"S1:1 S2:2 S3: S4=4\n",
    b"nan,ovf,,-1\n",
)


def seeds() -> list[bytes]:
    """The same ones each time."""
    rng = np.random.default_rng(0)
    words = rng.integers(-3000, 3000, (4, 6)).astype(np.int16)
    numbers = rng.normal(0, 2, (4, 6)).astype(np.float32)
    sound = (9000 * np.sin(np.arange(100) * 0.11) + rng.normal(0, 300, 100)).astype(np.int16)
    t_us = np.cumsum(rng.integers(0, 300, 20))
    x, y, on = (rng.integers(0, most, 20).astype(np.uint8) for most in (128, 128, 2))
    echo_us = rng.integers(0, 23_000, (4, 4))
    wave = rng.integers(-2000, 2000, ECHO_SAMPLES)
    return [
        *witmotion.encode(words, 0, 100, timed=True, angles=True),
        *bno08x_rvc.encode(words, 250),
        *xsens.encode(numbers, 65533, 100),
        *(vectornav.encode_ascii(row) for row in numbers),
        *(vectornav.encode_binary(row, 10**9) for row in numbers),
        *(bytes.fromhex(message) for message in MAVLINK),
        *TEXT,
        a02.frame(1953),
        a02.frame(65535),
        *tfmini.encode(np.array([[207, 8971, 2512], [65535, 90, 0]])),
        bytes.fromhex("55aa11020212345a"),
        b"\x00\x42",
        b"\x46",
        *(tick_frames.frame(tick_frames.ECHO_TIMES, i, 50_000 * i, row) for i, row in enumerate(echo_us)),
        *(tick_frames.frame(tick_frames.WAVEFORM, i, 100_000 * i, wave + i) for i in range(4)),
        *(serial_pcm.encode(sound, kind) for kind in ("raw", "marked", "decimal")),
        *(edvs.encode_events(t_us, x, y, on, time) for time in EDVS_TIMES),
        *_declared(),
        *_recorded(),
    ]


def _declared() -> Iterator[bytes]:
    """A few rows of each sensor that an emulator declares, so of every new one."""
    for case in cases().values():
        if case.package is None or find_spec(case.package) is not None:
            yield from (row for row in case.emulator(Path("unused")).encode(1, 3) if 0 < len(row) <= LONGEST_BYTES)


def _recorded() -> list[bytes]:
    path = Path(os.environ.get("AXOND_DATA", "/nonexistent")) / "protocol_vectors" / "vectors.json"
    return [raw_bytes(vector) for vector in json.loads(path.read_text())] if path.is_file() else []
