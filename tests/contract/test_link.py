"""What every ``Link`` promises, checked on each of them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from agent.link import Acked, Birth, Connected, Death, Disconnected, Event, Link, Message, Received
from agent.mqtt import Broker, PahoLink
from tests.brokers import MOSQUITTO, Mosquitto, free_port
from tests.conftest import eventually
from tests.contract.links import ListLink

NO_BIRTH = Birth()


def wait_for(events: "SimpleQueue[Event]", kind: type[Event], deadline_s: float = 15.0) -> Event:
    """The next event of a kind; what comes before it is thrown away."""
    end_s = time.monotonic() + deadline_s
    while (left_s := end_s - time.monotonic()) > 0:
        try:
            event = events.get(timeout=left_s)
        except Empty:
            break
        if isinstance(event, kind):
            return event
    pytest.fail(f"no {kind.__name__} within {deadline_s} s")


@pytest.fixture(params=["list", "paho"])
def make_link(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Link]]:
    if request.param == "list":
        yield ListLink
        return
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    broker = Mosquitto(tmp_path / "broker").start()
    links: list[Link] = []

    def make() -> Link:
        links.append(PahoLink(Broker(broker.host, broker.port), f"contract{len(links)}"))
        return links[-1]

    yield make
    for link in links:
        link.stop()
    broker.stop()


def test_start_is_answered_and_each_message_once(make_link: Callable[[], Link]) -> None:
    link, events = make_link(), SimpleQueue[Event]()
    link.start(events, NO_BIRTH, None)
    assert isinstance(wait_for(events, Connected), Connected)
    for seq in range(1, 51):
        link.send(seq, Message("t/a", b"x" * seq, properties={"number": str(seq)}, content_type="text/plain"))
    answered = [wait_for(events, Acked) for _ in range(50)]
    assert [answer.seq for answer in answered if isinstance(answer, Acked)] == list(range(1, 51))
    link.stop()
    assert events.empty()


def test_after_stop_there_is_silence(make_link: Callable[[], Link]) -> None:
    link, events = make_link(), SimpleQueue[Event]()
    link.start(events, NO_BIRTH, None)
    wait_for(events, Connected)
    link.stop()
    link.stop()
    link.send(1, Message("t/a", b"x"))
    with pytest.raises(Empty):
        events.get(timeout=0.3)


def test_it_can_be_started_again_and_nothing_is_left_over(make_link: Callable[[], Link]) -> None:
    link, first, second = make_link(), SimpleQueue[Event](), SimpleQueue[Event]()
    link.start(first, NO_BIRTH, None)
    wait_for(first, Connected)
    link.send(1, Message("t/a", b"x"))
    link.stop()
    link.start(second, NO_BIRTH, Death(Message("t/will", b"lost")))
    wait_for(second, Connected)
    link.send(2, Message("t/a", b"x"))
    answer = wait_for(second, Acked)
    assert isinstance(answer, Acked) and answer.seq == 2
    link.stop()


def test_messages_without_acknowledgement_are_not_answered(make_link: Callable[[], Link]) -> None:
    link, events = make_link(), SimpleQueue[Event]()
    link.start(events, NO_BIRTH, None)
    wait_for(events, Connected)
    link.send(1, Message("t/a", b"x", qos=0))
    link.send(2, Message("t/a", b"x"))
    answer = wait_for(events, Acked)
    assert isinstance(answer, Acked) and answer.seq == 2
    link.stop()


def test_stop_before_the_answer_is_quick_and_silent(make_link: Callable[[], Link]) -> None:
    for _ in range(5):
        link, events = make_link(), SimpleQueue[Event]()
        link.start(events, NO_BIRTH, None)
        begun_s = time.monotonic()
        link.stop()
        assert time.monotonic() - begun_s < 2.0
        while not events.empty():
            events.get()
        with pytest.raises(Empty):
            events.get(timeout=0.1)


def test_paho_publishes_birth_and_hears_what_it_subscribed(broker: Mosquitto) -> None:
    link, events = PahoLink(Broker(broker.host, broker.port), "d1"), SimpleQueue[Event]()
    birth = Birth(("t/+",), (Message("t/birth", b"born", properties={"k": "v"}),))
    link.start(events, birth, None)
    heard = wait_for(events, Received)
    assert isinstance(heard, Received)
    assert (heard.topic, heard.payload, heard.properties) == ("t/birth", b"born", {"k": "v"})
    link.stop()


def test_an_unreachable_broker_is_a_sentence() -> None:
    port = free_port()
    link, events = PahoLink(Broker("127.0.0.1", port), "d1"), SimpleQueue[Event]()
    link.start(events, NO_BIRTH, None)
    answer = wait_for(events, Disconnected)
    assert isinstance(answer, Disconnected)
    assert f"127.0.0.1:{port}" in answer.sentence and "refused" in answer.sentence
    link.send(1, Message("t/a", b"x"))
    link.stop()
    assert events.empty()


def test_a_broker_that_goes_away_is_told_once(broker: Mosquitto) -> None:
    link, events = PahoLink(Broker(broker.host, broker.port), "d1"), SimpleQueue[Event]()
    link.start(events, NO_BIRTH, None)
    wait_for(events, Connected)
    broker.kill()
    assert isinstance(wait_for(events, Disconnected), Disconnected)
    link.send(1, Message("t/a", b"x"))
    with pytest.raises(Empty):
        events.get(timeout=0.5)
    broker.start()
    fresh = SimpleQueue[Event]()
    eventually(lambda: _connects(link, fresh), "connected to the new broker")
    link.stop()


def _connects(link: Link, events: "SimpleQueue[Event]") -> bool:
    link.start(events, NO_BIRTH, None)
    return isinstance(events.get(timeout=10), Connected)
