"""What is said of a peer that takes some and refuses some: enough, and not without end."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent import refusals
from agent.hub.service import Hub
from agent.link import Acked
from agent.mqtt import Broker
from agent.refusals import MAX_SAID, QUIET_S, Refusals


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(refusals, "time", SimpleNamespace(monotonic=lambda: self.now_s))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    caplog.set_level(logging.INFO)
    return Clock(monkeypatch)


@pytest.fixture
def peer() -> Refusals:
    return Refusals(logging.getLogger("test"), "it takes all again")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().partition(" after")[0] for record in caplog.records]


def test_what_comes_in_turns_is_said_once(clock: Clock, peer: Refusals, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(300):
        peer.refused("no a" if number % 2 else "no b")
        peer.taken()
    assert (said(caplog), peer.sentence) == (["no b", "no a"], "no a")
    clock.now_s += QUIET_S
    peer.taken()
    assert (said(caplog)[2:], peer.sentence) == (["it takes all again"], None)
    peer.refused("no a")
    assert said(caplog)[3:] == ["no a"]


def test_sentences_that_are_never_the_same_come_to_an_end(
    clock: Clock, peer: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(300):
        peer.refused(f"no {number}")
        peer.taken()
    assert len(said(caplog)) == MAX_SAID
    assert peer.sentence == "no 299"


def test_a_peer_that_was_away_is_well_with_the_next_success(
    clock: Clock, peer: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    peer.refused("no a")
    peer.failed("away")
    peer.taken()
    assert (said(caplog), peer.sentence) == (["no a", "away", "it takes all again"], None)


def test_answers_that_are_refused_for_one_device_and_not_for_another_are_said_once(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(Broker("broker", 1883), tmp_path / "hub.db")
    for number in range(1000):
        hub._hear(Acked(number, 0x87, "Not authorized") if number % 2 else Acked(number))
    (sentence,) = said(caplog)
    assert "may it publish to down/ack/#" in sentence
