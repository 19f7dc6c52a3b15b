"""A pipeline whose only backend goes away: it waits, says so, and infers every window all the same."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from agent.checkpoint import Checkpoint
from agent.mailbox import Mailbox
from agent.pipeline import Pipeline, ReportPolicy
from drivers.packet import Packet
from models.backends.reference import ReferenceBackend
from models.datasets.recording import audio_info
from models.failover import Runner
from models.session import Session
from tests.models import faulty, networks

RATE_HZ = 8000
SOUND = np.random.default_rng(1).normal(0, 3000, (40, RATE_HZ // 10, 1)).astype(np.int16)


def packet(seq: int) -> Packet:
    return Packet("mic0", seq, seq * 10**8, 10**9 // RATE_HZ, SOUND[seq])


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.01)


class Rig:
    """A pipeline on one faulty backend, in its thread."""

    def __init__(self, folder: Path, fault: Path) -> None:
        info = audio_info(RATE_HZ)
        self.fault = fault
        self.bundle = networks.write_bundle(
            folder / "made",
            networks.random_network(np.random.default_rng(3), 120, (32,)),
            input={"family": "audio", "channels": list(info.channels), "rate_hz": info.rate_hz},
            window={"mode": "time", "samples": 1600, "hop": 800},
            encoder={"kind": "audio_mel"},
        )
        self.info = info
        self.mailbox = Mailbox()
        self.results: list[dict[str, int | float | str]] = []
        self.pipeline = Pipeline(
            "sound",
            self.bundle,
            Runner("faulty"),
            info,
            self.mailbox,
            ReportPolicy("every"),
            self.results.append,
            Checkpoint(folder / "sound.npz", self.bundle),
        )
        self.stop = Event()
        self.thread = Thread(target=self.pipeline.run, args=(self.stop, lambda: None))

    def feed(self, *numbers: int) -> None:
        for n in numbers:
            self.mailbox.put(packet(n), time.monotonic_ns())

    def expected(self) -> list[tuple[str, float]]:
        backend = ReferenceBackend()
        backend.load(self.bundle)
        session = Session(self.bundle, backend, self.info)
        return [(one.label, one.score) for seq in range(len(SOUND)) for one in session.push(packet(seq))]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    faulty.install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("AXOND_FAULT", str(tmp_path / "fault"))
    made = Rig(tmp_path, tmp_path / "fault")
    yield made
    made.stop.set()
    if made.thread.is_alive():
        made.thread.join(10)
    assert not made.thread.is_alive()


def test_no_window_is_lost_while_the_only_backend_is_away(rig: Rig) -> None:
    rig.thread.start()
    rig.feed(*range(10))
    wait_for(lambda: len(rig.results) == 9)
    assert rig.pipeline.info.state == "live"
    rig.fault.write_text("missing")
    rig.pipeline.runner._backend.close()  # type: ignore[union-attr]
    rig.feed(*range(10, 30))
    wait_for(lambda: rig.pipeline.info.state == "unavailable")
    assert rig.pipeline.outage.sentence == "pipeline sound: the chip is not plugged in"
    rig.fault.unlink()
    rig.feed(*range(30, len(SOUND)))
    wait_for(lambda: len(rig.results) == len(SOUND) - 1)
    assert [(row["label"], row["score"]) for row in rig.results] == rig.expected()
    assert {row["backend"] for row in rig.results} == {"faulty"}
    assert (rig.pipeline.info.state, rig.pipeline.info.incidents) == ("live", 1)
    assert rig.pipeline.outage.sentence is rig.pipeline.fallback.sentence is None


def test_it_stops_while_no_backend_is_there(rig: Rig) -> None:
    rig.fault.write_text("missing")
    rig.thread.start()
    wait_for(lambda: rig.pipeline.outage.sentence is not None)
    rig.stop.set()
    rig.thread.join(5)
    assert not rig.thread.is_alive()
    assert rig.pipeline.info.backend == ""
