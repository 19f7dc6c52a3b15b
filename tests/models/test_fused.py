"""Several sensors, one network: joint windows, what each sensor's trouble does to results, and the quality."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drivers.packet import Packet
from models import bundle, track
from models.backends.reference import ReferenceBackend
from models.base import BadModel
from models.bundle import Bundle
from models.datasets.nmnist import CAMERA_INFO
from models.datasets.recording import IMU_INFO
from models.fused import POOR_WINDOWS, FusedSession
from tests.models import fusion, networks
from tests.models.fusion import AUDIO, AUDIO_INFO, EVENTS, MOTION, SPAN_NS, S, evented, flashes, play, sampled, sound

ONSETS_S = (0.6, 1.8, 3.0, 4.2)
SECONDS = 5.4
BINS = {"kind": "event_bins", "width": 128, "height": 128, "pool": 16}
INFOS = (AUDIO_INFO, CAMERA_INFO)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fusion.write(tmp_path_factory.mktemp("fused"))


def session(made: Bundle, infos: tuple = INFOS) -> FusedSession:
    backend = ReferenceBackend()
    backend.load(made)
    return FusedSession(made, backend, infos)


def heard(results: list) -> list[tuple[float, str, float]]:
    return [(round(one.t0_ns / S, 3), one.label, one.score) for one in results]


def test_both_sensors_give_one_result_for_one_event(made: Bundle) -> None:
    fused = session(made)
    camera = evented(1, flashes(onset + 0.03 for onset in ONSETS_S))
    results = play(fused, sampled(0, sound(SECONDS, ONSETS_S), 8000) + camera, until_s=SECONDS)
    assert len(results) == len(ONSETS_S)
    for one, onset_s in zip(results, ONSETS_S, strict=True):
        # The first of the two begins the window: the sound's onset is in a frame of 10 ms, 50 ms before it the window.
        assert one.t0_ns == pytest.approx((onset_s - 0.05) * S, abs=11e6)
        assert (one.end_ns - one.t0_ns, one.quality, one.missing, one.lost) == (SPAN_NS, 1.0, (), 0)
    assert fused.quality == 1.0
    assert [part.trouble for part in fused.inputs] == [None, None]


def test_packets_of_any_size_give_the_same(made: Bundle) -> None:
    samples, events = sound(SECONDS, ONSETS_S), flashes(onset - 0.02 for onset in ONSETS_S)
    wanted = None
    for size, slice_ns in ((256, 4_000_000), (37, 1_000_000), (800, 20_000_000)):
        results = play(session(made), sampled(0, samples, 8000, size=size) + evented(1, events, slice_ns=slice_ns))
        wanted = wanted or heard(results)
        assert heard(results) == wanted
        assert len(wanted) == len(ONSETS_S)


@pytest.mark.parametrize("dead", [0, 1])
@pytest.mark.parametrize("noticed", [True, False])
def test_one_dead_sensor_does_not_stop_the_other(made: Bundle, dead: int, noticed: bool) -> None:
    deliveries = [sampled(0, sound(SECONDS, ONSETS_S), 8000), evented(1, flashes(ONSETS_S))][1 - dead]
    live = [i != dead or not noticed for i in range(2)]
    fused = session(made)
    results = play(fused, deliveries, live=live, until_s=SECONDS)
    assert [one.quality for one in results] == [0.5] * len(ONSETS_S)
    assert {one.missing for one in results} == {(("audio", "events")[dead],)}
    assert fused.inputs[dead].trouble == (None if noticed else "no data")
    assert fused.inputs[1 - dead].trouble is None


def test_a_sensor_that_comes_back_is_whole_again(made: Bundle) -> None:
    fused = session(made)
    onsets_s = [0.6 + 1.2 * i for i in range(10)]
    away = (3.5, 8.5)
    camera = [d for d in evented(1, flashes(onsets_s)) if not away[0] * S <= d.at_ns < away[1] * S]
    results = play(fused, sampled(0, sound(12.6, onsets_s), 8000) + camera, until_s=12.6)
    assert [one.quality for one in results] == [1.0] * 3 + [0.5] * 4 + [1.0] * 3
    assert fused.inputs[1].trouble is None


def test_the_late_are_not_waited_for_and_are_counted(made: Bundle) -> None:
    fused = session(made)
    slow = sampled(0, sound(SECONDS, ONSETS_S), 8000, delay_ns=400_000_000)
    results = play(fused, slow + evented(1, flashes(ONSETS_S)), until_s=SECONDS + 1)
    assert len(results) == len(ONSETS_S)
    assert all(0.5 < one.quality < 0.9 and one.missing == () for one in results)
    assert fused.given_up_samples == sum(one.lost for one in results) > 0
    assert fused.inputs[0].late == fused.given_up_samples


def test_what_is_lost_lowers_the_quality_by_its_part(made: Bundle) -> None:
    deliveries = sampled(0, sound(SECONDS, ONSETS_S), 8000, size=400)
    index = next(i for i, d in enumerate(deliveries) if d.packet.t0_ns >= 0.7 * S)
    following = replace(deliveries[index + 1].packet, lost=400, seq=deliveries[index].packet.seq)
    rest = [replace(d, packet=replace(d.packet, seq=d.packet.seq - 1)) for d in deliveries[index + 2 :]]
    holed = [*deliveries[:index], replace(deliveries[index + 1], packet=following), *rest]
    results = play(session(made), holed + evented(1, flashes(ONSETS_S)), until_s=SECONDS)
    assert [(one.lost, one.quality) for one in results] == [(400, 0.95), (0, 1.0), (0, 1.0), (0, 1.0)]


def test_a_noisy_sensor_is_set_aside_and_does_not_hide_the_other(tmp_path: Path) -> None:
    made = fusion.write(tmp_path, AUDIO, {**EVENTS, "rate_range": [100, 1200]})
    fused = session(made)
    onsets_s = [0.9 + 1.2 * i for i in range(8)]
    # The camera flickers: bursts of far too many events, each an onset, that do not keep step with the sound.
    flicker = evented(1, flashes([0.35 + 0.5 * i for i in range(20)], count=20_000))
    results = play(fused, sampled(0, sound(10.8, onsets_s), 8000) + flicker, until_s=10.8)
    assert all(one.quality <= 0.5 and "events" in one.missing for one in results)
    assert fused.inputs[1].trouble is not None
    assert fused.inputs[1].trouble.endswith("input spikes in a window, expected 100 to 1200")
    begun_ns = [one.t0_ns for one in results[POOR_WINDOWS:]]
    for onset_s in onsets_s[3:]:
        assert min(abs(t0_ns - (onset_s - 0.05) * S) for t0_ns in begun_ns) < 11e6, onset_s


def test_a_microphone_that_says_one_value_is_set_aside(made: Bundle) -> None:
    stuck = np.full((round(SECONDS * 8000), 1), 17, np.int16)
    results = play(session(made), sampled(0, stuck, 8000) + evented(1, flashes(ONSETS_S)), until_s=SECONDS)
    assert [(one.quality, one.missing) for one in results] == [(0.5, ("audio",))] * len(ONSETS_S)


def test_events_that_cannot_be_are_set_aside(made: Bundle) -> None:
    outside = flashes(ONSETS_S)
    outside["x"][5::500] = 300
    fused = session(made)
    results = play(fused, sampled(0, sound(SECONDS, ONSETS_S), 8000) + evented(1, outside), until_s=SECONDS)
    assert [(one.quality, one.missing) for one in results] == [(0.5, ("events",))] * len(ONSETS_S)
    assert "events up to pixel (300, " in str(fused.inputs[1].trouble)


def test_what_is_absent_is_no_spike(made: Bundle) -> None:
    """A dead sensor's features are zero, so a live one alone decides: the same as any other time without it."""
    alone = play(session(made), evented(1, flashes(ONSETS_S)), live=(False, True), until_s=SECONDS)
    stuck = np.zeros((round(SECONDS * 8000), 1), np.int16)
    beside = play(session(made), sampled(0, stuck, 8000) + evented(1, flashes(ONSETS_S)), until_s=SECONDS)
    assert heard(alone) == heard(beside)
    assert [one.input_spikes for one in alone] == [one.input_spikes for one in beside]


def test_without_onsets_windows_follow_the_clock(tmp_path: Path) -> None:
    window = {"mode": "time", "samples": 20_480, "hop": 10_240}
    quiet = {**AUDIO, "window": window, "encoder": {"kind": "audio_mel", "hop": 160}}
    made = fusion.write(tmp_path, MOTION, quiet, infos=(IMU_INFO, AUDIO_INFO))
    fused = session(made, (IMU_INFO, AUDIO_INFO))
    rng = np.random.default_rng(3)
    motion = sampled(0, rng.normal(0, 300, (500, 6)).astype(np.int16), 50, size=1)
    silent_s = (4.0, 7.0)
    noise = sampled(1, sound(10, (), noise=300), 8000)
    noise = [d for d in noise if not silent_s[0] * S <= d.at_ns < silent_s[1] * S]
    results = play(fused, motion + noise)
    assert [one.t0_ns for one in results] == [round(i * 1.28 * S) for i in range(6)]
    quality = [one.quality for one in results]
    assert quality[0] == quality[1] == pytest.approx(1.0, abs=0.001)
    assert min(quality[3:5]) < 0.7
    assert not any(one.missing for one in results)


def test_a_flood_of_events_is_bounded_and_counted(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "MOST_EVENTS", 5000)
    fused = session(made)
    results = play(fused, evented(1, flashes((0.6,), count=20_000)), live=(False, True), until_s=2)
    assert len(results) == 1
    assert fused.inputs[1].late >= 14_000
    assert fused._windower._tracks[1]._held <= 5000


def test_nothing_piles_up(made: Bundle) -> None:
    """Neither while nothing begins, nor where one sensor's clock runs away."""
    fused = session(made)
    tracks = fused._windower._tracks
    noise = sampled(0, sound(20, ()), 8000)
    assert play(fused, noise) == []
    assert len(tracks[0]._chunks) < 60
    for seq in range(2000):
        fused.push(0, Packet("s", 1000 + seq, (30 + seq) * S, 125_000, np.ones((8000, 1), np.int16)))
        list(fused.tick(21 * S, (True, True)))
    assert len(tracks[0]._chunks) < 60


@pytest.mark.parametrize("mode", ["onset", "time"])
def test_a_clock_that_leaps_ahead_and_comes_back_keeps_no_window_off(tmp_path: Path, mode: str) -> None:
    made = fusion.write(tmp_path)
    if mode == "time":
        windows = {"samples": 4000, "hop": 4000}, {"samples": 500_000, "hop": 500_000}
        parts = [{**one, "window": {"mode": mode, **w}} for one, w in zip((AUDIO, EVENTS), windows, strict=True)]
        made = fusion.write(tmp_path, *parts)
    fused = session(made)
    onsets_s = [0.6 + 1.2 * i for i in range(12)]
    microphone = [
        replace(one, packet=replace(one.packet, t0_ns=one.packet.t0_ns + 3600 * S))
        if 4 * S < one.at_ns < 9 * S
        else one
        for one in sampled(0, sound(15, onsets_s), 8000)
    ]
    results = play(fused, microphone + evented(1, flashes(onset + 0.03 for onset in onsets_s)), until_s=15)
    whole = [one for one in results if one.quality > 0.95 and 9.6 * S < one.t0_ns < 15 * S]
    assert len(whole) >= 4
    assert [part.trouble for part in fused.inputs] == [None, None]


def test_a_clock_that_stands_still_is_bounded_and_counted(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "MOST_EVENTS", 5000)
    fused = session(made)
    for seq in range(500):
        fused.push(0, Packet("s", seq, 10 * S, 125_000, np.zeros((256, 1), np.int16)))
        list(fused.tick(10 * S, (True, True)))
    kept = fused._windower._tracks[0]._held
    assert kept <= track.MOST_WINDOWS * 4000
    assert fused.inputs[0].late == 500 * 256 - kept


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"input": AUDIO["input"]}, "inputs: expected in place of input, encoder and window, not beside them"),
        ({"late_ms": None}, "late_ms: expected with inputs"),
        ({"state": "carry"}, "state: a fused model decides on windows"),
        ({"inputs": [AUDIO, AUDIO]}, "inputs: two have the same name"),
        ({"inputs": [AUDIO]}, "inputs: List should have at least 2 items"),
        ({"inputs": [AUDIO, {**EVENTS, "rate_range": [9, 3]}]}, "inputs.1.rate_range: expected the fewest"),
        ({"inputs": [AUDIO, {**EVENTS, "window": None}]}, "window: expected with state 'reset'"),
        ({"inputs": None, "late_ms": None}, "input: Field required"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    document = {"input": None, "window": None, "encoder": None, **fusion.recipe(AUDIO, EVENTS), **changes}
    with pytest.raises(BadModel, match=expected):
        networks.write_bundle(tmp_path / "made", networks.random_network(np.random.default_rng(1), 24), **document)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ({"window": {"mode": "onset", "samples": 300_000}, "encoder": {**BINS, "step_us": 7500}}, "different lengths"),
        ({"encoder": {**BINS, "step_us": 5000}}, "different numbers of time steps"),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(tmp_path: Path, events: dict, expected: str) -> None:
    with pytest.raises(BadModel, match=expected):
        session(fusion.write(tmp_path, AUDIO, {**EVENTS, **events}))


def test_a_network_of_other_features_and_a_sensor_that_does_not_fit_are_refused(made: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="wants audio of 1 channel"):
        session(made, (IMU_INFO, CAMERA_INFO))
    document = {"input": None, "window": None, "encoder": None, **fusion.recipe(AUDIO, EVENTS)}
    other = networks.write_bundle(tmp_path / "made", networks.random_network(np.random.default_rng(1), 24), **document)
    with pytest.raises(BadModel, match="the network takes 24"):
        session(other)


def test_what_wants_one_sensor_says_so(made: Bundle) -> None:
    with pytest.raises(BadModel, match="fuses 2 sensors"):
        bundle.load(made.path).windows  # noqa: B018
