"""The Windower: exact times, any packet sizes, gaps, onsets in quiet and in noise."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.packet import Packet, SensorInfo
from models.base import BadModel, Window
from models.window import Windower, WindowSpec

IMU = SensorInfo("imu", ("a", "b"), ("g", "g"), (0.001, 0.001), 50.0)
MIC = SensorInfo("audio", ("mono",), ("FS",), (1 / 32768,), 8000.0)
DT_NS = 20_000_000
MIC_DT_NS = 125_000
T0_NS = 5_000_000_000_123
TIME = WindowSpec("time", samples=10, hop=4)
ONSET = WindowSpec("onset", samples=800, pre=160, ratio=4.0, frames=2)


def ramp(count: int, start: int = 0) -> npt.NDArray[np.int16]:
    return np.stack([np.arange(start, start + count), -np.arange(start, start + count)], axis=1).astype(np.int16)


def packets(data: npt.NDArray[np.int16], sizes: list[int], dt_ns: int) -> list[Packet]:
    out, at = [], 0
    for seq, size in enumerate(sizes):
        out.append(Packet("s", seq, T0_NS + at * dt_ns, dt_ns, data[at : at + size].copy()))
        at += size
    return out


def windows_of(windower: Windower, items: list[Packet]) -> list[Window]:
    return [window for packet in items for window in windower.push(packet)]


def facts(windows: list[Window]) -> list[tuple[int, int, int, bytes]]:
    return [(w.t0_ns, w.dt_ns, w.lost, w.data.tobytes()) for w in windows]


def split(total: int, rng: np.random.Generator, largest: int) -> list[int]:
    sizes: list[int] = []
    while (left := total - sum(sizes)) > 0:
        sizes.append(int(min(left, rng.integers(0, largest + 1))))
    return sizes


def burst(count: int, amplitude: float, seed: int = 1) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, amplitude, count)


def sound(wave: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)[:, None]


def test_time_windows_overlap_and_carry_capture_time() -> None:
    windows = windows_of(Windower(TIME, IMU), packets(ramp(30), [30], DT_NS))
    assert [w.t0_ns for w in windows] == [T0_NS + i * 4 * DT_NS for i in range(6)]
    assert [int(w.data[0, 0]) for w in windows] == [0, 4, 8, 12, 16, 20]
    for window in windows:
        assert window.data.shape == (10, 2)
        assert window.data.flags.c_contiguous
        assert window.end_ns == window.t0_ns + 10 * DT_NS


def test_hop_longer_than_the_window_skips_samples() -> None:
    windows = windows_of(Windower(WindowSpec("time", samples=3, hop=7), IMU), packets(ramp(30), [4] * 7, DT_NS))
    assert [w.data[:, 0].tolist() for w in windows] == [[0, 1, 2], [7, 8, 9], [14, 15, 16], [21, 22, 23]]


@given(seed=st.integers(0, 2**32 - 1), largest=st.integers(1, 90))
@settings(max_examples=40, deadline=None)
def test_packet_sizes_do_not_matter_in_time_mode(seed: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    data = ramp(200)
    whole = windows_of(Windower(TIME, IMU), packets(data, [200], DT_NS))
    parts = windows_of(Windower(TIME, IMU), packets(data, split(200, rng, largest), DT_NS))
    assert facts(parts) == facts(whole)
    assert len(whole) == 48


@given(seed=st.integers(0, 2**32 - 1), largest=st.integers(60, 3000))
@settings(max_examples=25, deadline=None)
def test_packet_sizes_do_not_matter_in_onset_mode(seed: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    wave = rng.normal(0, 10, 12000)
    for start in rng.integers(500, 11000, 4):
        wave[start : start + 500] += rng.normal(0, 800, 500)
    data = sound(wave)
    whole = windows_of(Windower(ONSET, MIC), packets(data, [12000], MIC_DT_NS))
    parts = windows_of(Windower(ONSET, MIC), packets(data, split(12000, rng, largest), MIC_DT_NS))
    assert facts(parts) == facts(whole)
    assert whole


def test_times_come_from_the_packets_not_from_counting() -> None:
    windower = Windower(TIME, IMU)
    drifted_ns = 37_000
    windows = []
    for seq in range(100):
        t0_ns = T0_NS + seq * (4 * DT_NS + drifted_ns)
        windows += windower.push(Packet("s", seq, t0_ns, DT_NS, ramp(4, 4 * seq)))
    assert windows[-1].t0_ns == T0_NS + (int(windows[-1].data[0, 0]) // 4) * (4 * DT_NS + drifted_ns)


def test_a_window_stays_valid_after_later_pushes() -> None:
    windower = Windower(TIME, IMU)
    (first, *_) = windows_of(windower, packets(ramp(10), [10], DT_NS))
    before = first.data.copy()
    for seq in range(1, 40):
        windower.push(Packet("s", seq, T0_NS + 10 * seq * DT_NS, DT_NS, np.full((10, 2), 99, np.int16)))
    assert (first.data == before).all()


def test_memory_does_not_grow() -> None:
    windower = Windower(TIME, IMU)
    windower.push(Packet("s", 0, T0_NS, DT_NS, ramp(7)))
    buffer = windower._data
    for seq in range(1, 300):
        windower.push(Packet("s", seq, T0_NS + 7 * seq * DT_NS, DT_NS, ramp(7, 7 * seq)))
    assert windower._data is buffer


def test_a_reported_short_gap_is_held_and_counted() -> None:
    windower = Windower(TIME, IMU)
    windows = windower.push(Packet("s", 0, T0_NS, DT_NS, ramp(6)))
    windows += windower.push(Packet("s", 1, T0_NS + 8 * DT_NS, DT_NS, ramp(12, 8), lost=2))
    assert windows[0].data[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 8, 9]
    assert [w.lost for w in windows] == [2, 2, 0]
    assert [w.t0_ns for w in windows] == [T0_NS, T0_NS + 4 * DT_NS, T0_NS + 8 * DT_NS]
    assert windower.restarts == 0


def test_a_jump_of_the_sequence_takes_the_size_of_the_gap_from_time() -> None:
    windower = Windower(TIME, IMU)
    windower.push(Packet("s", 0, T0_NS, DT_NS, ramp(6)))
    (window, *_) = windower.push(Packet("s", 2, T0_NS + 7 * DT_NS, DT_NS, ramp(8, 7)))
    assert window.data[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 7, 8, 9]
    assert window.lost == 1


@pytest.mark.parametrize(
    ("seq", "shift", "lost"),
    [(1, 3, 3), (5, 300, 0), (0, 0, 0), (0, -4, 0), (1, 1000, 0)],
    ids=["reported", "jump", "device reopened", "time went back", "unreported leap"],
)
def test_a_long_gap_starts_anew_and_counts_what_it_gave_up(seq: int, shift: int, lost: int) -> None:
    windower = Windower(TIME, IMU)
    windower.push(Packet("s", 0, T0_NS, DT_NS, ramp(6)))
    t0_ns = T0_NS + (6 + shift) * DT_NS if shift >= 0 else T0_NS - 400 * DT_NS
    if seq == 0 and shift == 0:
        t0_ns = T0_NS + 10_000 * DT_NS
    windows = windower.push(Packet("s", seq, t0_ns, DT_NS, ramp(10, 50), lost=lost))
    assert [w.data[:, 0].tolist() for w in windows] == [list(range(50, 60))]
    assert (windows[0].t0_ns, windows[0].lost) == (t0_ns, 0)
    assert (windower.restarts, windower.given_up) == (1, 6)


def test_reset_forgets_samples_and_sequence() -> None:
    windower = Windower(TIME, IMU)
    windower.push(Packet("s", 0, T0_NS, DT_NS, ramp(9)))
    windower.reset()
    windows = windower.push(Packet("s", 7, T0_NS + 99 * DT_NS, DT_NS, ramp(10, 20)))
    assert [int(w.data[0, 0]) for w in windows] == [20]
    assert windower.restarts == 0


@pytest.mark.parametrize("amplitude", [60.0, 300.0, 9000.0])
def test_an_onset_after_digital_silence_is_found_at_its_place(amplitude: float) -> None:
    wave = np.zeros(4000)
    wave[1600:2400] = burst(800, amplitude)
    (window,) = windows_of(Windower(ONSET, MIC), packets(sound(wave), [4000], MIC_DT_NS))
    assert window.t0_ns == T0_NS + (1600 - 160) * MIC_DT_NS
    assert not window.data[:160].any()
    assert window.data[160:].any()


@pytest.mark.parametrize("noise", [3.0, 30.0, 300.0])
def test_an_onset_above_the_noise_of_a_room_is_found_and_the_noise_is_not(noise: float) -> None:
    wave = burst(40000, noise, seed=2)
    wave[32000:32800] += burst(800, noise * 20)
    (window,) = windows_of(Windower(ONSET, MIC), packets(sound(wave), [160] * 250, MIC_DT_NS))
    assert abs(window.t0_ns - (T0_NS + (32000 - 160) * MIC_DT_NS)) <= 160 * MIC_DT_NS


@pytest.mark.parametrize("click", [1, 40])
def test_a_click_is_no_onset(click: int) -> None:
    wave = np.zeros(4000)
    wave[1610 : 1610 + click] = 20000
    assert windows_of(Windower(ONSET, MIC), packets(sound(wave), [4000], MIC_DT_NS)) == []


def test_a_constant_offset_and_its_beginning_are_no_onset() -> None:
    wave = np.zeros(8000)
    wave[3000:] = -400.0
    assert windows_of(Windower(ONSET, MIC), packets(sound(wave), [8000], MIC_DT_NS)) == []


def test_a_sound_that_outlasts_its_window_gives_one_window() -> None:
    wave = np.zeros(16000)
    wave[2000:6000] = burst(4000, 3000)
    wave[9000:9400] = burst(400, 3000)
    windows = windows_of(Windower(ONSET, MIC), packets(sound(wave), [16000], MIC_DT_NS))
    assert [(w.t0_ns - T0_NS) // MIC_DT_NS + 160 for w in windows] == [2000, 8960]


def test_the_floor_follows_a_room_that_becomes_louder() -> None:
    wave = burst(80000, 10, seed=3)
    wave[8000:] *= 30
    wave[72000:72800] += burst(800, 6000)
    windows = windows_of(Windower(ONSET, MIC), packets(sound(wave), [800] * 100, MIC_DT_NS))
    onsets = [(w.t0_ns - T0_NS) // MIC_DT_NS + 160 for w in windows]
    assert onsets[0] == pytest.approx(8000, abs=80)
    assert onsets[-1] == pytest.approx(72000, abs=80)
    assert len(onsets) == 2


def test_samples_that_were_made_up_do_not_lower_the_floor() -> None:
    windower = Windower(ONSET, MIC)
    data = sound(burst(16000, 300, seed=4))
    windows = windower.push(Packet("s", 0, T0_NS, MIC_DT_NS, data[:8000].copy()))
    windows += windower.push(Packet("s", 1, T0_NS + 8160 * MIC_DT_NS, MIC_DT_NS, data[8160:].copy(), lost=160))
    assert windows == []


def test_an_onset_at_the_very_beginning_has_what_is_known_before_it() -> None:
    wave = np.zeros(2000)
    wave[80:900] = burst(820, 3000)
    (window,) = windows_of(Windower(ONSET, MIC), packets(sound(wave), [2000], MIC_DT_NS))
    assert window.t0_ns == T0_NS


@pytest.mark.parametrize(
    "spec",
    [
        WindowSpec("time", samples=0, hop=1),
        WindowSpec("time", samples=10),
        WindowSpec("onset", samples=10, pre=10),
        WindowSpec("onset", samples=10, ratio=1.0),
        WindowSpec("onset", samples=10, frames=0),
        WindowSpec("other", samples=10, hop=1),  # type: ignore[arg-type]
    ],
)
def test_a_spec_that_cannot_cut_is_refused(spec: WindowSpec) -> None:
    with pytest.raises(BadModel, match=r"window\."):
        Windower(spec, IMU)


@pytest.mark.parametrize(("data", "dt_ns"), [(np.zeros((3, 1), np.int16), DT_NS), (np.zeros((3, 2), np.int16), 0)])
def test_a_packet_of_another_sensor_is_refused(data: npt.NDArray[np.int16], dt_ns: int) -> None:
    with pytest.raises(BadModel, match="expected"):
        Windower(TIME, IMU).push(Packet("s", 0, T0_NS, dt_ns, data))
