"""Where the kernel may not be asked, the file of systemd-timesyncd tells how wrong the clock may be."""

import os
import time
from pathlib import Path

import pytest

from agent.clock import LOOK_S
from agent.kernel_clock import timesyncd_ms


@pytest.mark.parametrize(
    ("age_s", "least_ms", "most_ms"),
    [(0, 0.0, 5.0), (2048, 1024.0, 1029.0), (31_000, 15_500.0, 15_505.0)],
)
def test_the_error_grows_from_the_last_time_the_clock_was_set_right(
    tmp_path: Path, age_s: float, least_ms: float, most_ms: float
) -> None:
    file = tmp_path / "synchronized"
    file.touch()
    touched_s = time.clock_gettime(time.CLOCK_REALTIME) - age_s
    os.utime(file, (touched_s, touched_s))
    error_ms = timesyncd_ms(file)
    assert error_ms is not None
    assert least_ms <= error_ms <= most_ms


@pytest.mark.parametrize("age_s", [33_000, -3600])
def test_nobody_knows_long_after_it_or_when_the_clock_was_turned_back(tmp_path: Path, age_s: float) -> None:
    file = tmp_path / "synchronized"
    file.touch()
    touched_s = time.clock_gettime(time.CLOCK_REALTIME) - age_s
    os.utime(file, (touched_s, touched_s))
    assert timesyncd_ms(file) is None


def test_nobody_knows_once_somebody_else_has_set_the_clock(tmp_path: Path) -> None:
    file = tmp_path / "synchronized"
    file.touch()
    touched_s = file.stat().st_mtime
    assert timesyncd_ms(file, set_at_s=touched_s) is not None
    assert timesyncd_ms(file, set_at_s=touched_s + LOOK_S + 0.5) is not None, "itself: a leap is seen at the next look"
    assert timesyncd_ms(file, set_at_s=touched_s + 3600) is None


def test_nobody_knows_without_the_file(tmp_path: Path) -> None:
    assert timesyncd_ms(tmp_path / "synchronized") is None
