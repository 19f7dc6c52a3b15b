"""The worker of a pipeline that locates: takes what is in its mailbox, reports by policy, tells what it did."""

import time
from threading import Event

import numpy as np
import pytest

from agent.locate import MODEL, Locator
from agent.mailbox import Mailbox
from agent.pipeline import ReportPolicy
from drivers.packet import Packet
from drivers.ultrasonic.array import Array, ArrayConfig
from hil.sonar.ranging import square_mm
from models.locate.session import LocateSpec, open_locate

pytest.importorskip("scipy")

INFO = Array("array0", ArrayConfig(port="/dev/none", format="text", unit="mm")).info()
SQUARE = square_mm(1000, 2)
STEP_NS = 50_000_000
RANGES = np.rint(np.linalg.norm(SQUARE - np.array([1300, 700]), axis=1)).astype(np.int32)


def located(policy: ReportPolicy, rows: list[np.ndarray]) -> tuple[Locator, list[dict[str, int | float | str]]]:
    results: list[dict[str, int | float | str]] = []
    mailbox, stop = Mailbox(), Event()
    session = open_locate(LocateSpec(geometry_mm=tuple(map(tuple, SQUARE.tolist()))), INFO)
    locator = Locator("where", session, mailbox, policy, results.append)
    begin_ns = time.monotonic_ns() - len(rows) * STEP_NS
    for seq, row in enumerate(rows):
        packet = Packet("array0", seq, begin_ns + seq * STEP_NS, STEP_NS, row[None].copy(), lost=int(seq == 3))
        mailbox.put(packet, time.monotonic_ns())
    stop.set()
    locator.run(stop, lambda: None)
    return locator, results


def test_what_was_captured_is_located_also_at_the_stop() -> None:
    locator, results = located(ReportPolicy("every"), [RANGES] * 30)
    assert len(results) == locator.info.inferences == locator.info.reported == 30
    assert locator.info.lost_samples == 1
    assert {"t_us" if name == "t_ns" else name for name in results[0]} == set(locator.columns)
    assert (results[-1]["x_mm"], results[-1]["y_mm"]) == pytest.approx((1300, 700), abs=5)
    assert {row["model"] for row in results} == {MODEL}
    assert locator.info.last is not None
    locator.latency.durable(results[-1]["t_ns"], time.monotonic_ns())
    assert locator.latency.summary()["backend_p50_ms"] < 100


def test_states_are_reported_where_they_change() -> None:
    nothing = np.zeros(4, np.int32)
    _, results = located(ReportPolicy("on_change"), [RANGES] * 10 + [nothing] * 40 + [RANGES] * 5)
    assert [row["label"] for row in results] == ["tracked", "coasting", "lost", "tracked"]


def test_only_positions_that_enough_distances_agree_with() -> None:
    detour = RANGES + np.array([0, 300, 0, 0], np.int32)
    locator, results = located(ReportPolicy("threshold", 1.0), [RANGES] * 10 + [detour] * 3)
    assert (locator.info.inferences, len(results)) == (13, 10)
