"""``axond data``: the whole way from a server to recordings that load, and everything that may go wrong on it."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from agent.__main__ import main
from agent.cli import data, data_download, data_get
from models.datasets import load as loading
from models.datasets.load import find, load
from models.datasets.public import content
from models.datasets.public.content import contents, digest
from models.datasets.public.home import Home
from models.datasets.public.known import KNOWN
from tests.models.public_sources import MADE, made_fsdd, made_ring, real_source, tarball

WORDS = "audio_fsdd"
NAME = "ultrasonic_wall_following"
"""The quickest to be made."""


class Server(ThreadingHTTPServer):
    """Serves what stands in ``files``, each with a fault: cut (less than announced), chunk (a broken chunk), hang."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.hanging, self.go_on = Event(), Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *arguments: object) -> None:
        """Who hangs up in the middle, as get does on what is too large, is no error of ours; the base prints it."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.close_connection = True
        fault = self.path.rpartition("/")[2]
        blob = self.server.files.get(self.path.rpartition("/")[0])
        if blob is None:
            self.send_error(503 if fault == "busy" else 404)
            return
        self.send_response(200)
        if fault == "chunk":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % (2 * len(blob)) + blob)
            return
        if fault != "unsaid":
            self.send_header("Content-Length", str(2 * len(blob) if fault in {"cut", "hang"} else len(blob)))
        self.end_headers()
        self.wfile.write(blob)
        if fault == "hang":
            self.server.hanging.set()
            self.server.go_on.wait(60)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with ExitStack() as stack:
        serving = stack.enter_context(Server())
        thread = Thread(target=serving.serve_forever, args=(0.01,), name="archives", daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(serving.shutdown)
        stack.callback(serving.go_on.set)
        yield serving


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without recordings; the folder where get puts them."""
    monkeypatch.setattr(loading, "HERE", tmp_path / "no" / "project" / "here" / "datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("AXOND_DATA", raising=False)
    monkeypatch.setattr(content, "os", _NoSync(os))
    return tmp_path / "cache" / "axond" / "data"


class _NoSync:
    """The tests of other people's machines need no patience with this one's disk."""

    def __init__(self, module: object) -> None:
        self._module = module

    def __getattr__(self, name: str) -> object:
        return (lambda _: None) if name == "fsync" else getattr(self._module, name)


@pytest.fixture
def home(server: Server, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A made run of a robot is served, and its digest is the pinned one."""
    server.files["/made"] = tarball(made_ring())
    return pin(NAME, server, monkeypatch)


def pin(name: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> Home:
    """What was made for ``name`` is what is expected, and it is served at its home."""
    recipe, made = MADE[name]
    (home,) = (dataset.home for dataset in KNOWN if dataset.name == name)
    assert home is not None
    pinned = replace(home, digest=digest(recipe.remake(made())))
    known = tuple(replace(dataset, home=pinned) if dataset.name == name else dataset for dataset in KNOWN)
    monkeypatch.setattr(data_get, "KNOWN", known)
    monkeypatch.setattr(data, "KNOWN", known)
    monkeypatch.setattr(Home, "url", property(lambda _: f"{server.url}/made/whole"))
    return pinned


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said of the failure; one line, without a traceback."""
    assert main(["data", "get", *arguments]) == 1
    out, said = capsys.readouterr()
    assert out == "" and said.startswith("axond: ") and said.count("\n") == 1
    return said


def left(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_get_list_and_get_again(
    alone: Path,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.files["/made"] = tarball(made_fsdd())
    home = pin(WORDS, server, monkeypatch)
    assert main(["data", "get", WORDS]) == 0
    out, err = capsys.readouterr()
    assert out == f"{WORDS} is in {alone / WORDS}; licence: CC BY-SA 4.0, credit: see its README.md\n" and err == ""
    assert [path.name for path in left(alone)] == [
        WORDS, "README.md", "george.tar.xz", "jackson.tar.xz", "lucas.tar.xz", "manifest.csv", "nicolas.tar.xz",
        "yweweler.tar.xz",
    ]  # fmt: skip
    readme = (alone / WORDS / "README.md").read_text()
    assert "26eb9aaf76e81b692f806f9140c2d2777410d7a1" in readme and "Zohar Jackson" in readme and "CC BY-SA" in readme
    assert (alone / WORDS).stat().st_mode & 0o777 == 0o777 & ~_umask(tmp_path)
    found = find(WORDS)
    assert found == alone / WORDS and digest(contents(found)) == home.digest
    before = {path: path.stat().st_mtime_ns for path in left(alone)}
    assert main(["data", "get", WORDS]) == 0
    assert capsys.readouterr().out == f"{WORDS} is already there: {alone / WORDS} (complete)\n"
    assert {path: path.stat().st_mtime_ns for path in left(alone)} == before
    assert server.asked == ["/made/whole"]
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    assert "about 15 MB" in shown and "ultrasonic_wall_following" in shown
    assert main(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[WORDS]["path"] == str(alone / WORDS) and rows["event_nmnist"]["path"] is None
    assert rows["imu_uci_har"]["url"] is None and rows["imu_uci_har"]["why_not"]


def _umask(folder: Path) -> int:
    (folder / "plain").mkdir()
    return 0o777 & ~(folder / "plain").stat().st_mode


def test_another_folder_and_an_archive_that_was_downloaded_by_hand(
    alone: Path, server: Server, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, goal = tmp_path / "by-hand.tar.gz", tmp_path / "mine" / "recordings"
    archive.write_bytes(server.files["/made"])
    assert main(["data", "get", NAME, "--from", str(archive), "--to", str(goal), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"name": NAME, "path": str(goal / NAME), "fetched": True, "source": str(archive)}
    assert err == "" and server.asked == [] and archive.exists()
    assert digest(contents(goal / NAME)) == home.digest
    assert main(["data", "get", NAME, "--from", f"{server.url}/made/unsaid", "--to", str(tmp_path / "more")]) == 0
    assert f"set AXOND_DATA={tmp_path / 'more'}" in capsys.readouterr().out
    assert not alone.exists()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("/made/cut", "broke off after [0-9]+ of [0-9]+ bytes; try again"),
        ("/made/chunk", "broke off after 0 bytes .*; try again"),
        ("/gone/whole", "answers 404 Not Found; it is no longer there; give a mirror with --from URL"),
        ("/gone/busy", "answers 503 Service Unavailable; try again later"),
        ("/others/whole", "has no sensor_readings_24.data of 1 files; it is another archive"),
        ("/changed/whole", "its recordings are not those of the dataset"),
        ("/half/unsaid", "is cut off; get it again"),
        ("/page/whole", "cannot be read as .tar.gz"),
        ("/large/whole", "more than 1 MB; this is not the archive"),
        (":bad", "broke off|cannot be reached"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(
    where: str, words: str, alone: Path, server: Server, home: Home, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = server.files["/made"]
    server.files |= {
        "/others": tarball({}),
        "/changed": tarball({path: b"S1,S2" + content for path, content in made_ring().items()}),
        "/half": whole[: len(whole) // 2],
        "/page": b"<html>please log in</html>",
        "/large": bytes(2_000_000),
    }
    if "large" in where:
        small = tuple(
            replace(dataset, home=replace(dataset.home, archive_most_bytes=1_000_000) if dataset.home else None)
            for dataset in KNOWN
        )
        monkeypatch.setattr(data_get, "KNOWN", small)
    said = fails(capsys, NAME, "--from", f"{server.url}{where}")
    assert re.search(words, said), said
    assert not (alone.parents[1]).exists()


def test_no_network(alone: Path, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with Server() as closed:
        url = f"{closed.url}/made/whole"
    said = fails(capsys, NAME, "--from", url)
    assert "cannot be reached (Connection refused); without a network here, download it elsewhere" in said
    assert f"{NAME}.tar.gz: no such file; expected what " in fails(capsys, NAME, "--from", f"{NAME}.tar.gz")


def test_a_server_that_says_nothing_more(
    alone: Path, server: Server, home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_download, "TIMEOUT_S", 0.3)
    assert "(timed out); try again" in fails(capsys, NAME, "--from", f"{server.url}/made/hang")
    assert not alone.parents[1].exists()


def test_a_full_disk(
    alone: Path, server: Server, home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data_get, "write", full)
    said = fails(capsys, NAME)
    assert f"{alone}: no room left; it takes about 51 MB while it works. Make room, or give another --to FOLDER" in said
    assert not alone.parents[1].exists()


def test_what_is_there_and_is_not_the_dataset_is_left_alone(
    alone: Path, server: Server, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (alone / NAME).mkdir(parents=True)
    (alone / NAME / "mine.wav").write_bytes(b"mine")
    said = fails(capsys, NAME)
    assert (
        said == f"axond: {alone / NAME} is there, but is not exactly the dataset; move it away, or "
        "give another --to FOLDER\n"
    )
    (tmp_path / NAME).write_text("a file")
    assert "is there, but is not exactly" in fails(capsys, NAME, "--to", str(tmp_path))
    (alone / NAME / "george.tar.xz").write_bytes(b"half of it")
    assert "george.tar.xz: is damaged" in fails(capsys, NAME)
    assert server.asked == [] and (alone / NAME / "mine.wav").read_bytes() == b"mine"


def test_two_at_once_do_not_collide(
    alone: Path, server: Server, home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is done while this one downloads."""
    first = data_download.fetch

    def overtaken(*arguments: object) -> None:
        monkeypatch.setattr(data_get, "fetch", first)
        assert main(["data", "get", NAME]) == 0
        first(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(data_get, "fetch", overtaken)
    assert main(["data", "get", NAME]) == 0
    done, there = capsys.readouterr().out.splitlines()
    assert done.startswith(f"{NAME} is in ") and there == f"{NAME} is already there: {alone / NAME} (complete)"
    assert [path.name for path in alone.iterdir()] == [NAME]


def test_an_interrupted_get_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/made"] = tarball({})
    goal = tmp_path / "new" / "recordings"
    arguments = ["data", "get", NAME, "--from", f"{server.url}/made/hang", "--to", str(goal)]
    with subprocess.Popen([sys.executable, "-m", "agent", *arguments], stderr=subprocess.PIPE, text=True) as child:
        assert server.hanging.wait(30)
        assert [path.name.startswith(".axond-scratch-") for path in goal.iterdir()] == [True]
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert (child.returncode, said) == (130, "")
    assert left(tmp_path) == []


def test_what_has_no_public_copy_says_where_it_is_from(
    alone: Path, server: Server, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = fails(capsys, "imu_uci_har")
    assert "has no exact public copy: " in said and "The original is GitHub mokch/0814_edu" in said
    (alone / "imu_uci_har").mkdir(parents=True)
    assert main(["data", "get", "imu_uci_har"]) == 0
    assert "(not compared: it has no public home)" in capsys.readouterr().out
    assert server.asked == []


def test_wrong_use_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "get", "no_such_set"]) == 2
    assert "choose from 'audio_fsdd'" in capsys.readouterr().err
    assert main(["data"]) == main(["data", "get"]) == 2


def test_the_real_recordings_come_back_as_they_are(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the pin that is shipped. What was taken from the public home is packed as GitHub does, and fetched."""
    folder, _, source = real_source(WORDS)
    server.files["/real"] = tarball(source, level=0)
    monkeypatch.setattr(content, "os", _NoSync(os))
    assert main(["data", "get", WORDS, "--from", f"{server.url}/real/unsaid", "--to", str(tmp_path)]) == 0
    for ours, theirs in zip(load(tmp_path / WORDS, "test"), load(folder, "test"), strict=True):
        assert (ours.name, ours.label, ours.group, ours.info) == (theirs.name, theirs.label, theirs.group, theirs.info)
        assert np.array_equal(ours.data, theirs.data)
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in (tmp_path / WORDS).iterdir()} == names
    assert (tmp_path / WORDS / "manifest.csv").read_bytes() == (folder / "manifest.csv").read_bytes()
