"""Event bins in windows: the stream's spikes, steps by count, a part of a larger sensor; and distorted events."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from drivers.packet import EVENT, Packet
from models.base import BadModel, Window
from models.datasets.nmnist import CAMERA_INFO
from models.encoders.event_bins import EventBins, EventBinsConfig, EventBinsStream
from models.train.augment_events import Spread, distort
from models.window import WindowSpec
from models.window_events import EventWindower

T0_NS = 3_000_000_000_017
Events = npt.NDArray[Any]


def made(count: int, width: int = 34, height: int = 34, span_ns: int = 100_000_000, seed: int = 1) -> Events:
    rng = np.random.default_rng(seed)
    out = np.zeros(count, EVENT)
    out["t_ns"] = T0_NS + np.sort(rng.integers(0, span_ns, count))
    out["t_ns"][0] = T0_NS
    out["x"], out["y"], out["on"] = (rng.integers(0, most, count) for most in (width, height, 2))
    return out


def raster(cfg: EventBinsConfig, events: Events, samples: int = 100_000) -> npt.NDArray[np.uint8]:
    encoder = EventBins(cfg, CAMERA_INFO, samples)
    out = np.full(encoder.shape, 7, np.uint8)
    encoder.encode(Window(T0_NS, 0, events, CAMERA_INFO, span_ns=samples * 1000), out)
    return out


@pytest.mark.parametrize("cfg", [{}, {"pool": 4}, {"polarity": False, "pool": 3}], ids=str)
def test_a_window_has_the_spikes_of_the_stream(cfg: dict[str, Any]) -> None:
    config = EventBinsConfig(width=34, height=34, step_us=5000, **cfg)
    packet = Packet("eyes", 0, T0_NS, 0, made(3000, span_ns=250_000_000))
    stream = EventBinsStream(config, CAMERA_INFO).push(packet).raster
    windows = EventWindower(WindowSpec("time", samples=100_000, hop=100_000), CAMERA_INFO).push(packet)
    assert len(windows) == 2
    for n, window in enumerate(windows):
        encoder = EventBins(config, CAMERA_INFO, 100_000)
        out = np.empty(encoder.shape, np.uint8)
        encoder.encode(window, out)
        assert np.array_equal(out, stream[20 * n : 20 * n + 20])


def test_a_cell_is_polarity_row_and_column() -> None:
    events = made(2)
    events["t_ns"] = T0_NS + np.array([0, 6_000_000])
    events["x"], events["y"], events["on"] = [3, 33], [1, 2], [0, 1]
    out = raster(EventBinsConfig(width=34, height=34, step_us=5000), events, 10_000)
    assert np.argwhere(out).tolist() == [[0, 34 + 3], [1, 34 * 34 + 2 * 34 + 33]]


def test_steps_of_so_many_events_do_not_depend_on_speed() -> None:
    config = EventBinsConfig(width=34, height=34, step_us=10_000, events_per_step=50)
    events = made(420)
    out = raster(config, events)
    assert out.shape[0] == 10
    assert 40 <= out[0].sum() <= 50
    assert out[8].sum() <= 20  # the rest
    assert out[9].sum() == 0
    slower = events.copy()
    slower["t_ns"] = T0_NS + (events["t_ns"] - T0_NS) // 2
    assert np.array_equal(raster(config, slower), out)
    assert np.array_equal(raster(config, made(5000)[:500]), raster(config, made(5000)))  # more than ten steps of them
    with pytest.raises(BadModel, match="events_per_step is for windows"):
        EventBinsStream(config, CAMERA_INFO)


def test_a_part_of_a_larger_sensor() -> None:
    events = made(3000, 128, 128)
    whole = raster(EventBinsConfig(width=128, height=128, step_us=5000), events).reshape(20, 2, 128, 128)
    config = EventBinsConfig(width=34, height=20, crop=(50, 90), step_us=5000)
    assert np.array_equal(raster(config, events).reshape(20, 2, 20, 34), whole[:, :, 90:110, 50:84])
    steps = EventBinsStream(config, CAMERA_INFO).push(Packet("eyes", 0, T0_NS, 0, events)).raster
    assert steps.sum() > 0
    with pytest.raises(BadModel, match="set the encoder's crop"):
        raster(EventBinsConfig(width=34, height=34), events)


def test_silence_is_a_raster_without_spikes() -> None:
    assert raster(EventBinsConfig(width=34, height=34), made(1)[:0]).sum() == 0


def test_samples_and_windows_beyond_memory_are_refused() -> None:
    with pytest.raises(BadModel, match="expected events"):
        raster(EventBinsConfig(width=34, height=34), np.zeros((5, 3), np.int16))
    with pytest.raises(BadModel, match="cells"):
        EventBins(EventBinsConfig(width=4096, height=4096, step_us=1), CAMERA_INFO, 1_000_000)


def test_distorted_events_stay_on_the_sensor_in_the_order_of_time() -> None:
    rng = np.random.default_rng(4)
    events = made(4000)
    for _ in range(10):
        other = distort(events, 34, 34, rng, Spread())
        assert other.dtype == EVENT
        assert 1500 < len(other) <= 4200
        assert (np.diff(other["t_ns"]) >= 0).all()
        assert int(other["x"].max()) < 34
        assert int(other["y"].max()) < 34
    same = Spread(0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert np.array_equal(distort(events, 34, 34, rng, same), events)
    first, second = (distort(events, 34, 34, np.random.default_rng(9), Spread()) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(distort(events[:0], 34, 34, rng, Spread(noise_events=0))) == 0
