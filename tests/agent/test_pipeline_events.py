"""A pipeline on an event camera: windows of capture time, and the last one does not wait for another event."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import numpy as np

from agent.checkpoint import Checkpoint
from agent.mailbox import Mailbox
from agent.pipeline import Pipeline, ReportPolicy
from drivers.packet import EVENT, Packet
from models.datasets.nmnist import CAMERA_INFO
from models.failover import Runner
from tests.models import networks

MS = 1_000_000


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.01)


def packet(seq: int, begin_ns: int, count: int = 40) -> Packet:
    data = np.zeros(count, EVENT)
    data["t_ns"] = begin_ns + np.arange(count) * MS
    data["x"], data["y"] = np.arange(count) % 16, np.arange(count) % 7
    return Packet("eyes", seq, begin_ns, 0, data)


def test_the_window_is_inferred_when_the_camera_falls_silent(tmp_path: Path) -> None:
    bundle = networks.write_bundle(
        tmp_path / "made",
        networks.random_network(np.random.default_rng(3), 2 * 8 * 8, (32,)),
        input={"family": "event_camera", "channels": list(CAMERA_INFO.channels), "rate_hz": 1e6},
        window={"mode": "time", "samples": 100_000, "hop": 100_000},
        encoder={"kind": "event_bins", "width": 16, "height": 16, "pool": 2, "step_us": 10_000},
    )
    mailbox, results = Mailbox(), list[dict[str, int | float | str]]()
    pipeline = Pipeline(
        "eyes",
        bundle,
        Runner("reference"),
        CAMERA_INFO,
        mailbox,
        ReportPolicy("every"),
        results.append,
        Checkpoint(tmp_path / "eyes.npz", bundle),
    )
    stop = Event()
    thread = Thread(target=pipeline.run, args=(stop, lambda: None))
    thread.start()
    try:
        begin_ns = time.monotonic_ns()
        mailbox.put(packet(0, begin_ns), begin_ns)
        wait_for(lambda: len(results) == 1)
        assert results[0]["t_ns"] == begin_ns
        assert results[0]["dur_us"] == 100_000
        later_ns = time.monotonic_ns()
        mailbox.put(packet(3, later_ns), later_ns)
        wait_for(lambda: len(results) == 2)
        assert (results[1]["t_ns"], results[1]["lost"]) == (later_ns, 2)
        assert int(results[1]["spikes"]) > 0
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
