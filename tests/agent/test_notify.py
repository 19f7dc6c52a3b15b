"""sd_notify against a real datagram socket: what is said, how often, and to whom."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import notify as module
from agent.notify import Pulse, extend_timeout, feed_interval_s, notify, status, watchdog_s


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(path)
        heard.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield heard


def all_of(heard: socket.socket) -> list[str]:
    said = []
    while True:
        try:
            said.append(heard.recv(4096).decode())
        except BlockingIOError:
            return said


def test_lines_go_as_one_message_and_none_as_none(manager: socket.socket) -> None:
    notify("READY=1", status("two\nlines  and\tmore"), extend_timeout(1.5))
    notify()
    assert all_of(manager) == ["READY=1\nSTATUS=two lines and more\nEXTEND_TIMEOUT_USEC=1500000"]


def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0axond-test-notify")
        heard.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", "@axond-test-notify")
        notify("READY=1")
        assert all_of(heard) == ["READY=1"]


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "whose", "limit_s", "feed_s"),
    [
        ("30000000", "ours", 30.0, 1.0),
        ("1000000", "ours", 1.0, 0.5),
        ("1000000", None, 1.0, 0.5),
        ("1000000", "1", None, 1.0),
        ("0", None, None, 1.0),
        ("soon", None, None, 1.0),
        (None, None, None, 1.0),
    ],
)
def test_the_unit_says_how_often(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, whose: str | None, limit_s: float | None, feed_s: float
) -> None:
    pid = str(os.getpid()) if whose == "ours" else whose
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_s() == limit_s
    assert feed_interval_s() == feed_s


def test_a_pulse_is_ready_once_and_feeds_no_more_than_needed(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s[0])
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    pulse = Pulse()
    for _ in range(9):
        pulse.beat()
        now_s[0] += 0.125
    assert all_of(manager) == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
