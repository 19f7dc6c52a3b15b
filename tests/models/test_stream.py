"""A network that goes on from step to step: outputs, gaps, and going on after a restart."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from drivers.packet import EVENT, Packet, SensorInfo
from models.backends.reference import ReferenceBackend
from models.base import BadModel, Inference, State
from models.bundle import Bundle
from models.encoders.event_bins import EventBinsConfig, EventBinsStream
from models.stream import MAX_PAUSE_S, Stream
from tests.models.networks import random_network, write_bundle

CAMERA = SensorInfo("event_camera", ("x", "y", "on"), ("px", "px", "1"), (1.0, 1.0, 1.0), 1e6)
ENCODER = {"width": 32, "height": 32, "pool": 8, "step_us": 2000}
STEP_NS = 2_000_000
READOUT = 25


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    net = random_network(np.random.default_rng(3), features=32)
    spec = {"family": "event_camera", "channels": list(CAMERA.channels), "rate_hz": 1e6}
    encoder = {"kind": "event_bins", **ENCODER}
    changes = {
        "input": spec,
        "encoder": encoder,
        "window": None,
        "state": "carry",
        "readout_steps": READOUT,
        "temperature": 1e6,
    }
    return write_bundle(tmp_path / "stream", net, **changes)


def packets(begin_ns: int = 10**9, count: int = 40, seed: int = 0, first_seq: int = 0) -> Iterator[Packet]:
    rng = np.random.default_rng(seed)
    for seq in range(count):
        data = np.zeros(60, EVENT)
        data["t_ns"] = begin_ns + seq * 5_000_000 + np.sort(rng.integers(0, 5_000_000, 60))
        data["t_ns"][0] = begin_ns + seq * 5_000_000
        data["x"], data["y"], data["on"] = (rng.integers(0, most, 60) for most in (32, 32, 2))
        yield Packet("eyes", first_seq + seq, int(data["t_ns"][0]), 0, data)


def stream_of(bundle: Bundle) -> Stream:
    backend = ReferenceBackend()
    backend.load(bundle)
    return Stream(bundle, backend, CAMERA)


def decisions(stream: Stream, source: Iterator[Packet]) -> list[Inference]:
    return [inference for packet in source for inference in stream.push(packet)]


def plain(inferences: list[Inference]) -> list[tuple[int, str, float]]:
    return [(i.t0_ns, i.label, i.score) for i in inferences]


def test_every_step_decides_over_the_last_steps(bundle: Bundle) -> None:
    made = decisions(stream_of(bundle), packets())
    encoder = EventBinsStream(EventBinsConfig(**ENCODER), CAMERA)
    raster = np.concatenate([encoder.push(packet).raster for packet in packets()])
    backend = ReferenceBackend()
    backend.load(bundle)
    outputs = backend.infer(raster)
    assert len(made) == len(raster) > 90
    assert [i.t0_ns for i in made] == [10**9 + n * STEP_NS for n in range(len(raster))]
    for n in (0, 5, READOUT - 1, READOUT, len(made) - 1):
        sums = outputs[max(0, n - READOUT + 1) : n + 1].sum(axis=0)
        assert made[n].label == bundle.manifest.labels[int(sums.argmax())]
        assert made[n].input_spikes == int(raster[n].sum())
    assert len({i.label for i in made}) > 1


def test_a_short_pause_decays_the_state_and_a_long_one_forgets_it(bundle: Bundle) -> None:
    source = list(packets())
    end_ns = source[-1].t0_ns
    short = list(packets(end_ns + 3 * 10**9, seed=1, first_seq=40))
    long = list(packets(end_ns + int((MAX_PAUSE_S + 2) * 1e9), seed=1, first_seq=40))
    fresh = plain(decisions(stream_of(bundle), iter(long)))
    once = stream_of(bundle)
    decisions(once, iter(source))
    assert plain(decisions(once, iter(long))) == fresh
    again = stream_of(bundle)
    decisions(again, iter(source))
    resumed = decisions(again, iter(short))
    begin = again_from_zeros(bundle, source, short)
    assert [i.label for i in resumed][: len(begin)] == begin


def again_from_zeros(bundle: Bundle, source: list[Packet], later: list[Packet]) -> list[str]:
    """Labels behind a pause, computed with the backend alone."""
    encoder = EventBinsStream(EventBinsConfig(**ENCODER), CAMERA)
    first = [encoder.push(packet) for packet in source]
    raster = np.concatenate([steps.raster for steps in first])
    end_ns = first[-1].t0_ns + len(first[-1].raster) * STEP_NS
    behind = [encoder.push(packet) for packet in later]
    pause = round((behind[0].t0_ns - end_ns) / STEP_NS)
    backend, state = ReferenceBackend(), State.rest(bundle.network.neurons)
    backend.load(bundle)
    rows = np.concatenate([raster, np.zeros((pause, raster.shape[1]), np.uint8), *(s.raster for s in behind)])
    outputs = backend.infer(rows, state)
    total = [outputs[max(0, n - READOUT + 1) : n + 1].sum(axis=0) for n in range(len(raster) + pause, len(outputs))]
    return [bundle.manifest.labels[int(sums.argmax())] for sums in total]


def test_a_stream_goes_on_from_a_checkpoint(bundle: Bundle) -> None:
    source = list(packets(count=60))
    whole = decisions(stream_of(bundle), iter(source))
    first = stream_of(bundle)
    before = decisions(first, iter(source[:30]))
    second = stream_of(bundle)
    second.resume({name: array.copy() for name, array in first.checkpoint().items()})
    after = decisions(second, iter(source[30:]))
    assert plain(before) == plain(whole[: len(before)])
    # The step that was open at the restart is lost with its events; the network's memory is not.
    same = sum(a.label == b.label for a, b in zip(after[-20:], whole[-20:], strict=True))
    forgetful = decisions(stream_of(bundle), iter(source[30:]))
    assert same >= 19
    assert [i.score for i in after[:5]] != [i.score for i in forgetful[:5]]


def test_a_checkpoint_of_another_network_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    saved = stream_of(bundle).checkpoint()
    for change in ({"state0": np.zeros(3, np.int32)}, {"recent": np.zeros((READOUT, 3), np.int64)}):
        with pytest.raises(BadModel, match="checkpoint of another network"):
            stream_of(bundle).resume({**saved, **change})
    with pytest.raises(BadModel, match="checkpoint of another network"):
        stream_of(bundle).resume({})
