"""What every mirror promises the primary path, checked on each kind there is with its real peer."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.mirrors.base import CAPACITY, Copies, Mirror
from agent.mirrors.registry import kinds, mirror_class
from agent.outbox import Outbox
from agent.record import Depth
from tests.brokers import MOSQUITTO, Mosquitto
from tests.conftest import Running, eventually
from tests.mirror_peers import INFLUXD, Influxd, Listener, device, row, rows

STOP_S = 2.0
FLOOD = 50_000
GROUP = 64


@dataclass
class Rig:
    """A mirror and its peer, which does not run yet."""

    kind: str
    mirror: Mirror[Any]
    peer: Mosquitto | Influxd

    def arrived(self) -> int:
        """How often the peer has something of ours that is news to it."""
        if isinstance(self.peer, Influxd):
            return self.peer.count("kw")
        listener = Listener(self.peer.port)
        try:
            self.mirror.offer([row(1)])
            # Retained messages are of old; what is asked for is something that comes now.
            return len(eventually(lambda: [m for m in listener.messages() if not m.retain], "a message"))
        finally:
            listener.close()


def settings_of(kind: str, port: int, folder: Path) -> dict[str, Any]:
    token = folder / "token"
    token.write_text("t0ken")
    return {
        "homeassistant": {"host": "127.0.0.1", "port": port},
        "sparkplug": {"host": "127.0.0.1", "port": port},
        "thingsboard": {"host": "127.0.0.1", "port": port, "token_file": str(token)},
        "influx": {"url": f"http://127.0.0.1:{port}", "database": "axond"},
    }[kind]


@pytest.fixture(params=kinds())
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    kind: str = request.param
    if kind == "influx" and INFLUXD is None:
        pytest.skip("influxd is not installed")
    if kind != "influx" and MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    peer: Mosquitto | Influxd = Influxd(tmp_path / "peer") if kind == "influx" else Mosquitto(tmp_path / "peer")
    mirror = mirror_class(kind)
    settings = mirror.Config.model_validate(settings_of(kind, peer.port, tmp_path))
    yield Rig(kind, mirror("copy", settings, device()), peer)
    peer.stop()


def handles() -> tuple[int, int]:
    """Open files and threads, without what earlier tests left to the collector."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def stop_quickly(worker: Running) -> None:
    begun_s = time.monotonic()
    worker.stop()
    assert time.monotonic() - begun_s < STOP_S + 0.5  # the half is for a machine that has more to do


def accounted(mirror: Mirror[Any]) -> int:
    state = mirror.state()
    return state.sent + state.dropped + state.skipped + state.waiting


def test_every_kind_is_tried_here() -> None:
    assert kinds() == ("homeassistant", "influx", "sparkplug", "thingsboard")


def test_the_constructor_opens_nothing(rig: Rig) -> None:
    before = handles()
    again = type(rig.mirror)("other", rig.mirror.cfg, rig.mirror.device)
    assert handles() == before
    assert again.critical is False
    assert again.name == "mirror-other"
    assert not again.state().connected


def test_a_dead_peer_is_said_in_one_sentence_and_left_quickly(rig: Rig, running: Callable[[Any], Running]) -> None:
    worker = running(rig.mirror)
    rig.mirror.offer(rows(10))
    sentence = eventually(lambda: rig.mirror.state().error, "a sentence")
    assert rig.mirror.name in sentence
    assert "\n" not in sentence
    assert not rig.mirror.state().connected
    stop_quickly(worker)
    assert accounted(rig.mirror) == 10


def test_it_is_left_quickly_while_it_works(rig: Rig, running: Callable[[Any], Running]) -> None:
    rig.peer.start()
    worker = running(rig.mirror)
    rig.mirror.offer(rows(10))
    eventually(lambda: rig.mirror.state().sent, "the first results")
    stop_quickly(worker)
    assert accounted(rig.mirror) == 10
    assert not rig.mirror.state().connected


def flood(rig: Rig, outbox: Outbox, running: Callable[[Any], Running]) -> tuple[Depth, float]:
    """Floods the outbox behind the mirror's back; returns how full it is and the longest ``put``."""
    longest_s = 0.0
    for start in range(0, FLOOD, GROUP):
        for number in range(start, min(start + GROUP, FLOOD)):
            begun_s = time.perf_counter()
            outbox.put("kw", row(number).payload)
            longest_s = max(longest_s, time.perf_counter() - begun_s)
        eventually(lambda: outbox.unwritten < 10_000, "the outbox to keep up")
    eventually(lambda: not outbox.unwritten, "all results on the disk")
    return outbox.depth(), longest_s


def test_a_flood_while_the_peer_hangs_is_bounded_counted_and_no_business_of_the_outbox(
    rig: Rig, tmp_path: Path, running: Callable[[Any], Running]
) -> None:
    rig.peer.start()
    worker = running(rig.mirror)
    rig.mirror.offer([row(-1)])
    eventually(lambda: rig.mirror.state().sent, "the first result")
    rig.peer.freeze()
    outbox = Outbox(tmp_path / "outbox.db", boot="b0", on_durable=rig.mirror.offer)
    keeper = running(outbox)
    depth, longest_s = flood(rig, outbox, running)
    assert depth.rows == FLOOD
    assert longest_s < 3, "a wait for the peer would be its whole time-out"
    assert all(counts.balanced() for counts in outbox.ledger().values())
    state = rig.mirror.state()
    assert state.dropped + state.skipped > FLOOD / 2
    assert state.waiting <= 2 * CAPACITY
    stop_quickly(worker)
    keeper.stop()
    assert accounted(rig.mirror) == FLOOD + 1
    assert depth.evicted == depth.refused == 0


def test_it_goes_on_when_the_peer_hung_for_a_moment(rig: Rig, running: Callable[[Any], Running]) -> None:
    rig.peer.start()
    worker = running(rig.mirror)
    rig.mirror.offer([row(0)])
    eventually(lambda: rig.mirror.state().sent, "the first result")
    rig.peer.freeze()
    rig.mirror.offer(rows(100))
    eventually(lambda: rig.mirror.under_way() or rig.mirror.state().sent > 1, "results under way")
    rig.peer.thaw()
    eventually(lambda: rig.mirror.state().waiting == 0, "the rest")
    worker.stop()
    state = rig.mirror.state()
    assert (state.error, state.dropped, state.sent + state.skipped) == (None, 0, 101)


def test_it_goes_on_when_the_peer_returns(rig: Rig, running: Callable[[Any], Running]) -> None:
    rig.peer.start()
    worker = running(rig.mirror)
    rig.mirror.offer([row(0)])
    eventually(lambda: rig.mirror.state().sent, "the first result")
    rig.peer.kill()
    rig.mirror.offer(rows(100))
    eventually(lambda: rig.mirror.state().error, "a sentence")
    rig.peer.start()
    eventually(lambda: rig.mirror.state().connected and rig.mirror.state().waiting == 0, "the rest")
    assert rig.mirror.state().error is None
    assert rig.arrived() > 0
    worker.stop()
    assert rig.mirror.state().dropped == 0


def test_the_hand_over_drops_the_oldest_and_counts() -> None:
    copies = Copies()
    offered = list(rows(CAPACITY + 5))
    copies.put(offered)
    assert copies.dropped == 5
    taken = copies.take(3)
    assert taken == offered[5:8]
    copies.put([row(7)])
    copies.give_back(taken)
    assert copies.dropped == 6
    assert copies.take(2) == offered[6:8]
    assert len(copies) == CAPACITY - 2
