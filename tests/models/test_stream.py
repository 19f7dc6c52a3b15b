"""A network that goes on from step to step: outputs, gaps, and going on after a restart."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drivers.packet import EVENT, Packet, SensorInfo
from models.backends.reference import ReferenceBackend
from models.base import BadModel, Inference, Outputs, Raster, State, Trace
from models.bundle import Bundle
from models.encoders.audio_delta import AudioDeltaConfig, AudioDeltaStream
from models.encoders.event_bins import EventBinsConfig, EventBinsStream
from models.select import verify
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


def events(seq: int, *t_ns: int, lost: int = 0) -> Packet:
    """One event each, all in one pixel."""
    data = np.zeros(len(t_ns), EVENT)
    data["t_ns"] = t_ns
    return Packet("eyes", seq, t_ns[0] if t_ns else 0, 0, data, lost)


def test_what_is_lost_before_a_step_is_whole_is_told_with_it(bundle: Bundle) -> None:
    stream = stream_of(bundle)
    source = [events(seq, 10**9 + seq * 300_000, lost=1) for seq in range(21)]
    made = decisions(stream, iter(source))
    assert len(made) == 3
    assert sum(i.lost for i in made) == 21


def test_each_pause_decays_the_state_once(bundle: Bundle) -> None:
    """Also those between which no step was whole."""
    source = list(packets())
    end_ns = source[-1].t0_ns
    pauses = [events(40, end_ns + 2 * 10**9), events(41, end_ns + 4 * 10**9)]
    later = [events(42, end_ns + 6 * 10**9)]
    often, once = stream_of(bundle), stream_of(bundle)
    decisions(often, iter([*source, *pauses, *later]))
    decisions(once, iter([*source, *later]))
    assert often.given_up_samples > once.given_up_samples > 0
    steps = [int(stream.checkpoint()["end_ns"][0]) for stream in (often, once)]
    assert steps == [end_ns + 6 * 10**9] * 2
    assert all(np.array_equal(a, b) for a, b in zip(_state(often), _state(once), strict=True))


def _state(stream: Stream) -> list[np.ndarray]:
    return [array for name, array in stream.checkpoint().items() if name.startswith("state")]


def test_a_cameras_time_that_goes_back_a_little_is_no_new_stream() -> None:
    encoder = EventBinsStream(EventBinsConfig(**ENCODER), CAMERA)
    second = 10**9
    assert encoder.push(events(0, second, second + 3 * STEP_NS)).fresh
    steps = encoder.push(events(1, second + 3 * STEP_NS - 1000, second + 4 * STEP_NS))
    assert not steps.fresh
    assert (steps.t0_ns, len(steps.raster)) == (second + 3 * STEP_NS, 1)
    assert encoder.push(events(2, second - 10**9)).fresh


def test_a_silence_within_a_packet_takes_no_memory() -> None:
    encoder = EventBinsStream(EventBinsConfig(**ENCODER), CAMERA)
    encoder.push(events(0, 10**9))
    year_ns = 365 * 86400 * 10**9
    steps = encoder.push(events(1, 10**9 + 1000, year_ns, year_ns + STEP_NS))
    assert (steps.fresh, steps.t0_ns, len(steps.raster), steps.given_up) == (True, year_ns, 1, 2)
    often = range(2 * year_ns, 2 * year_ns + 400 * 10**9, 9 * 10**8)
    encoder = EventBinsStream(EventBinsConfig(width=4096, height=4096, step_us=1000), CAMERA)
    steps = encoder.push(events(2, *often))
    assert len(steps.raster) * encoder.features <= 1 << 29


def test_a_packet_without_events_is_no_step(bundle: Bundle) -> None:
    stream = stream_of(bundle)
    source = list(packets())
    whole = decisions(stream_of(bundle), iter(source))
    assert plain(decisions(stream, iter([events(0), *source[:9], events(9), *source[9:]]))) == plain(whole)


def test_a_sound_begins_at_the_same_time_in_packets_of_any_size() -> None:
    info = SensorInfo("audio", ("mono",), ("FS",), (2.0**-15,), 16000.0)
    sound = np.random.default_rng(0).integers(-9000, 9000, (1600, 1)).astype(np.int16)
    dt_ns = 62_500

    def begun(size: int) -> list[int]:
        encoder = AudioDeltaStream(AudioDeltaConfig(), info)
        parts = [sound[at : at + size] for at in range(0, len(sound), size)]
        source = [Packet("mic", n, 10**9 + n * size * dt_ns, dt_ns, part) for n, part in enumerate(parts)]
        made = [encoder.push(packet) for packet in source]
        after = encoder.push(replace(source[-1], t0_ns=5 * 10**9, lost=60_000))
        given_up = len(sound) - 8 * encoder.cfg.hop - (encoder.cfg.frame + 1 - encoder.cfg.hop)
        assert (after.fresh, after.given_up) == (True, given_up)
        return [steps.t0_ns for steps in made if steps.fresh]

    assert begun(1600) == begun(64) == begun(20)


class _Forgetful(ReferenceBackend):
    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        return super().infer(raster, None, trace)


def test_a_backend_that_does_not_carry_the_state_is_found(bundle: Bundle) -> None:
    for kind in (ReferenceBackend, _Forgetful):
        backend = kind()
        backend.load(bundle)
        if kind is ReferenceBackend:
            verify(backend, bundle)
        else:
            with pytest.raises(BadModel, match="answers golden vector 0 differently"):
                verify(backend, bundle)
