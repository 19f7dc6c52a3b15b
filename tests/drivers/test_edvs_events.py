"""Bytes of the serial event camera to events, without a port."""

import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.event_camera.edvs_events import BACK, Events, EventScanner
from hil.emulators.edvs import Time, encode_events
from tests.drivers.damage import raw_bytes, vectors

FORMATS: list[Time] = ["none", "delta", "16", "24", "32"]
TIMED: list[Time] = ["delta", "16", "24", "32"]
COUNTS = {"dvs128_1": 63_471, "dvs128_2": 84_260, "dvs128_8": 101_288}


def join(parts: list[Events]) -> np.ndarray:
    """(n, 4) x y on ticks."""
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "on", "ticks")]
    return np.stack(columns, axis=1).astype(np.int64)


def scan(scanner: EventScanner, stream: bytes, chunk: int = 5000) -> np.ndarray:
    parts = [scanner.feed(stream[i : i + chunk]) for i in range(0, len(stream), chunk)]
    return join([*parts, scanner.feed(b"", quiet=True)])


def made_events(count: int, seed: int = 0, mean_step_us: int = 20) -> np.ndarray:
    """(n, 4) t x y on."""
    rng = np.random.default_rng(seed)
    steps = rng.exponential(mean_step_us, count).astype(np.int64)
    # Moving edges: neighbours in space follow in time, in runs of one polarity.
    x = (np.cumsum(rng.integers(-3, 4, count)) + 64) % 128
    y = (np.cumsum(rng.integers(-3, 4, count)) + 64) % 128
    on = np.repeat(rng.integers(0, 2, count // 5 + 1), 5)[:count]
    return np.stack([np.cumsum(steps), x, y, on], axis=1)


def encode(events: np.ndarray, time: Time, last_us: int = 0) -> bytes:
    t, x, y, on = events.T
    return encode_events(t, x.astype(np.uint8), y.astype(np.uint8), on.astype(np.uint8), time, last_us)


def pieces(events: np.ndarray, time: Time) -> list[bytes]:
    """The bytes of each event."""
    stream = encode(events, time)
    sizes = np.full(len(events), {"none": 2, "delta": 3, "16": 4, "24": 5, "32": 6}[time])
    if time == "delta":
        steps = np.diff(events[:, 0], prepend=0)
        sizes += sum((steps >= 1 << 7 * groups).astype(np.int64) for groups in (1, 2, 3))
    ends = np.cumsum(sizes)
    return [stream[end - size : end] for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)]


def expected(events: np.ndarray, time: Time) -> np.ndarray:
    t, x, y, on = events.T
    bits = {"none": 0, "16": 16, "24": 24, "32": 32}
    ticks = np.diff(t, prepend=0) if time == "delta" else t & ((1 << bits[time]) - 1)
    return np.stack([x, y, on, ticks], axis=1)


def recording(data_dir: Path, name: str) -> np.ndarray:
    with lzma.open(data_dir / "event_recordings" / f"{name}.bs2.xz") as file:
        raw = np.frombuffer(file.read(), np.uint8).reshape(-1, 5).astype(np.int64)
    t = (raw[:, 2] & 0x7F) << 16 | raw[:, 3] << 8 | raw[:, 4]
    return np.stack([t, raw[:, 0], raw[:, 1], raw[:, 2] >> 7], axis=1)


@pytest.mark.parametrize("number", range(5))
def test_every_recorded_vector_decodes(data_dir: Path, number: int) -> None:
    (vector,) = vectors(data_dir, f"edvs4337_E{number}")
    wanted = np.array(vector["expect"])
    stream = raw_bytes(vector)
    assert stream == encode(wanted, FORMATS[number])
    assert np.array_equal(scan(EventScanner(FORMATS[number]), stream), expected(wanted, FORMATS[number]))


@pytest.mark.parametrize("time", FORMATS)
@pytest.mark.parametrize("name", COUNTS)
def test_every_event_of_a_recording_comes_out(data_dir: Path, name: str, time: Time) -> None:
    events = recording(data_dir, name)
    assert len(events) == COUNTS[name]
    scanner = EventScanner(time)
    assert np.array_equal(scan(scanner, encode(events, time), 9973), expected(events, time))
    assert scanner.skipped_bytes == 0


@pytest.mark.parametrize("time", FORMATS)
@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 10_000])
def test_any_chunking_gives_the_same(time: Time, chunk: int) -> None:
    events = made_events(300)
    stream = bytearray(encode(events, time))
    del stream[400]
    whole, cut = EventScanner(time), EventScanner(time)
    assert np.array_equal(scan(whole, bytes(stream), len(stream)), scan(cut, bytes(stream), chunk))
    assert whole.skipped_bytes == cut.skipped_bytes


@pytest.mark.parametrize("time", TIMED)
@pytest.mark.parametrize("fault", ["drop 1", "drop 2", "drop 3", "double 1", "double 3", "flip"])
@pytest.mark.parametrize("recorded", [False, True])
def test_damage_costs_a_few_events_and_gives_hardly_any_wrong_ones(
    request: pytest.FixtureRequest, time: Time, fault: str, recorded: bool
) -> None:
    """Without a checksum a changed byte can be a changed event; but what follows is right again."""
    events = recording(request.getfixturevalue("data_dir"), "dvs128_1") if recorded else made_events(60_000)
    blocks, size, rng = 100, 400, np.random.default_rng(1)
    wire = pieces(events[: blocks * size], time)
    stream = bytearray()
    for block in range(blocks):
        part = bytearray(b"".join(wire[block * size : (block + 1) * size]))
        at = int(rng.integers(len(part) // 3, 2 * len(part) // 3))
        kind, _, count = fault.partition(" ")
        if kind == "drop":
            del part[at : at + int(count)]
        elif kind == "double":
            part[at:at] = part[at : at + int(count)]
        else:
            part[at] ^= 1 << int(rng.integers(8))
        stream += part
    found = scan(EventScanner(time), bytes(stream))
    wanted = expected(events[: blocks * size], time)
    right = {tuple(row) for row in wanted.tolist()}
    seen = [tuple(row) for row in found.tolist()]
    missing, wrong = len(right - set(seen)), sum(row not in right for row in seen)
    assert missing <= (8 if time == "delta" else 4) * blocks
    assert wrong <= (8 if time == "delta" else 1) * blocks


@pytest.mark.parametrize("fault", ["drop", "double"])
def test_without_times_only_polarity_tells_and_sync_returns(fault: str) -> None:
    events = made_events(3000)
    stream = bytearray(encode(events, "none"))
    if fault == "drop":
        del stream[2001]
    else:
        stream[2001:2001] = stream[2001:2002]
    found = scan(EventScanner("none"), bytes(stream))
    wanted = expected(events, "none")
    assert np.array_equal(found[-1900:], wanted[-1900:])
    assert np.array_equal(found[: 1000 - BACK], wanted[: 1000 - BACK])


@pytest.mark.parametrize("time", FORMATS)
def test_it_enters_a_running_stream_anywhere(time: Time) -> None:
    events = made_events(400, seed=2)
    stream = encode(events, time)
    wanted = expected(events, time)
    for cut in range(1, 40):
        found = scan(EventScanner(time), stream[cut:])
        assert np.array_equal(found[-340:], wanted[-340:])


@pytest.mark.parametrize("time", TIMED)
def test_replies_in_the_stream_cost_no_event(time: Time) -> None:
    events = made_events(400)
    wire = pieces(events, time)
    stream = b"".join(wire[:200]) + b"-!E2\n-S1 1000\n" + b"".join(wire[200:])
    found = scan(EventScanner(time), stream)
    assert np.array_equal(found, expected(events, time))


@pytest.mark.parametrize("time", ["16", "24"])
def test_pauses_are_no_damage(time: Time) -> None:
    events = made_events(400)
    for at in (100, 150, 300):
        events[at:, 0] += 40_000
    scanner = EventScanner(time)  # type: ignore[arg-type]
    assert np.array_equal(scan(scanner, encode(events, time)), expected(events, time))  # type: ignore[arg-type]
    assert scanner.skipped_bytes == 0


@pytest.mark.parametrize("time", FORMATS)
def test_events_are_held_only_until_the_line_is_quiet(time: Time) -> None:
    events = made_events(5)
    scanner = EventScanner(time)
    assert len(scanner.feed(encode(events, time)).x) == 0
    assert np.array_equal(join([scanner.feed(b"", quiet=True)]), expected(events, time))
    more = made_events(3, seed=3)
    assert len(scanner.feed(encode(more, time)).x) == 0
    assert np.array_equal(join([scanner.feed(b"", quiet=True)]), expected(more, time))


@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.one_of(st.binary(max_size=200), st.integers(1, 40)), st.booleans()), max_size=20),
)
@settings(deadline=None)
def test_any_bytes_may_come(time: Time, chunks: list[tuple[bytes | int, bool]]) -> None:
    scanner = EventScanner(time)
    longest = {"none": 2, "delta": 6, "16": 4, "24": 5, "32": 6}[time]
    received = last_end = 0
    for chunk, quiet in chunks:
        data = encode(made_events(chunk, seed=chunk), time) if isinstance(chunk, int) else chunk
        received += len(data)
        events = scanner.feed(data, quiet)
        assert len(events.x) == len(events.y) == len(events.on) == len(events.ticks) == len(events.ends)
        assert scanner.position == received
        if len(events.ends):
            assert last_end < int(events.ends[0])
            assert int(events.ends[-1]) <= received
            assert (np.diff(events.ends) >= 2).all()
            last_end = int(events.ends[-1])
        assert 0 <= scanner.skipped_bytes <= received
        assert len(scanner._rest) <= 50 * longest


@pytest.mark.parametrize("time", FORMATS)
def test_little_is_kept_between_calls(time: Time) -> None:
    scanner = EventScanner(time)
    scanner.feed(encode(made_events(50_000), time))
    assert sum(value.nbytes for value in vars(scanner).values() if isinstance(value, np.ndarray)) < 1000
