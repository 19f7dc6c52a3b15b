"""Bytes of serial microphones to samples, without a port."""

from collections.abc import Callable

import numpy as np
import pytest

from drivers.audio.pcm_streams import BLOCK_SAMPLES, DecimalStream, MarkedStream, RawStream
from drivers.audio.serial_pcm import PcmTimeline
from drivers.lib.serial_sensor import Parser
from drivers.lib.timeline import Rows
from hil.emulators.serial_pcm import SampleFormat, encode
from tests.drivers.damage import START_NS, feed

BAUD = 500_000
STREAMS: dict[SampleFormat, Callable[[int], Parser]] = {
    "raw": RawStream,
    "marked": MarkedStream,
    "decimal": DecimalStream,
}


def sound(count: int = 4000, amplitude: int = 9000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tone = amplitude * np.sin(np.arange(count) * 0.11) + rng.normal(0, amplitude / 30, count)
    return np.clip(tone, -32768, 32767).astype(np.int16)


def count_of(parser: Parser, stream: bytes, chunk: int = 777) -> tuple[np.ndarray, int]:
    """Samples, and samples said to be missing."""
    parts = [parser.feed(stream[i : i + chunk], START_NS + i) for i in range(0, len(stream), chunk)]
    return np.concatenate([p.values for p in parts]).ravel(), sum(int(p.missing.sum()) for p in parts)


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("chunk", [1, 3, 100, 5000])
def test_every_sample_comes_out(kind: SampleFormat, chunk: int) -> None:
    samples = sound(1000)
    found, missing = count_of(STREAMS[kind](BAUD), encode(samples, kind), chunk)
    first = 1 if kind == "decimal" else 0
    assert len(found) >= 1000 - 2 * BLOCK_SAMPLES
    assert np.array_equal(found, samples[first : first + len(found)])
    assert missing == 0


@pytest.mark.parametrize("amplitude", [3, 100, 9000, 32_000])
@pytest.mark.parametrize("at", [1, 1501, 2999])
def test_a_lost_byte_of_raw_samples_costs_two_blocks_at_most(amplitude: int, at: int) -> None:
    samples = sound(amplitude=amplitude)
    stream = bytearray(encode(samples, "raw"))
    del stream[at]
    parser = RawStream(BAUD)
    found, missing = count_of(parser, bytes(stream))
    assert len(found) >= len(samples) - 4 * BLOCK_SAMPLES
    tail = len(samples) - BLOCK_SAMPLES * 3 - at // 2
    assert np.isin(found[-tail:], samples).all()
    loud = np.abs(np.diff(found.astype(np.int64))).max()
    assert loud <= np.abs(np.diff(samples.astype(np.int64))).max() + 2 * amplitude
    assert missing <= 2 * BLOCK_SAMPLES
    assert missing > 0 or at == 1


def test_samples_that_begin_in_the_middle_are_aligned() -> None:
    samples = sound()
    found, missing = count_of(RawStream(BAUD), encode(samples, "raw")[1:])
    assert np.array_equal(found, samples[1 : 1 + len(found)])
    assert missing == 0


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("shape", ["upper byte", "0 to 255"])
def test_sound_of_8_bits_is_read_from_the_right_byte(shape: str, cut: int) -> None:
    """Every other byte is zero: the wrong byte gives the quieter sound. Where it begins, that is not known yet."""
    rng = np.random.default_rng(1)
    loudness = np.repeat(rng.uniform(5, 100, 40), 1000)
    coarse = np.rint(loudness * np.sin(np.cumsum(rng.uniform(0.1, 0.6, 40_000)))).astype(np.int16)
    samples = coarse * 256 if shape == "upper byte" else coarse + 128
    found, missing = count_of(RawStream(BAUD), encode(samples, "raw")[cut:])
    tail = len(samples) - 8000
    end = cut + len(found) + missing
    assert np.array_equal(found[-tail:], samples[end - tail : end])
    assert missing <= BLOCK_SAMPLES


def test_sound_of_8_bits_behind_a_quiet_room_loses_nothing() -> None:
    """A recording of such a converter, played between the noise of another."""
    rng = np.random.default_rng(2)
    room = np.rint(rng.normal(0, 1.5, 8000)).astype(np.int16)
    word = np.rint(20 * np.sin(np.arange(4000) * 0.3) * np.sin(np.arange(4000) * 0.002)).astype(np.int16) * 256
    samples = np.concatenate([room, word, room, word, room])
    found, missing = count_of(RawStream(BAUD), encode(samples, "raw"))
    assert missing == 0
    assert np.array_equal(found, samples[: len(found)])


def test_silence_is_not_judged() -> None:
    samples = np.concatenate([np.zeros(5000, np.int16), sound(), np.zeros(5000, np.int16)])
    parser = RawStream(BAUD)
    found, missing = count_of(parser, encode(samples, "raw"))
    assert np.array_equal(found, samples[: len(found)])
    assert missing == parser.noisy_blocks == 0


def test_what_is_noise_from_either_byte_is_told() -> None:
    parser = RawStream(BAUD)
    feed(parser, np.random.default_rng(0).bytes(100_000))
    assert parser.noisy_blocks > 700
    feed(parser, encode(sound(1000), "raw"))
    assert parser.noisy_blocks == 0


@pytest.mark.parametrize("offset", range(1, 12))
@pytest.mark.parametrize("kind", ["drop", "double"])
def test_damage_to_marked_samples_gives_no_wrong_value(offset: int, kind: str) -> None:
    samples = sound(600)
    stream = bytearray(encode(samples, "marked"))
    at = 900 + offset
    if kind == "drop":
        del stream[at]
    else:
        stream[at:at] = stream[at : at + 1]
    found, missing = count_of(MarkedStream(BAUD), bytes(stream))
    wrong = set(found.tolist()) - set(samples.tolist())
    # A doubled byte within a group still has its marks around it two groups long; one value may be wrong.
    assert len(wrong) <= 1
    assert 1 <= missing <= 4
    assert np.array_equal(found[-250:], samples[-251:-1])


def test_samples_that_look_like_marks_do_not_confuse() -> None:
    samples = np.full(500, 0x0A0A, np.int16)
    samples[::7] = 5
    found, missing = count_of(MarkedStream(BAUD), encode(samples, "marked"))
    assert np.array_equal(found, samples[:499])
    assert missing == 0


def test_lines_that_are_no_number_are_missing_samples() -> None:
    parser = DecimalStream(BAUD)
    rows = parser.feed(b"23\n1\n-2\r\nxyz\n+3\n\n4.5\n70000\n-99999\n5\n6", START_NS)
    assert rows.values.ravel().tolist() == [1, -2, 3, 32767, -32768, 5]
    assert rows.missing.tolist() == [0, 0, 1, 1, 0, 0]
    assert parser.tally().tolist() == [6, 0, 3 + 4 + 1 + 4, 2]


def deliver(timeline: PcmTimeline, rate_hz: float, second: int, jitter_ns: int = 0) -> tuple[np.ndarray, int]:
    """One second of samples of a device with this rate, in buffers of 20 ms; their times, and losses."""
    times, lost = [], 0
    size = round(rate_hz / 50)
    for part in range(50):
        index = second * 50 * size + part * size + np.arange(size)
        arrival_ns = START_NS + round((int(index[-1]) + 1) * 1e9 / rate_hz) + jitter_ns * (part % 5)
        left_ns = arrival_ns - (size - np.arange(size)) * 40_000
        rows = Rows(np.zeros((size, 1), np.int16), np.full(size, -1), left_ns, np.zeros(size, np.int64))
        t_ns, missing = timeline.place(rows)
        times.append(t_ns)
        lost += int(missing.sum())
    return np.concatenate(times), lost


@pytest.mark.parametrize("rate_hz", [16_000.0, 15_625.0, 16_050.0])
def test_the_rate_is_measured_and_not_taken_for_a_loss(rate_hz: float) -> None:
    timeline = PcmTimeline(16_000)
    for second in range(20):
        times, lost = deliver(timeline, rate_hz, second, jitter_ns=2_000_000)
        assert lost == 0
    measured = timeline.measured_hz
    assert measured is not None
    assert measured == pytest.approx(rate_hz, rel=1e-3)
    assert (times[-1] - times[0]) / (len(times) - 1) == pytest.approx(1e9 / rate_hz, rel=2e-3)


def test_samples_that_vanish_without_a_trace_are_noticed() -> None:
    timeline = PcmTimeline(16_000)
    for second in range(10):
        assert deliver(timeline, 16_000, second)[1] == 0
    # A tenth of a second is never sent.
    lost = 0
    for second in range(11, 14):
        for part in range(50):
            index = second * 16_000 + part * 320 + np.arange(320) - 14_400
            left_ns = START_NS + (int(index[-1]) + 1) * 62_500 - (320 - np.arange(320)) * 40_000
            rows = Rows(np.zeros((320, 1), np.int16), np.full(320, -1), left_ns, np.zeros(320, np.int64))
            lost += int(timeline.place(rows)[1].sum())
    assert lost == pytest.approx(1600, abs=50)
