"""Logs: JSON lines, and the journal's native protocol against a real datagram socket."""

import json
import logging
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

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
