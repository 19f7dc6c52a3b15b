"""Datasets out of the archives of their public homes: the layouts, the pins, and archives that mean harm."""

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models.datasets import load as loading
from models.datasets.load import load, required
from models.datasets.public import archive, nmnist
from models.datasets.public.content import contents, digest, write
from models.datasets.public.home import Home
from models.datasets.public.known import KNOWN, advice
from models.datasets.recording import DataError
from tests.models.public_sources import MADE, OTHERS, TOP, made_nmnist, made_wakewords, real_source, tarball

SMALL = archive.Limits(unpacked_bytes=1 << 20, members=50, file_bytes=1000, kept_bytes=2500)
HOMES = {dataset.name: dataset.home for dataset in KNOWN if dataset.home is not None}
SHAPES = {
    "audio_fsdd": (2250, 150, {str(digit) for digit in range(10)}),
    "audio_esc10": (480, 160, {"dog", "rooster", "rain", "sea_waves", "crackling_fire", "crying_baby", "sneezing",
                               "clock_tick", "helicopter", "chainsaw"}),
    "audio_wakewords": (144, 48, {"alexa", "computer", "jarvis", "smart_mirror", "snowboy", "view_glass"}),
    "event_nmnist": (749, 126, {str(digit) for digit in range(10)}),
}  # fmt: skip


def home(name: str) -> Home:
    found = HOMES[name]
    assert found is not None
    return found


def unpacked(blob: bytes) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=io.BytesIO(blob))


@pytest.mark.parametrize("name", MADE)
def test_a_made_source_becomes_a_dataset_that_loads(name: str, tmp_path: Path) -> None:
    recipe, made = MADE[name]
    path = tmp_path / "source.tar.gz"
    path.write_bytes(tarball(made()))
    pinned = replace(home(name), digest=digest(recipe.remake(made())))
    files = pinned.dataset(path, "here")
    assert not any(held in key for key in files for held in ("theo", "/5-", "README"))
    folder = tmp_path / name
    folder.mkdir()
    write(files, folder)
    assert digest(contents(folder)) == pinned.digest
    if name in SHAPES:
        train, test = load(folder, "train"), load(folder, "test")
        assert (len(train), len(test), {recording.label for recording in train}) == SHAPES[name]
    else:
        assert len((folder / "sensor_readings_24.csv").read_bytes().splitlines()) == 1 + 4365
        assert load(folder, "train")


@pytest.mark.parametrize("name", [name for name in MADE if name != "audio_fsdd"])
def test_the_real_recordings_are_remade_exactly(name: str) -> None:
    """audio_fsdd goes the whole way, with a server, in the tests of the command."""
    _, there, source = real_source(name)
    wanted = {path: content for path, content in source.items() if home(name).recipe.wants(path)}
    assert len(wanted) == len(source)
    assert digest(home(name).recipe.remake(wanted)) == there == home(name).digest


@pytest.mark.parametrize("name", MADE)
def test_what_is_missing_at_the_source_is_named(name: str) -> None:
    recipe, made = MADE[name]
    files = dict(made())
    del files[min(files)]
    with pytest.raises(DataError, match=r"^has no .* another version$"):
        recipe.remake(files)


def test_other_content_is_refused(tmp_path: Path) -> None:
    files = made_nmnist()
    pinned = replace(home("event_nmnist"), digest=digest(nmnist.remake(files)))
    path = tmp_path / "source.tar.gz"
    path.write_bytes(tarball({**files, f"{nmnist.FOLDER}999.bs2": files[f"{nmnist.FOLDER}998.bs2"]}))
    with pytest.raises(DataError, match=r"^a mirror: its recordings are not those of the dataset \(SHA-256 "):
        pinned.dataset(path, "a mirror")


def test_a_flac_file_that_is_none_or_too_long_is_refused() -> None:
    files = made_wakewords()
    for blob in (b"no flac", files["audio/jarvis/008a6329-9db7-499c.wav"][:30]):
        with pytest.raises(DataError, match=r"audio/alexa/0\.flac: not a FLAC file"):
            MADE["audio_wakewords"][0].remake({**files, "audio/alexa/0.flac": blob})


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), link
    return info


def test_paths_and_links_that_lead_out_are_not_taken() -> None:
    def harm(tar: tarfile.TarFile) -> None:
        for name in ("../../etc/passwd", "/etc/passwd", TOP + "../wanted", "wanted"):
            tar.addfile(member(name, content=b"harm"), io.BytesIO(b"harm"))
        tar.addfile(member(TOP + "wanted", tarfile.SYMTYPE, link="/etc/passwd"))
        tar.addfile(member(TOP + "wanted", tarfile.LNKTYPE, link=TOP + "README.md"))
        tar.addfile(member(TOP + "wanted", tarfile.DIRTYPE))
        tar.addfile(member(TOP + "wanted", tarfile.FIFOTYPE))

    blob = tarball({}, harm)
    assert archive.read(unpacked(blob), lambda path: path == "wanted", SMALL, strip=True) == {}
    assert archive.read(unpacked(blob), lambda path: path == "README.md", SMALL, strip=True) == {
        "README.md": OTHERS["README.md"]
    }


def header(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo("top/huge")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


HARM: dict[str, tuple[Callable[[], bytes], str]] = {
    "members": (lambda: tarball({str(index): b"" for index in range(60)}), "more than 50 members"),
    "a large file": (lambda: tarball({"huge": b"x" * 1001}), "huge is larger than any recording"),
    "many files": (lambda: tarball({str(index): b"x" * 900 for index in range(3)}), "larger than any recording"),
    "a large header": (lambda: gzip.compress(header(8 << 30, tarfile.XHDTYPE)), "asks for 8589934592 bytes at once"),
    "a long name": (
        lambda: gzip.compress(header(8 << 30, tarfile.GNUTYPE_LONGNAME)),
        "asks for 8589934592 bytes at once",
    ),
    "a negative size": (lambda: gzip.compress(header(-4096)), "leads backwards|is damaged"),
    "nested names": (
        lambda: gzip.compress((header(8, tarfile.GNUTYPE_LONGNAME) + bytes(512)) * 1200),
        "is damaged, or no archive",
    ),
    "no tar": (lambda: gzip.compress(b"not a tar archive at all" * 100), "is damaged, or no archive"),
    "cut off": (lambda: tarball(made_wakewords())[:3000], "is cut off"),
}


@pytest.mark.parametrize("harm", HARM)
def test_an_archive_that_means_harm_is_refused(harm: str) -> None:
    make, words = HARM[harm]
    with pytest.raises(DataError, match=words):
        archive.read(
            unpacked(make()), lambda path: path in {"huge", "0", "1", "2"} and "size" not in harm, SMALL, strip=True
        )


def test_what_unpacks_to_more_than_it_may_is_refused() -> None:
    blob = tarball({"zeros": bytes(4 << 20)})
    with pytest.raises(DataError, match="unpacks to more than 1 MiB"):
        archive.read(unpacked(blob), lambda path: False, SMALL, strip=True)


def test_the_archive_is_named_when_it_is_no_gzip_file(tmp_path: Path) -> None:
    path = tmp_path / "main.zip"
    path.write_bytes(b"PK\x03\x04 as the green button gives it")
    with pytest.raises(DataError, match=r"main\.zip: cannot be read as \.tar\.gz \(Not a gzipped file"):
        home("audio_fsdd").dataset(path, str(path))


def test_every_dataset_has_a_home_or_a_reason() -> None:
    assert len({dataset.name for dataset in KNOWN}) == len(KNOWN)
    for dataset in KNOWN:
        assert (dataset.home is None) == bool(dataset.why_not)
        if dataset.home is not None:
            assert dataset.home.url.startswith("https://codeload.github.com/")
            assert len(dataset.home.commit) == 40 and dataset.home.commit in dataset.home.url


def test_whoever_misses_a_dataset_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "HERE", tmp_path / "a" / "b" / "c")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("AXOND_DATA", raising=False)
    with pytest.raises(
        DataError, match=r"set AXOND_DATA to its parent folder; 'axond data get audio_fsdd' fetches it$"
    ):
        required("audio_fsdd")
    with pytest.raises(DataError, match=r"set AXOND_DATA to its parent folder$"):
        required("imu_uci_har")
    assert (advice("audio_fsdd"), advice("no_such_set")) == ("; 'axond data get audio_fsdd' fetches it", "")


def test_a_wrong_folder_of_a_public_dataset_gets_the_same_advice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"event_nmnist: no such folder, .*; 'axond data get event_nmnist' fetches it$"):
        load(tmp_path / "event_nmnist", "test")
