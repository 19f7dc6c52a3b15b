"""The thread of a pipeline over several sensors: what was given before a sensor ended counts like any other."""

import time
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from agent.fusion import FusedPipeline, FusedSensor
from agent.mailbox import Inbox
from agent.pipeline import ReportPolicy
from drivers.packet import Packet
from models.datasets.nmnist import CAMERA_INFO
from models.failover import Runner
from tests.models import fusion
from tests.models.fusion import AUDIO_INFO, S, evented, flashes, sampled, sound

ONSETS_S = (0.6, 1.8)


def ahead(packet: Packet, by_ns: int) -> Packet:
    """As of a recording at full speed, which is ahead of its own time."""
    data = packet.data
    if packet.dt_ns == 0:
        data = data.copy()
        data["t_ns"] += by_ns
    return replace(packet, t0_ns=packet.t0_ns + by_ns, data=data)


@pytest.mark.parametrize("state", ["live", "ended", "missing"])
def test_what_waits_of_a_sensor_that_ended_is_whole(tmp_path: Path, state: str) -> None:
    rows: list[dict[str, int | float | str]] = []
    sensors = [FusedSensor("mic0", AUDIO_INFO, lambda: state), FusedSensor("cam0", CAMERA_INFO, lambda: state)]
    inbox = Inbox(2)
    made = fusion.write(tmp_path)
    policy = ReportPolicy("every")
    pipeline = FusedPipeline("both", made, Runner(["reference"], isolate=False), sensors, inbox, policy, rows.append)
    deliveries = sampled(0, sound(3, ONSETS_S), 8000) + evented(1, flashes((*ONSETS_S, 2.9)))
    by_ns = time.monotonic_ns() + 3600 * S
    for one in sorted(deliveries, key=lambda d: d.at_ns):
        inbox.mailboxes[one.index].put(ahead(one.packet, by_ns), one.at_ns)
    assert not any(mailbox.dropped_packets for mailbox in inbox.mailboxes)
    stop = Event()
    stop.set()
    pipeline.run(stop, lambda: None)
    assert [row["quality"] for row in rows[:2]] == [1.0, 1.0]
    assert [row["missing"] for row in rows[:2]] == ["", ""]
