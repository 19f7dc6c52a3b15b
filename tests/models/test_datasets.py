"""Datasets from disk: layouts that are read, and faults that are named."""

import csv
import io
import os
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest

from models.datasets.load import find, load
from models.datasets.recording import (
    IMU_INFO,
    DataError,
    Recording,
    audio_info,
    live_window,
    live_windows,
    window_behind,
)
from models.window import WindowSpec

ONSET = WindowSpec("onset", samples=4000, pre=400)


def wav(samples: np.ndarray, *, rate_hz: int = 8000, width: int = 2) -> bytes:  # type: ignore[type-arg]
    blob = io.BytesIO()
    with wave.open(blob, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(width)
        writer.setframerate(rate_hz)
        writer.writeframes(samples.astype("<i2").tobytes() if width == 2 else samples.astype("u1").tobytes())
    return blob.getvalue()


def manifest(folder: Path, rows: list[tuple[str, str, str, str]], header: str = "file,digit,speaker,split") -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)


def archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:xz") as out:
        for name, blob in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(blob)
            out.addfile(member, io.BytesIO(blob))


def word(count: int = 1600) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(1).integers(-3000, 3000, count).astype(np.int16)


def har(path: Path, **change: object) -> None:
    names = [f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"]
    data = np.zeros((2, 9, 128), np.float32)
    data[:, names.index("total_acc_x")] = 1.0
    data[:, names.index("body_gyro_z")] = np.pi / 18
    arrays = {"X_train": data, "y_train": np.array([5, 6], np.uint8), "channels": np.array(names), **change}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})  # type: ignore[arg-type]


def test_audio_comes_from_archives_and_loose_files(tmp_path: Path) -> None:
    manifest(tmp_path, [("b.wav", "7", "ann", "train"), ("a.wav", "3", "bob", "train"), ("c.wav", "1", "bob", "test")])
    archive(tmp_path / "one.tar.xz", {"inner/a.wav": wav(word())})
    (tmp_path / "b.wav").write_bytes(wav(word(500), rate_hz=16000))
    first, second = load(tmp_path, "train")
    assert (first.name, first.label, first.group, first.info.rate_hz) == ("b.wav", "7", "ann", 16000.0)
    assert (second.name, second.label, second.group, second.info.rate_hz) == ("a.wav", "3", "bob", 8000.0)
    assert second.data.dtype == np.int16
    assert (second.data[:, 0] == word()).all()


@pytest.mark.parametrize("column", ["digit", "keyword", "category", "label"])
def test_any_label_column_is_taken(tmp_path: Path, column: str) -> None:
    manifest(tmp_path, [("a.wav", "x", "", "test")], f"file,{column},note,split")
    (tmp_path / "a.wav").write_bytes(wav(word()))
    (recording,) = load(tmp_path, "test")
    assert (recording.label, recording.group) == ("x", "")


def test_har_becomes_six_channels_in_sensor_integers(tmp_path: Path) -> None:
    har(tmp_path / "har.npz")
    first, second = load(tmp_path, "train")
    assert [first.label, second.label] == ["standing", "laying"]
    assert first.data.dtype == np.int16
    assert first.data[0].tolist() == [2048, 0, 0, 0, 0, round(10 * 32768 / 2000)]
    assert first.info.units == ("g", "g", "g", "deg/s", "deg/s", "deg/s")


def test_a_missing_folder_split_or_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match=r"none of .*is there; point at a dataset"):
        load(tmp_path, "train")
    manifest(tmp_path, [("a.wav", "1", "ann", "train")])
    with pytest.raises(DataError, match="no rows of split 'exam'; there are train"):
        load(tmp_path, "exam")
    with pytest.raises(DataError, match=r"a\.wav is in manifest\.csv, but neither in an archive"):
        load(tmp_path, "train")


def test_a_manifest_without_its_columns_is_named(tmp_path: Path) -> None:
    manifest(tmp_path, [("a.wav", "1", "ann", "train")], "path,digit,speaker,split")
    with pytest.raises(DataError, match="expected columns file, split"):
        load(tmp_path, "train")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"file,digit,split\n\xff\xfe,1,train\n", "not a readable table"),
        (b"split,digit,file\ntrain,1\n", "expected both file and digit"),
        (b"file,split,digit\na.wav,train\n", "expected both file and digit"),
        (b"", "expected columns file, split and digit or keyword or category or label, found none"),
    ],
)
def test_a_broken_manifest_is_named(tmp_path: Path, table: bytes, words: str) -> None:
    (tmp_path / "manifest.csv").write_bytes(table)
    with pytest.raises(DataError, match=words):
        load(tmp_path, "train")


def test_a_table_as_spreadsheets_save_it(tmp_path: Path) -> None:
    """UTF-8 with a byte order mark."""
    manifest(tmp_path, [("a.wav", "1", "ann", "train")])
    (tmp_path / "a.wav").write_bytes(wav(word()))
    table = tmp_path / "manifest.csv"
    table.write_text(table.read_text(), encoding="utf-8-sig")
    assert load(tmp_path, "train")[0].label == "1"


def test_the_first_window_behind_the_noise_before_a_word() -> None:
    """What begins in the lead-in is none of the word's."""
    spec = WindowSpec("onset", samples=800, pre=80)
    rng = np.random.default_rng(0)
    stream = rng.normal(0, 20, 24000)
    stream[3000:3400] += rng.normal(0, 3000, 400)
    bang_only = np.rint(stream).astype(np.int16)[:, None]
    assert window_behind(bang_only, audio_info(8000), spec, 8000) is None
    stream[9000:10600] += rng.normal(0, 3000, 1600)
    window = window_behind(np.rint(stream).astype(np.int16)[:, None], audio_info(8000), spec, 8000)
    assert window is not None
    assert 8800 <= window.t0_ns * 8000 / 1e9 <= 9000


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    manifest(tmp_path, [("a.wav", "1", "ann", "train")])
    archive(tmp_path / "one.tar.xz", {"a.wav": wav(word(20000))})
    blob = (tmp_path / "one.tar.xz").read_bytes()
    (tmp_path / "one.tar.xz").write_bytes(blob[: len(blob) // 2])
    with pytest.raises(DataError, match=r"one\.tar\.xz: broken archive"):
        load(tmp_path, "train")


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (wav(word())[:-400], "truncated, 2800 bytes"),
        (wav(word())[:20], "not a WAV file"),
        (b"not sound at all" * 9, "not a WAV file"),
        (wav(word()[:0]), "there is no sound in it"),
        (wav(np.zeros(99), width=1), "8 bits, expected one of 16"),
    ],
)
def test_broken_sound_is_named(tmp_path: Path, blob: bytes, words: str) -> None:
    manifest(tmp_path, [("a.wav", "1", "ann", "train")])
    (tmp_path / "a.wav").write_bytes(blob)
    with pytest.raises(DataError, match=f"a.wav: .*{words}"):
        load(tmp_path, "train")


def test_a_manifest_cannot_reach_outside_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "set"
    inside.mkdir()
    (tmp_path / "secret.wav").write_bytes(wav(word()))
    manifest(inside, [("../secret.wav", "1", "ann", "train")])
    with pytest.raises(DataError, match="neither in an archive"):
        load(inside, "train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_train": None}, "no split 'train'"),
        ({"y_train": np.array([5, 7], np.uint8)}, "labels outside 1..6"),
        ({"y_train": np.array([5], np.uint8)}, "expected .n, 9, samples. and .n,."),
        ({"channels": np.array(["a"] * 9)}, "no channel total_acc_x"),
        ({"channels": None}, "not a readable npz"),
        ({"X_train": np.full((2, 9, 128), "1.0")}, "expected numbers and labels"),
        ({"y_train": np.array([5.0, 6.0])}, "expected numbers and labels"),
        ({"X_train": np.full((2, 9, 128), np.nan)}, "not finite"),
    ],
)
def test_a_wrong_har_file_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    har(tmp_path / "har.npz", **change)
    with pytest.raises(DataError, match=words):
        load(tmp_path, "train")


def test_a_broken_har_file_is_named(tmp_path: Path) -> None:
    har(tmp_path / "har.npz")
    (tmp_path / "har.npz").write_bytes((tmp_path / "har.npz").read_bytes()[:900])
    with pytest.raises(DataError, match="not a readable npz"):
        load(tmp_path, "train")
    with (tmp_path / "har.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="no archive of arrays"):
        load(tmp_path, "train")


def test_a_dataset_is_found_in_the_environment_then_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, cache = tmp_path / "given", tmp_path / "cache"
    (cache / "axond" / "data" / "made_up_set").mkdir(parents=True)
    monkeypatch.setenv("AXOND_DATA", str(given))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert find("made_up_set") == cache / "axond" / "data" / "made_up_set"
    (given / "made_up_set").mkdir(parents=True)
    assert find("made_up_set") == given / "made_up_set"
    assert find("no_such_set") is None


def test_the_live_window_of_a_word_starts_where_a_pipeline_hears_it() -> None:
    recording = Recording("w", "1", "ann", word()[:, None], audio_info(8000.0))
    window = live_window(recording, ONSET)
    assert window is not None
    assert window.data.shape == (4000, 1)
    assert (window.data[400:2000, 0] == word()).all()
    assert not window.data[:400].any()


def test_a_recording_that_nobody_hears_has_no_window() -> None:
    recording = Recording("w", "1", "ann", np.ones((3000, 1), np.int16), audio_info(8000.0))
    assert live_window(recording, ONSET) is None


def test_a_time_window_is_the_recording_as_it_is() -> None:
    spec = WindowSpec("time", samples=128, hop=64)
    data = np.arange(128 * 6, dtype=np.int16).reshape(128, 6)
    window = live_window(Recording("w", "laying", "", data, IMU_INFO), spec)
    assert window is not None
    assert (window.data == data).all()
    assert live_window(Recording("w", "laying", "", data[:100], IMU_INFO), spec) is None


@pytest.mark.parametrize(("name", "split", "count"), [("audio_fsdd", "test", 150), ("imu_uci_har", "train", 2205)])
def test_the_real_sets_are_read_whole(name: str, split: str, count: int) -> None:
    folder = find(name)
    if folder is None:
        pytest.skip(f"dataset {name} is not on this machine (AXOND_DATA is {os.environ.get('AXOND_DATA', 'not set')})")
    recordings = load(folder, split)
    assert len(recordings) == count
    assert len({recording.label for recording in recordings}) in {6, 10}


def test_every_window_of_a_run_counts_by_the_label_of_its_last_sample() -> None:
    spec = WindowSpec(mode="time", samples=4, hop=3)
    data = np.arange(10, dtype=np.int16)[:, None]
    truth = np.array(["up"] * 6 + ["down"] * 4)
    info = audio_info(9.0)
    windows = live_windows(Recording("run", "", "", data, info, truth), spec)
    assert [label for _, label in windows] == ["up", "down", "down"]
    assert [window.data[0, 0] for window, _ in windows] == [0, 3, 6]
    assert len(live_windows(Recording("clip", "up", "", data, info), spec)) == 1


def test_an_onset_in_a_run_has_the_label_of_its_last_sample() -> None:
    info = audio_info(8000.0)
    data = np.concatenate([np.zeros(6000, np.int16), word(8000)])[:, None]
    truth = np.array(["before"] * 8500 + ["after"] * 5500)
    window, label = live_windows(Recording("run", "", "", data, info, truth), WindowSpec("onset", samples=2000))[0]
    last = round(window.end_ns / window.dt_ns) - 4000  # half a second of silence stands before
    assert 7000 < last < 8500 and label == "before"
