"""N-MNIST from disk: what is read, and faults that are named."""

import io
import tarfile
from pathlib import Path

import pytest

from drivers.event_camera.file import EventFileConfig, FileEvents
from models.datasets.load import find, load
from models.datasets.nmnist import CAMERA_INFO
from models.datasets.recording import DataError

EVENTS = bytes([3, 4, 0x80, 1, 2, 33, 0, 0x01, 0, 0])
"""(3, 4) brighter at 258 us, (33, 0) darker at 65 536 us."""


def table(folder: Path, text: str) -> None:
    (folder / "labels.csv").write_text("file,label,n_events,split\n" + text)


def test_loose_files_and_archives(tmp_path: Path) -> None:
    table(tmp_path, "b.bs2,7,2,train\na.bin,3,2,train\nc.bs2,1,2,test\n")
    (tmp_path / "b.bs2").write_bytes(EVENTS)
    with tarfile.open(tmp_path / "some.tar.xz", "w:xz") as out:
        member = tarfile.TarInfo("inner/a.bin")
        member.size = len(EVENTS)
        out.addfile(member, io.BytesIO(EVENTS[5:] + EVENTS[:5]))
    first, second = load(tmp_path, "train")
    assert [(r.name, r.label) for r in (first, second)] == [("b.bs2", "7"), ("a.bin", "3")]
    assert first.data.tolist() == [(258_000, 3, 4, 1), (65_536_000, 33, 0, 0)]
    assert second.data.tolist() == first.data.tolist()  # in the order of time


def test_info_is_what_the_driver_of_such_files_says(tmp_path: Path) -> None:
    driver = FileEvents("eyes", EventFileConfig(path=tmp_path / "a.bs2", geometry=(34, 34)))
    assert driver.info() == CAMERA_INFO


@pytest.mark.parametrize(
    ("blob", "split", "words"),
    [
        (EVENTS[:9], "train", "9 bytes"),
        (b"", "train", "0 bytes"),
        (bytes([34, 0, 0, 0, 0]), "train", r"pixel \(34, 0\)"),
        (None, "train", "neither in an archive"),
        (EVENTS, "dev", "no rows of split 'dev'; there are train"),
    ],
)
def test_faults_are_named(tmp_path: Path, blob: bytes | None, split: str, words: str) -> None:
    table(tmp_path, "a.bs2,7,2,train\n")
    if blob is not None:
        (tmp_path / "a.bs2").write_bytes(blob)
    with pytest.raises(DataError, match=words):
        load(tmp_path, split)


def test_a_table_without_labels_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,split\na.bs2,train\n")
    with pytest.raises(DataError, match="expected columns file, split and label"):
        load(tmp_path, "train")


def test_the_subset() -> None:
    folder = find("event_nmnist")
    if folder is None:
        pytest.skip("no recordings: event_nmnist is neither in AXOND_DATA nor in ../shared/data")
    recordings = load(folder, "test")
    assert len(recordings) == 126
    assert {r.label for r in recordings} == {str(digit) for digit in range(10)}
    assert min(len(r.data) for r in recordings) > 500
