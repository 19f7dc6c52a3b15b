"""Throws random and damaged inputs at every parser: ``python -m tests.drivers.fuzz_parsers``.

An input is a frame of some sensor, damaged or not, or random bytes. Inputs are joined to a stream that is cut anywhere.
Nothing may raise or warn or hang, rows must keep the contract of ``Rows`` and be the same wherever the stream was cut,
and what a parser remembers must stay small. Files of event cameras: ``fuzz_recordings``.
"""

import argparse
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

import numpy as np

from drivers.event_camera.edvs_clock import Arrival, EventClock
from drivers.event_camera.edvs_events import EventScanner, Time
from drivers.lib.clock import BITS_PER_BYTE_8N1, NS_PER_S, WINDOW_S
from drivers.lib.framing import Offsets
from drivers.lib.polled_sensor import SLOTS, Answers
from drivers.lib.ranging import ArrivalTimeline
from drivers.lib.serial_sensor import Parser, SerialSensor
from drivers.lib.timeline import Rows, Timeline
from drivers.registry import driver_class, kinds
from tests.drivers.damage import check_rows
from tests.drivers.fuzz_recordings import fuzz_recordings
from tests.drivers.seeds import ECHO_SAMPLES, EDVS_TIMES, seeds

INPUTS_PER_BATCH = 256
START_NS = 10**15
OLDEST_NS = START_NS - (WINDOW_S + 1) * NS_PER_S
MEMORY_BYTES = 64_000
"""What a parser and its timeline may remember."""
HANG_S = 30.0
"""A batch takes milliseconds; on a machine with other work, somewhat more."""
CHECK_EVERY = 64
TELLING = np.frombuffer(b"\x00\x0a\x0d$,-.019RVN*\x55\x59\x5a\xaa\xfa\xfd\xfe\xff", np.uint8)
"""Bytes that mean something to some parser."""
SETTINGS: dict[str, list[dict[str, object]]] = {
    "ultrasonic.a02": [{}, {"trigger": "55"}],
    "ultrasonic.array": [{}, {"format": "text"}, {"format": "text", "unit": "cm"}],
    "ultrasonic.echo": [{"samples": ECHO_SAMPLES}],
}
"""Of the others: each fixed choice that their configuration has."""


class Asked:
    """A sensor that answers: what comes is the answer to a question, now and then one that was given up."""

    def __init__(self, answers: Answers, rate_hz: float) -> None:
        self._answers = answers
        self._rate_hz = rate_hz
        self._calls = 0

    row_bytes = 1

    def tally(self) -> Offsets:
        return self._answers.tally()

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        answers = self._answers
        self._calls += 1
        if answers.waiting and self._calls % 7 == 0:
            answers.give_up()
        if not answers.waiting and not answers.ask_on():
            answers.ask(int((arrival_ns - START_NS) * self._rate_hz / NS_PER_S) % SLOTS, arrival_ns)
        return answers.feed(chunk, arrival_ns)


class EventParser:
    """The event camera's scanner and clock as a parser of x, y, on and time field."""

    row_bytes = 2

    def __init__(self, time: Time, baud: int) -> None:
        self._scanner = EventScanner(time)
        self._clock = EventClock(self._scanner.modulus, time != "none", baud)
        self._events = 0

    def tally(self) -> Offsets:
        return np.array([self._events, 0, self._scanner.skipped_bytes, 0])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        self._clock.arrived(Arrival(self._scanner.position + len(chunk), arrival_ns, True))
        events = self._scanner.feed(chunk)
        count = len(events.x)
        self._events += count
        values = np.stack([events.x, events.y, events.on, events.ticks], axis=1).astype(np.int64)
        left_ns = self._clock.place(events) if count else np.zeros(0, np.int64)
        return Rows(values, np.full(count, -1), left_ns, np.zeros(count, np.int64))


@dataclass(frozen=True)
class Target:
    """One parser, in one setting of its driver."""

    name: str
    parser: Callable[[], Parser]
    timeline: Callable[[], Timeline]
    baud: int
    asks: bool = False
    """Its bytes are answers: where reads end is part of the input."""


def targets() -> Iterator[Target]:
    """Every parser, in every setting."""
    for kind in kinds():
        found = driver_class(kind)
        if not issubclass(found, SerialSensor):
            continue
        for choice in SETTINGS.get(kind) or _choices(found):
            name = " ".join([kind, *(f"{key}={value}" for key, value in choice.items())])
            yield _target(name, found("fuzz", found.Config(port="fuzz", **choice)))
    for time_field in EDVS_TIMES:
        yield Target(
            f"event_camera.edvs time={time_field}",
            lambda time_field=time_field: EventParser(time_field, 12_000_000),
            lambda: ArrivalTimeline(1e5),
            12_000_000,
        )


def _target(name: str, driver: SerialSensor[Any]) -> Target:
    asks = not name.startswith("imu.mavlink") and getattr(driver.new_parser(), "asks", False)
    make: Callable[[], Parser] = driver.new_parser
    if asks:
        make = lambda: Asked(driver.new_parser(), driver.cfg.rate_hz)  # noqa: E731
    return Target(name, make, driver._new_timeline, driver.cfg.baud, asks)


def _choices(found: type[SerialSensor[Any]]) -> list[dict[str, object]]:
    choices: list[dict[str, object]] = [{}]
    for key, field in found.Config.model_fields.items():
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) > 1:
            choices += [{key: value} for value in get_args(field.annotation) if value != field.default]
    return choices


def remembered(thing: object, seen: set[int]) -> int:
    """Bytes of the arrays, strings and containers that hang on a thing, roughly."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return thing.nbytes if thing.base is None else remembered(thing.base, seen)
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
        self._most_cuts = INPUTS_PER_BATCH if target.asks else 6
        self._frames = [np.frombuffer(frame, np.uint8) for frame in seeds()]
        own = [index for index, frame in enumerate(seeds()) if _accepts(target, frame)]
        self._weights = np.ones(len(self._frames))
        self._weights[own] = 4 * len(self._frames) / max(1, len(own))
        self._weights /= self._weights.sum()

    def batch(self) -> bytes:
        """256 inputs, one behind the other, with damage all over."""
        rng = self._rng
        pieces = [self._frames[i] for i in rng.choice(len(self._frames), INPUTS_PER_BATCH, p=self._weights)]
        # A long run of one sensor's frames, or of their beginnings, reaches what single frames between others do not.
        begin, run = sorted(rng.integers(0, INPUTS_PER_BATCH, 2).tolist())
        whole = rng.random() < 0.9
        repeated = pieces[begin] if whole else pieces[begin][: int(rng.integers(1, len(pieces[begin]) + 1))]
        pieces[begin:run] = [repeated] * (run - begin)
        noise = rng.random(INPUTS_PER_BATCH) < rng.choice([0.0, 0.02, 0.2, 1.0], p=[0.4, 0.3, 0.2, 0.1])
        for index in np.flatnonzero(noise).tolist():
            pieces[index] = rng.integers(0, 256, int(rng.integers(1, 80)), dtype=np.uint8)
        stream = np.concatenate(pieces)
        rate = float(rng.choice([0.0, 0.0005, 0.005, 0.05]))
        flipped = np.flatnonzero(rng.random(len(stream)) < rate)
        stream[flipped] ^= (1 << rng.integers(0, 8, len(flipped))).astype(np.uint8)
        random = np.flatnonzero(rng.random(len(stream)) < rate / 2)
        stream[random] = rng.choice(TELLING, len(random))
        # 0 drops a byte, 2 doubles it.
        copies = rng.choice([0, 1, 2], len(stream), p=[rate / 2, 1 - rate, rate / 2])
        return np.repeat(stream, copies).tobytes()

    def cuts(self, length: int) -> list[int]:
        """Where reads end."""
        cuts = self._rng.integers(0, length + 1, int(self._rng.integers(0, self._most_cuts)))
        return [0, *np.sort(cuts).tolist(), length]


def _accepts(target: Target, frame: bytes) -> bool:
    parser = target.parser()
    if target.asks:
        return any(parser.feed(frame, START_NS) and parser.tally()[0] for _ in range(2))
    parser.feed(b"\n" + frame * 3, START_NS)
    return bool(parser.tally()[0] >= 2)


def fuzz(target: Target, count: int, seed: int) -> tuple[int, list[int]]:
    """At least ``count`` inputs into one parser; how many rows came out, and the tally. Raises AssertionError."""
    inputs = Inputs(seed, target)
    parser, whole, timeline = target.parser(), target.parser(), target.timeline()
    now_ns, last_ns, rows_seen, fed = START_NS, OLDEST_NS, 0, 0
    byte_ns = BITS_PER_BYTE_8N1 * NS_PER_S // target.baud
    tally = parser.tally()
    for batch in range(-(-count // INPUTS_PER_BATCH)):
        begin_s = time.monotonic()
        stream = inputs.batch()
        parts = []
        for begin, end in pairwise(inputs.cuts(len(stream))):
            now_ns += (end - begin) * byte_ns
            rows = parser.feed(stream[begin:end], now_ns)
            check_rows(rows)
            parts.append(rows)
            if len(rows.values):
                t_ns, lost = timeline.place(rows)
                assert last_ns <= int(t_ns[0])
                assert (np.diff(t_ns) >= 0).all()
                assert lost.min() >= 0
                last_ns, rows_seen = int(t_ns[-1]), rows_seen + len(rows.values)
            now = parser.tally()
            assert (now >= tally).all()
            tally = now
        fed += len(stream)
        assert tally[2] <= fed
        if not target.asks:
            once = whole.feed(stream, now_ns)
            assert np.array_equal(np.concatenate([part.values for part in parts]), once.values)
            assert np.array_equal(np.concatenate([part.ticks for part in parts]), once.ticks)
            assert tally.tolist() == whole.tally().tolist()
        spent_s = time.monotonic() - begin_s
        assert spent_s < HANG_S, f"{target.name} took {spent_s:.0f} s for {len(stream)} bytes"
        if batch % CHECK_EVERY == 0:
            held = remembered((parser, timeline), set())
            assert held < MEMORY_BYTES, f"{target.name} remembers {held} bytes"
    return rows_seen, tally.tolist()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1_000_000, help="inputs per parser")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", nargs="*", default=[""], help="parsers whose name begins so")
    chosen = options.parse_args()
    warnings.simplefilter("error")
    runs = {target.name: lambda target=target: fuzz(target, chosen.count, chosen.seed) for target in targets()}
    runs["event_camera.file"] = lambda: fuzz_recordings(chosen.count, chosen.seed)
    for name, run in runs.items():
        if not name.startswith(tuple(chosen.only)):
            continue
        begin_s = time.monotonic()
        rows, tally = run()
        spent_s = time.monotonic() - begin_s
        print(f"{name}: {chosen.count} inputs, {rows} rows, tally {tally}, {spent_s:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
