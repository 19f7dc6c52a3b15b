"""Throws random and damaged inputs at every parser of a serial sensor: ``python -m tests.drivers.fuzz_parsers``.

An input is a frame of some sensor, damaged or not, or random bytes. Inputs are joined to a stream that is cut anywhere.
Nothing may raise or warn, results must keep the contract of ``Rows``, and what a parser remembers must stay small.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np

from drivers.lib.clock import BITS_PER_BYTE_8N1, NS_PER_S
from drivers.lib.serial_sensor import Parser, SerialSensor
from drivers.lib.timeline import Rows
from drivers.registry import driver_class, kinds
from hil.emulators import bno08x_rvc, vectornav, witmotion, xsens

INPUTS_PER_BATCH = 256
START_NS = 10**15
MEMORY_BYTES = 1_000_000
"""What a parser and its timeline may remember."""
CHECK_EVERY = 64
TELLING = np.frombuffer(b"\x00\x0a\x0d$,-.019RVN*\x55\x59\x5a\xaa\xfa\xfd\xfe\xff", np.uint8)
"""Bytes that mean something to some parser."""


@dataclass
class Target:
    """One parser, in one setting of its driver."""

    name: str
    driver: SerialSensor[Any]

    def parser(self) -> Parser:
        return self.driver._new_parser()


def targets() -> Iterator[Target]:
    """Every parser, in every setting that its configuration has a fixed choice for."""
    for kind in kinds():
        found = driver_class(kind)
        if not issubclass(found, SerialSensor):
            continue
        for choice in _choices(found):
            name = " ".join([kind, *(f"{key}={value}" for key, value in choice.items())])
            yield Target(name, found("fuzz", found.Config(port="fuzz", **choice)))


def _choices(found: type[SerialSensor[Any]]) -> list[dict[str, object]]:
    choices: list[dict[str, object]] = [{}]
    for key, field in found.Config.model_fields.items():
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) > 1:
            choices += [{key: value} for value in get_args(field.annotation) if value != field.default]
    return choices


def seeds() -> list[bytes]:
    """Frames of many sensors; with the recordings at hand (``AXOND_DATA``) the real ones too."""
    rng = np.random.default_rng(0)
    words = rng.integers(-3000, 3000, (4, 6)).astype(np.int16)
    numbers = rng.normal(0, 2, (4, 6)).astype(np.float32)
    found = [
        *witmotion.encode(words, 0, 100, timed=True, angles=True),
        *bno08x_rvc.encode(words, 250),
        *xsens.encode(numbers, 65533, 100),
        *(vectornav.encode_ascii(row) for row in numbers),
        *(vectornav.encode_binary(row, 10**9) for row in numbers),
        b"0.497,-0.501,0.722,0.488,-1.526,-14.282\r\n",
        b"aX,aY,aZ,gX,gY,gZ\r\n\r\n",
        bytes.fromhex("fe1a0701011bcb04fb711f010000640038ff5226fbff0600f9ff2c0170fef401cffc"),
        bytes.fromhex("fd1a00000701011b0000cb04fb711f010000640038ff5226fbff0600f9ff2c0170fef4018cec"),
        bytes.fromhex("ff07a1a7"),
        b"R1234\r",
        bytes.fromhex("5959cf000b23d00988"),
        bytes.fromhex("55aa11020212345a"),
    ]
    path = Path(os.environ.get("AXOND_DATA", "/nonexistent")) / "protocol_vectors" / "vectors.json"
    if path.is_file():
        for vector in json.loads(path.read_text()):
            found.append(bytes.fromhex(vector["hex"]) if "hex" in vector else vector["text"].encode())
    return found


def remembered(thing: object, seen: set[int]) -> int:
    """Bytes of the arrays, strings and containers that hang on a thing, roughly."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if isinstance(thing, bytes | bytearray | str):
        return len(thing)
    if isinstance(thing, dict):
        return sum(remembered(part, seen) for pair in thing.items() for part in pair)
    if isinstance(thing, list | tuple | set | deque):
        return 8 * len(thing) + sum(remembered(part, seen) for part in thing)
    return 32 + (0 if isinstance(thing, type) else remembered(getattr(thing, "__dict__", {}), seen))


class Inputs:
    """Seeded: the same seed gives the same inputs."""

    def __init__(self, seed: int, target: Target) -> None:
        self._rng = np.random.default_rng(seed)
        self._frames = [np.frombuffer(frame, np.uint8) for frame in seeds()]
        own = [index for index, frame in enumerate(seeds()) if _accepts(target.parser(), frame)]
        self._weights = np.ones(len(self._frames))
        self._weights[own] = 4 * len(self._frames) / max(1, len(own))
        self._weights /= self._weights.sum()

    def batch(self) -> bytes:
        """256 inputs, one behind the other, with damage all over."""
        rng = self._rng
        pieces = [self._frames[i] for i in rng.choice(len(self._frames), INPUTS_PER_BATCH, p=self._weights)]
        # A long run of one sensor's frames reaches what single frames between others do not.
        begin, run = sorted(rng.integers(0, INPUTS_PER_BATCH, 2).tolist())
        pieces[begin:run] = [pieces[begin]] * (run - begin)
        noise = rng.random(INPUTS_PER_BATCH) < rng.choice([0.0, 0.02, 0.2, 1.0], p=[0.4, 0.3, 0.2, 0.1])
        for index in np.flatnonzero(noise).tolist():
            pieces[index] = rng.integers(0, 256, int(rng.integers(1, 80)), dtype=np.uint8)
        stream = np.concatenate(pieces)
        rate = float(rng.choice([0.0, 0.0005, 0.005, 0.05]))
        flipped = np.flatnonzero(rng.random(len(stream)) < rate)
        stream[flipped] ^= (1 << rng.integers(0, 8, len(flipped))).astype(np.uint8)
        random = np.flatnonzero(rng.random(len(stream)) < rate / 2)
        stream[random] = rng.choice(
            np.array([0, 10, 13, 36, 85, 89, 90, 170, 250, 253, 254, 255], np.uint8), len(random)
        )
        # 0 drops a byte, 2 doubles it.
        copies = rng.choice([0, 1, 2], len(stream), p=[rate / 2, 1 - rate, rate / 2])
        return np.repeat(stream, copies).tobytes()

    def cuts(self, length: int) -> list[int]:
        """Where reads end."""
        cuts = self._rng.integers(0, length + 1, int(self._rng.integers(0, 6)))
        return [0, *np.sort(cuts).tolist(), length]


def _accepts(parser: Parser, frame: bytes) -> bool:
    parser.feed(b"\n" + frame * 3, 1)
    return bool(parser.tally()[0] >= 2)


def fuzz(target: Target, count: int, seed: int) -> tuple[int, list[int]]:
    """At least ``count`` inputs into one parser; how many rows came out, and the tally. Raises AssertionError."""
    inputs = Inputs(seed, target)
    parser, timeline = target.parser(), target.driver._new_timeline()
    now_ns, last_ns, rows_seen = START_NS, 0, 0
    byte_ns = BITS_PER_BYTE_8N1 * NS_PER_S // target.driver.cfg.baud
    tally = parser.tally()
    for batch in range(-(-count // INPUTS_PER_BATCH)):
        stream = inputs.batch()
        for begin, end in pairwise(inputs.cuts(len(stream))):
            now_ns += (end - begin) * byte_ns
            rows = parser.feed(stream[begin:end], now_ns)
            assert isinstance(rows, Rows)
            assert len(rows.values) == len(rows.ticks) == len(rows.left_ns) == len(rows.missing)
            if len(rows.values):
                t_ns, lost = timeline.place(rows)
                assert last_ns <= int(t_ns[0])
                assert (np.diff(t_ns) >= 0).all()
                assert lost.min() >= 0
                last_ns, rows_seen = int(t_ns[-1]), rows_seen + len(rows.values)
            now = parser.tally()
            assert (now >= tally).all()
            tally = now
        if batch % CHECK_EVERY == 0:
            held = remembered((parser, timeline), set())
            assert held < MEMORY_BYTES, f"{target.name} remembers {held} bytes"
    return rows_seen, tally.tolist()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1_000_000, help="inputs per parser")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="parsers whose name begins so")
    chosen = options.parse_args()
    warnings.simplefilter("error")
    for target in targets():
        if not target.name.startswith(chosen.only):
            continue
        begin_s = time.monotonic()
        rows, tally = fuzz(target, chosen.count, chosen.seed)
        spent_s = time.monotonic() - begin_s
        print(f"{target.name}: {chosen.count} inputs, {rows} rows, tally {tally}, {spent_s:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
