from pathlib import Path

import numpy as np
import pytest

from drivers.base import Misconfigured
from drivers.event_camera.evt21 import BLOCK_BYTES, TIME_HIGH_WRAP_US, WORD_BYTES, evt21

SIZE = (1280, 720)


def decoded(path: Path, size: tuple[int, int], mask_first: bool, data_at: int = 0) -> np.ndarray:
    """(n, 4) t x y on, t in us."""
    found = [np.zeros((0, 4), np.int64)]
    for block in evt21(path, data_at, size, mask_first):
        columns = [block.t_ns // 1000, *(block.events[name].astype(np.int64) for name in ("x", "y", "on"))]
        found.append(np.stack(columns, axis=1))
    return np.concatenate(found)


def made(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) words of mask and event, TIME_HIGH among them; and (m, 4) events. Time runs over in the middle."""
    rng = np.random.default_rng(seed)
    t_us = TIME_HIGH_WRAP_US - 20 * count + np.cumsum(rng.integers(0, 60, count))
    words, events, high = [], [], -1
    for t in t_us.tolist():
        if t >> 6 != high:
            high = t >> 6
            words.append((0, 8 << 28 | high & 0x0FFF_FFFF))
        x, y, on = 32 * int(rng.integers(40)), int(rng.integers(720)), int(rng.integers(2))
        mask = int(rng.integers(1 << 32)) & int(rng.integers(1 << 32))
        words.append((mask, on << 28 | (t & 0x3F) << 22 | x << 11 | y))
        events += [(t, x + bit, y, on) for bit in range(32) if mask >> bit & 1]
        if rng.random() < 0.1:
            words.append((int(rng.integers(1 << 32)), int(rng.choice([0xA, 0xE, 0xF])) << 28 | 5))
    return np.array(words, "<u4"), np.array(events)


@pytest.mark.parametrize("mask_first", [True, False])
def test_every_pixel_of_every_word_comes_out_and_time_runs_over(tmp_path: Path, mask_first: bool) -> None:
    words, events = made(12_000)
    assert len(words) * WORD_BYTES > 2 * BLOCK_BYTES
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 2.1\n" + (words if mask_first else words[:, ::-1]).tobytes())
    found = decoded(path, SIZE, mask_first, data_at=10)
    assert np.array_equal(found, events)
    assert events[0, 0] < TIME_HIGH_WRAP_US < events[-1, 0]


def test_what_lies_outside_is_refused_and_times_before_the_first_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(np.array([[0x8000_0001, 0x1000_0000 | 96 << 11 | 7]], "<u4").tobytes())
    assert decoded(path, (128, 8), True).tolist() == [[0, 96, 7, 1], [0, 127, 7, 1]]
    with pytest.raises(Misconfigured, match="event 1 lies outside of 127 x 8 pixels"):
        decoded(path, (127, 8), True)
    with pytest.raises(Misconfigured, match="event 0 lies outside of 128 x 7 pixels"):
        decoded(path, (128, 7), True)
