"""The pipeline bench's files become regular runs; what is missing is held and counted."""

from pathlib import Path

import numpy as np
import pytest

from models.datasets.load import find, load
from models.datasets.pumps import MAX_HELD, PUMPS_INFO
from models.datasets.recording import DataError, live_windows
from models.window import WindowSpec

HEAD = "time,pre1,pre2,vib1,vib2,vib3,vib4,flow2,flow1"


def line(time: str, first: float) -> str:
    return f"{time},{first:.3f} ,0.367105,2.1, 0.7,0.9,.3,0.8,0.8"


def clock(index: int) -> str:
    """mm:ss.f, ten times a second, over the full hour."""
    tenths = (59 * 600 + 595 + index) % 36000
    return f"{tenths // 600:02}:{tenths % 600 / 10:04.1f}"


def date(index: int) -> str:
    return f"2024/10/22 15:27:{10 + index / 10 + (index % 2) * 0.002:06.3f}"


def bench(folder: Path, name: str, lines: list[str], head: str = HEAD) -> Path:
    (folder / name).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return folder


def ramp(count: int, clock_of: object = clock) -> list[str]:
    assert callable(clock_of)
    return [line(clock_of(i), 0.1 + i / 1000) for i in range(count)]


@pytest.mark.parametrize("clock_of", [clock, date])
def test_a_run_is_split_in_time(tmp_path: Path, clock_of: object) -> None:
    bench(tmp_path, "pumps3.csv", ramp(100, clock_of))
    (train,), (test,), (whole,) = (load(tmp_path, split) for split in ("train", "test", "all"))
    assert train.data[:, 0].tolist() == list(range(100, 180))
    assert test.data[:, 0].tolist() == list(range(180, 200))
    assert len(whole.data) == 100
    assert (train.label, train.group, train.info, train.held) == ("3_pumps", "pumps3.csv", PUMPS_INFO, 0)
    assert train.data[0].tolist() == [100, 367, 2100, 700, 900, 300]
    assert {label for _, label in live_windows(test, WindowSpec("time", samples=10, hop=5))} == {"3_pumps"}


def test_files_come_in_order_and_one_pump_is_singular(tmp_path: Path) -> None:
    for number in (2, 1):
        bench(tmp_path, f"pumps{number}.csv", ramp(10))
    assert [recording.label for recording in load(tmp_path, "all")] == ["1_pump", "2_pumps"]


@pytest.mark.parametrize("gone", ["", "nan", "n/a", "inf"])
def test_a_missing_value_holds_the_last_and_counts(tmp_path: Path, gone: str) -> None:
    lines = ramp(20)
    for index in (0, 5, 6):
        lines[index] = lines[index].replace(f"{0.1 + index / 1000:.3f} ", gone)
    (run,) = load(bench(tmp_path, "pumps1.csv", lines), "all")
    assert run.data[:8, 0].tolist() == [101, 101, 102, 103, 104, 104, 104, 107]
    assert run.held == 3


def test_missing_rows_are_held_and_a_summary_is_no_row(tmp_path: Path) -> None:
    lines = ramp(20)
    (run,) = load(bench(tmp_path, "pumps1.csv", [*lines[:5], *lines[7:], ",1.0,1,1,1,1,1,1,1", "mean", ""]), "all")
    assert run.data[3:9, 0].tolist() == [103, 104, 104, 104, 107, 108]
    assert (len(run.data), run.held) == (20, 2)


def test_after_a_long_hole_another_recording_begins(tmp_path: Path) -> None:
    lines = ramp(60)
    first, second = load(bench(tmp_path, "pumps1.csv", lines[:20] + lines[20 + MAX_HELD + 1 :]), "all")
    assert (len(first.data), len(second.data)) == (20, 60 - 20 - MAX_HELD - 1)
    assert first.held == second.held == 0
    assert first.group == second.group


def test_a_column_that_never_had_a_value_reads_as_dead(tmp_path: Path) -> None:
    lines = [text.replace(text.split(",")[1], "") for text in ramp(20)]
    (run,) = load(bench(tmp_path, "pumps1.csv", lines), "all")
    assert not run.data[:, 0].any()
    assert (run.data[:, 1] == 367).all()
    assert run.held == 20


@pytest.mark.parametrize(
    ("name", "lines", "head", "sentence"),
    [
        ("pumps1.csv", ramp(9), HEAD.replace("vib2", "vibration"), "no column vib2; expected time, pre1"),
        ("pumps1.csv", ["a,b"], HEAD, "0 rows with a time like 14:11.6"),
        ("pumps1.csv", ramp(90)[::2], HEAD, "rows are 0.2 s apart, expected 0.1 s"),
        ("pumps1.csv", ramp(90)[40:] + ramp(90)[:40], HEAD, "time goes back in row 51"),
        ("pumps1b.csv", ramp(9), HEAD, "expected a name like pumps3.csv"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, lines: list[str], head: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(bench(tmp_path, name, lines, head), "train")


def test_a_run_too_short_for_a_later_part_has_none(tmp_path: Path) -> None:
    assert load(bench(tmp_path, "pumps1.csv", ramp(2)), "test") == []


def test_a_wrong_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'validation'; there are train, test, all"):
        load(bench(tmp_path, "pumps1.csv", ramp(9)), "validation")


def test_the_bench_itself() -> None:
    folder = find("vib_pipeline_pumps")
    if folder is None:
        pytest.skip("no recordings: vib_pipeline_pumps is neither in AXOND_DATA nor in ../shared/data")
    runs = load(folder, "train") + load(folder, "test")
    assert sorted({run.label for run in runs}) == ["1_pump", "2_pumps", "3_pumps", "4_pumps", "5_pumps"]
    for run in runs:
        number = int(run.label[0])
        assert np.median(run.data[:, 0]) * 0.001 == pytest.approx(0.18 * number, abs=0.05)
        assert run.held <= 2
