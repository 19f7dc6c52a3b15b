"""Logs: JSON lines, and the journal's native protocol against a real datagram socket."""

import fcntl
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from agent import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for handler in handlers:
        root.removeHandler(handler)
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info", "json")
    logging.getLogger("axond.test").warning("disk %s", "full")
    logging.getLogger("axond.test").debug("not shown")
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("axond.test").exception("outer")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [("warning", "disk full"), ("error", "outer")]
    assert "ValueError: inner" in lines[1]["exception"]


def test_journal_fields(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        handler = log.JournalHandler(path)
        record = logging.LogRecord("agent.outbox", logging.ERROR, "f.py", 1, "two\nlines", None, None)
        handler.emit(record)
        data = journal.recv(4096)
        handler.close()
    assert data.startswith(b"MESSAGE\n" + struct.pack("<Q", 9) + b"two\nlines\n")
    assert b"PRIORITY=3\n" in data
    assert b"AXOND_LOGGER=agent.outbox\n" in data


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[tuple[socket.socket, log.JournalHandler]]:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(path)
        handler = log.JournalHandler(path)
        logger = logging.getLogger()
        logger.addHandler(handler)
        yield heard, handler


def received(data: bytes) -> dict[str, str]:
    """The fields of a message in the journal's native protocol."""
    fields = {}
    while data:
        head, _, data = data.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", data)
            value, data = data[8 : 8 + size], data[8 + size + 1 :]
        fields[name.decode()] = value.decode()
    return fields


def test_fields_that_say_where_and_what(journal: tuple[socket.socket, log.JournalHandler]) -> None:
    def speak() -> None:
        try:
            Path("/nonexistent/file").read_bytes()
        except OSError:
            logging.getLogger("agent.test").exception("it went wrong", extra=log.event(log.DAMAGED))

    thread = Thread(target=speak, name="capture:mic0")
    thread.start()
    thread.join()
    fields = received(journal[0].recv(65536))
    assert fields["MESSAGE"].startswith("it went wrong\nTraceback")
    assert fields["CODE_FILE"] == __file__
    assert fields["CODE_FUNC"] == "speak"
    assert int(fields["CODE_LINE"]) > 1
    assert fields["ERRNO"] == "2"
    assert fields["AXOND_THREAD"] == "capture:mic0"
    assert fields["AXOND_SENSOR"] == "mic0"
    assert fields["MESSAGE_ID"] == log.DAMAGED
    assert "AXOND_PIPELINE" not in fields


def test_a_message_too_long_for_a_datagram_goes_as_a_sealed_file(
    journal: tuple[socket.socket, log.JournalHandler],
) -> None:
    text = "long " * 2_000_000
    logging.getLogger("agent.test").warning("%s", text)
    data, files, _, _ = socket.recv_fds(journal[0], 1024, 4)
    assert data == b""
    with os.fdopen(files[0], "rb") as memory:
        memory.seek(0)
        assert received(memory.read())["MESSAGE"] == text
        wanted = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) == wanted
    assert len(files) == 1


def test_each_event_is_explained_in_the_catalog() -> None:
    catalog = (Path(__file__).parents[2] / "packaging" / "systemd" / "axond.catalog").read_text()
    explained = [line.removeprefix("-- ") for line in catalog.splitlines() if line.startswith("-- ")]
    assert sorted(explained) == sorted([log.READY, log.HUNG, log.DAMAGED, log.REFUSED])


def test_without_a_journal_records_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = log.JournalHandler(str(tmp_path / "none"))
    handler.emit(logging.LogRecord("a", logging.INFO, "f.py", 1, "lost", None, None))
    handler.close()
    assert "INFO lost" in capsys.readouterr().err


def test_an_inherited_variable_does_not_make_a_journal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:12345")
    log.set_up("info", "auto")
    logging.getLogger("axond.test").warning("heard")
    assert "heard" in capsys.readouterr().err
