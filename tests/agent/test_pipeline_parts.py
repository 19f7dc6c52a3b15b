"""Mailbox, report policy, latency, outage: the small parts of the data path."""

import logging
import threading

import numpy as np
import pytest

from agent.latency import KEPT, Latency
from agent.mailbox import CAPACITY, Mailbox
from agent.outage import Backoff, Outage
from agent.pipeline import ReportPolicy
from drivers.packet import Packet
from models.base import Inference


def packet(seq: int, n: int = 10) -> Packet:
    return Packet("s", seq, 0, 1000, np.zeros((n, 1), np.int16))


def inference(label: str, score: float = 0.9) -> Inference:
    return Inference(0, 1, 1, label, score, 0, 0, 0, 0)


def test_the_mailbox_keeps_order_and_drops_the_oldest() -> None:
    box = Mailbox()
    for seq in range(CAPACITY + 3):
        box.put(packet(seq), seq)
    assert (box.dropped_packets, box.dropped_samples) == (3, 30)
    assert [box.get(0)[0].seq for _ in range(CAPACITY)] == list(range(3, CAPACITY + 3))  # type: ignore[index]
    assert box.get(0) is None


def test_the_mailbox_wakes_its_reader() -> None:
    box = Mailbox()
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.append(box.get(5)))
    reader.start()
    box.put(packet(7), 99)
    reader.join(5)
    assert got and got[0][0].seq == 7  # type: ignore[index]


def test_a_source_that_can_wait_loses_nothing() -> None:
    box = Mailbox()
    for seq in range(CAPACITY):
        assert box.wait_room(0)
        box.put(packet(seq), seq)
    assert not box.wait_room(0.01)
    reader = threading.Thread(target=lambda: box.get(5))
    reader.start()
    assert box.wait_room(5)
    reader.join(5)
    assert box.dropped_packets == 0


def test_report_policies() -> None:
    seen = [inference(label, score) for label, score in (("a", 0.9), ("a", 0.4), ("b", 0.8), ("a", 0.2))]
    assert [ReportPolicy("every").wants(i) for i in seen] == [True] * 4
    change, threshold = ReportPolicy("on_change"), ReportPolicy("threshold", 0.8)
    assert [change.wants(i) for i in seen] == [True, False, True, True]
    assert [threshold.wants(i) for i in seen] == [True, False, True, False]


def test_latency_splits_the_way_of_a_result() -> None:
    latency = Latency()
    assert latency.summary() == {}
    for i in range(100):
        base = i * 10**9
        times = [base + ms * 10**6 for ms in (0, 20, 21, 22, 27)]
        latency.inferred(base, (times[0], times[1], times[2], times[3], times[4]))
        latency.durable(base, base + 30 * 10**6)
    summary = latency.summary()
    assert summary["p50_ms"] == 30
    assert summary["overhead_p99_ms"] == 5
    assert summary["backend_p50_ms"] == 5


def test_latency_is_bounded_and_ignores_strangers() -> None:
    latency = Latency()
    latency.durable(1, 2)
    for i in range(2 * KEPT):
        latency.inferred(i, (0, 0, 0, 0, 0))
    for i in range(2 * KEPT):
        latency.durable(i, 1)
    assert latency.count == KEPT


def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    outage = Outage(logging.getLogger("test"), "disk writes again")
    outage.over()
    outage.failed("full")
    outage.failed("full")
    outage.failed("read-only")
    outage.over()
    levels = [(r.levelname, r.getMessage().split(" after ")[0]) for r in caplog.records]
    assert levels == [("WARNING", "full"), ("DEBUG", "full"), ("WARNING", "read-only"), ("INFO", "disk writes again")]


def test_backoff_grows_to_its_bound_and_starts_again() -> None:
    backoff = Backoff(1.0, 4.0)
    waits = [backoff.next_s() for _ in range(6)]
    assert all(0.5 * top <= wait <= top for wait, top in zip(waits, (1, 2, 4, 4, 4, 4), strict=True))
    backoff.reset()
    assert backoff.next_s() <= 1.0
