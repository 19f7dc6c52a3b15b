"""Windows of events: exact times, any packet sizes, silence, losses, onsets of activity."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.packet import EVENT, Packet, SensorInfo
from models import window_events
from models.base import BadModel, Window
from models.datasets.nmnist import CAMERA_INFO
from models.datasets.recording import IMU_INFO, Recording, live_windows
from models.window import Windower, WindowSpec
from models.window_events import MAX_BACK_NS, EventWindower, empty_window, make_windower

MS = 1_000_000
T0_NS = 7_000_000_000_123
TIME = WindowSpec("time", samples=100_000, hop=40_000)
ONSET = WindowSpec("onset", samples=100_000, pre=20_000, ratio=4.0, frames=2)

Events = npt.NDArray[Any]


def at(times_ns: Any) -> Events:
    out = np.zeros(len(times_ns), EVENT)
    out["t_ns"] = times_ns
    out["x"] = np.arange(len(times_ns)) % 34
    return out


def packets(events: Events, sizes: list[int]) -> list[Packet]:
    out, first = [], 0
    for seq, size in enumerate(sizes):
        part = events[first : first + size].copy()
        out.append(Packet("eyes", seq, int(part["t_ns"][0]) if len(part) else 0, 0, part))
        first += size
    return out


def split(total: int, rng: np.random.Generator, largest: int) -> list[int]:
    sizes: list[int] = []
    while (left := total - sum(sizes)) > 0:
        sizes.append(min(left, int(rng.integers(0, largest + 1))))
    return sizes


def windows_of(windower: EventWindower, items: list[Packet], end_ns: int | None = None) -> list[Window]:
    out = [window for packet in items for window in windower.push(packet)]
    return out if end_ns is None else out + windower.advance(end_ns)


def times(window: Window) -> list[int]:
    events: Events = window.data
    found: list[int] = events["t_ns"].tolist()
    return found


def facts(windows: list[Window]) -> list[tuple[int, int, int, bytes]]:
    return [(w.t0_ns, w.end_ns, w.lost, w.data.tobytes()) for w in windows]


def bursts(rng: np.random.Generator, begins_ms: list[int], quiet_ms: int = 2000) -> Events:
    """A little noise, and 60 ms of two events every 100 us from each begin."""
    noise = rng.integers(0, quiet_ms * MS, quiet_ms // 10)
    busy = [begin * MS + np.repeat(np.arange(600) * 100_000, 2) for begin in begins_ms]
    return at(T0_NS + np.sort(np.concatenate([noise, *busy])))


def test_time_windows_begin_with_the_first_event_and_overlap() -> None:
    events = at(T0_NS + np.arange(300) * MS)
    windows = windows_of(EventWindower(TIME, CAMERA_INFO), packets(events, [300]))
    assert [w.t0_ns - T0_NS for w in windows] == [i * 40 * MS for i in range(5)]
    for window in windows:
        assert window.end_ns == window.t0_ns + 100 * MS
        assert window.dt_ns == 0
        assert len(window.data) == 100
        assert (times(window)[0], times(window)[-1]) == (window.t0_ns, window.end_ns - MS)


def test_hop_longer_than_the_window_skips_events() -> None:
    spec = WindowSpec("time", samples=10_000, hop=50_000)
    windows = windows_of(EventWindower(spec, CAMERA_INFO), packets(at(T0_NS + np.arange(200) * MS), [70, 130]))
    assert [w.t0_ns - T0_NS for w in windows] == [0, 50 * MS, 100 * MS, 150 * MS]
    assert [len(w.data) for w in windows] == [10] * 4


@pytest.mark.parametrize("spec", [TIME, ONSET], ids=["time", "onset"])
@given(seed=st.integers(0, 2**32 - 1), largest=st.integers(1, 900))
@settings(max_examples=25, deadline=None)
def test_packet_sizes_do_not_matter(spec: WindowSpec, seed: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    events = bursts(rng, sorted(rng.integers(0, 1900, 4).tolist()))
    events = events[np.sort(rng.permutation(len(events))[: rng.integers(5, len(events))])]
    end_ns = T0_NS + 3000 * MS
    whole = windows_of(EventWindower(spec, CAMERA_INFO), packets(events, [len(events)]), end_ns)
    parts = windows_of(EventWindower(spec, CAMERA_INFO), packets(events, split(len(events), rng, largest)), end_ns)
    assert facts(parts) == facts(whole)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_time_told_early_changes_no_window(seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = at(T0_NS + np.sort(rng.integers(0, 1500 * MS, 60)))
    for spec in (TIME, ONSET):
        told, untold = EventWindower(spec, CAMERA_INFO), EventWindower(spec, CAMERA_INFO)
        told.advance(T0_NS)
        untold.advance(T0_NS)
        mine: list[Window] = []
        for packet in packets(events, [1] * len(events)):
            mine += told.advance(packet.t0_ns - int(rng.integers(0, 30 * MS)))
            mine += told.push(packet)
        assert facts(mine) == facts(windows_of(untold, packets(events, [len(events)])))


def test_the_last_window_is_complete_when_its_time_is_over() -> None:
    windower = EventWindower(TIME, CAMERA_INFO)
    assert windows_of(windower, packets(at(T0_NS + np.arange(50) * MS), [50])) == []
    assert windower.advance(T0_NS + 100 * MS - 1) == []
    (first,) = windower.advance(T0_NS + 100 * MS)
    assert len(first.data) == 50
    (second,) = windower.advance(T0_NS + 500 * MS)  # it began at 40 ms; the one at 80 ms would be empty
    assert (second.t0_ns - T0_NS, len(second.data)) == (40 * MS, 10)


def test_after_silence_windows_begin_with_the_next_event() -> None:
    later_ns = T0_NS + 3600 * 10**9 + 12_345
    events = at([T0_NS, T0_NS + 30 * MS, later_ns, later_ns + 150 * MS])
    windows = windows_of(EventWindower(TIME, CAMERA_INFO), packets(events, [4]))
    assert [(w.t0_ns, len(w.data)) for w in windows[:1]] == [(T0_NS, 2)]
    assert [w.t0_ns for w in windows[1:]] == [later_ns]
    assert len(windows[1].data) == 1


def test_an_event_behind_its_time_counts_as_of_now() -> None:
    windower = EventWindower(WindowSpec("time", samples=100_000, hop=100_000), CAMERA_INFO)
    windower.push(Packet("eyes", 0, T0_NS, 0, at([T0_NS])))
    assert len(windower.advance(T0_NS + 100 * MS)) == 1
    late = at([T0_NS + 99 * MS, T0_NS + 250 * MS])
    (window,) = windower.push(Packet("eyes", 1, T0_NS + 99 * MS, 0, late))
    assert times(window) == [T0_NS + 100 * MS]
    assert (windower.restarts, windower.given_up) == (0, 0)


def test_time_that_leaps_back_begins_anew_and_counts_what_is_given_up() -> None:
    windower = EventWindower(TIME, CAMERA_INFO)
    windower.push(Packet("eyes", 0, T0_NS, 0, at(T0_NS + np.arange(30) * MS)))
    back_ns = T0_NS - MAX_BACK_NS
    windows = windower.push(Packet("eyes", 1, back_ns, 0, at([back_ns, back_ns + 120 * MS])))
    assert [w.t0_ns for w in windows] == [back_ns]
    assert (windower.restarts, windower.given_up) == (1, 30)


def test_losses_are_in_the_windows_that_they_fall_into() -> None:
    windower = EventWindower(WindowSpec("time", samples=100_000, hop=100_000), CAMERA_INFO)
    items = [
        Packet("eyes", 0, T0_NS, 0, at([T0_NS])),
        Packet("eyes", 1, T0_NS + 20 * MS, 0, at([T0_NS + 20 * MS]), lost=7),
        Packet("eyes", 4, T0_NS + 110 * MS, 0, at([T0_NS + 110 * MS])),  # two packets never came
        Packet("eyes", 5, T0_NS + 210 * MS, 0, at([T0_NS + 210 * MS, T0_NS + 310 * MS])),
    ]
    assert [w.lost for w in windows_of(windower, items)] == [7, 2, 0]


def test_a_window_keeps_no_more_events_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_events, "MOST_EVENTS", 100)
    events = at(T0_NS + np.arange(400) * 100_000)
    windower = EventWindower(WindowSpec("time", samples=39_000, hop=39_000), CAMERA_INFO)
    (window,) = windows_of(windower, packets(events, [50] * 8))
    assert window.lost + len(window.data) == 390
    assert len(window.data) <= 100


def test_memory_does_not_grow_where_nothing_begins() -> None:
    windower = EventWindower(ONSET, CAMERA_INFO)
    for seq in range(500):
        begin_ns = T0_NS + seq * 10 * MS
        windower.push(Packet("eyes", seq, begin_ns, 0, at(begin_ns + np.arange(100) * 100_000), lost=1))
    assert windower._held <= 100 * 7
    assert len(windower._losses) <= 7


def test_an_onset_window_begins_before_the_activity() -> None:
    events = bursts(np.random.default_rng(2), [500, 1200])
    windows = windows_of(EventWindower(ONSET, CAMERA_INFO), packets(events, [len(events)]))
    assert len(windows) == 2
    for window, begin_ms in zip(windows, (500, 1200), strict=True):
        early_ms = (T0_NS + begin_ms * MS - window.t0_ns) / MS
        assert 10 <= early_ms <= 30  # ``pre``, on frames of 10 ms
        assert window.end_ns - window.t0_ns == 100 * MS


def test_activity_that_was_never_quiet_is_no_onset() -> None:
    events = at(T0_NS + np.arange(20_000) * 100_000)
    windower = EventWindower(ONSET, CAMERA_INFO)
    assert windows_of(windower, packets(events, [500] * 40)) == []
    quiet = EventWindower(ONSET, CAMERA_INFO)
    quiet.advance(T0_NS - 100 * MS)
    assert len(windows_of(quiet, packets(events, [500] * 40))) == 1


def test_an_onset_after_long_silence_is_found_and_long_silence_costs_nothing() -> None:
    windower = EventWindower(ONSET, CAMERA_INFO)
    windower.push(Packet("eyes", 0, T0_NS, 0, at([T0_NS])))
    begin_ns = T0_NS + 30 * 24 * 3600 * 10**9
    windows = windower.push(Packet("eyes", 1, begin_ns, 0, at(begin_ns + np.arange(2000) * 100_000)))
    assert [abs(w.t0_ns + 20 * MS - begin_ns) < 10 * MS for w in windows] == [True]


def test_reset_forgets() -> None:
    windower = EventWindower(TIME, CAMERA_INFO)
    windower.push(Packet("eyes", 5, T0_NS, 0, at(T0_NS + np.arange(30) * MS)))
    windower.reset()
    later_ns = T0_NS + 60 * MS
    (window,) = windower.push(Packet("eyes", 0, later_ns, 0, at([later_ns, later_ns + 130 * MS])))
    assert (window.t0_ns, len(window.data), window.lost) == (later_ns, 1, 0)


def test_samples_are_refused_and_so_are_other_sensors() -> None:
    windower = EventWindower(TIME, CAMERA_INFO)
    with pytest.raises(BadModel, match="expected events"):
        windower.push(Packet("imu0", 0, 0, 10, np.zeros((3, 6), np.int16)))
    with pytest.raises(BadModel, match="event camera, the sensor is imu"):
        EventWindower(TIME, IMU_INFO)
    with pytest.raises(BadModel, match=r"window\.hop"):
        EventWindower(WindowSpec("time", samples=10), CAMERA_INFO)


def test_the_family_chooses() -> None:
    def kind(info: SensorInfo) -> type:
        return type(make_windower(TIME, info))

    assert (kind(CAMERA_INFO), kind(IMU_INFO)) == (EventWindower, Windower)
    silent, still = empty_window(TIME, CAMERA_INFO), empty_window(WindowSpec("time", 20, 10), IMU_INFO)
    assert (silent.end_ns, len(silent.data), still.data.shape) == (100 * MS, 0, (20, 6))


def test_recordings_are_cut_as_a_pipeline_would() -> None:
    events = bursts(np.random.default_rng(3), [0, 700], quiet_ms=1000)
    clip = Recording("clip", "wave", "", events, CAMERA_INFO)
    ((window, label),) = live_windows(clip, ONSET)
    assert label == "wave"
    assert abs(window.t0_ns + 20 * MS - T0_NS) <= 10 * MS
    truth = np.where(events["t_ns"] < T0_NS + 400 * MS, "first", "second")
    run = Recording("run", "", "", events, CAMERA_INFO, truth)
    assert [label for _, label in live_windows(run, ONSET)] == ["first", "second"]
    assert live_windows(Recording("empty", "wave", "", events[:0], CAMERA_INFO), TIME) == []
