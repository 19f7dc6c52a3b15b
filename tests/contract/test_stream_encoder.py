"""Every encoder of streams in models/encoders keeps the contract of models.base.StreamEncoder; found by itself."""

import importlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from drivers.packet import EVENT, Packet, SensorInfo
from models.base import StreamEncoder
from models.datasets import audio_info
from models.registry import encoders

MIC = audio_info(16_000.0)
CAMERA = SensorInfo("event_camera", ("x", "y", "on"), ("px", "px", "1"), (1.0, 1.0, 1.0), 1e6)
SECOND_NS = 1_000_000_000

Cut = Callable[[np.random.Generator, int], Iterator[Packet]]
"""A second of made signal as packets of about so many samples; the same signal for the same generator's seed."""


def sound(rng: np.random.Generator, size: int) -> Iterator[Packet]:
    wave = np.rint(rng.normal(0, 3000, 16_000) * np.sin(np.arange(16_000) / 2000) ** 2).astype(np.int16)[:, None]
    for seq, start in enumerate(range(0, len(wave), size)):
        yield Packet("mic", seq, SECOND_NS + start * 62_500, 62_500, wave[start : start + size].copy())


def events(rng: np.random.Generator, size: int) -> Iterator[Packet]:
    data = np.zeros(5000, EVENT)
    data["t_ns"] = SECOND_NS + np.sort(rng.integers(0, SECOND_NS, 5000))
    data["x"], data["y"], data["on"] = (rng.integers(0, most, 5000) for most in (128, 128, 2))
    for seq, start in enumerate(range(0, len(data), size)):
        part = data[start : start + size].copy()
        yield Packet("eyes", seq, int(part["t_ns"][0]), 0, part)


SIGNALS: dict[str, tuple[SensorInfo, Cut, dict[str, int]]] = {
    "audio_delta": (MIC, sound, {}),
    "event_bins": (CAMERA, events, {"width": 128, "height": 128, "pool": 8}),
}


@pytest.fixture(params=encoders("STREAM"))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(kind: str) -> tuple[StreamEncoder, Cut]:
    info, cut, settings = SIGNALS[kind]
    encoder_class = importlib.import_module(f"models.encoders.{kind}").STREAM
    encoder: StreamEncoder = encoder_class(encoder_class.Config(**settings), info)
    return encoder, cut


def steps_of(kind: str, size: int) -> tuple[np.ndarray, list[int]]:
    encoder, cut = made(kind)
    rasters, begins = [np.zeros((0, encoder.features), np.uint8)], []
    for packet in cut(np.random.default_rng(5), size):
        steps = encoder.push(packet)
        rasters.append(steps.raster)
        begins += [steps.t0_ns + i * encoder.step_ns for i in range(len(steps.raster))]
    return np.concatenate(rasters), begins


@pytest.mark.parametrize("size", [1, 37, 160, 5000])
def test_packets_of_any_size_give_the_same_steps_at_the_same_times(kind: str, size: int) -> None:
    raster, begins = steps_of(kind, size)
    whole, expected = steps_of(kind, 100_000)
    assert np.array_equal(raster, whole)
    assert begins == expected
    assert set(np.unique(whole)) == {0, 1}
    assert len(whole) > 50


def test_steps_follow_each_other(kind: str) -> None:
    encoder, _ = made(kind)
    _, begins = steps_of(kind, 64)
    assert set(np.diff(begins)) == {encoder.step_ns}


def test_only_the_beginning_is_fresh_until_a_long_gap(kind: str) -> None:
    encoder, cut = made(kind)
    packets = list(cut(np.random.default_rng(5), 400))
    assert [encoder.push(packet).fresh for packet in packets] == [True, *[False] * (len(packets) - 1)]
    last = packets[-1]
    later = last.t0_ns + 5 * SECOND_NS
    data = last.data.copy()
    if last.dt_ns == 0:
        data["t_ns"] += 5 * SECOND_NS
    assert encoder.push(Packet(last.sensor, last.seq + 9, later, last.dt_ns, data)).fresh
