"""Agent and hub through brokers of several makers, each restarted once: nothing lost, nothing stored twice."""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.cli.command import CommandError
from hil.chaos import proof
from hil.chaos.brokers import KINDS, Kind, Running
from hil.chaos.faults import Story
from hil.chaos.part import wait_for
from hil.chaos.site import DEVICE, Site, accepts, site

RATE_HZ = 200
RESULTS = 2000
RESULTS_S = 60.0
AWAY_S = 1.0
AGAIN_S = 60.0
HUB = "axond-hub"


def measure(names: list[str]) -> dict[str, Any]:
    """What came through each; ``left_out`` for those that are not installed. ``faults`` as everywhere."""
    numbers: dict[str, Any] = {"brokers": {}, "left_out": {}, "faults": []}
    for name in names or list(KINDS):
        with tempfile.TemporaryDirectory(prefix="axond-interop-") as scratch:
            folder = Path(scratch)
            (folder / "broker").mkdir()
            try:
                running = KINDS[name].prepare(folder / "broker")
            except CommandError as error:
                numbers["left_out"][name] = f"{error} (apt install {KINDS[name].package})"
                continue
            told = _through(folder, KINDS[name], running)
        numbers["faults"] += [f"{name}: {fault}" for fault in told.pop("faults")]
        numbers["brokers"][name] = told
    return numbers


def _through(folder: Path, kind: Kind, running: Running) -> dict[str, Any]:
    """One broker: half of the results, a restart, the other half, the proof."""
    with ExitStack() as stack:
        place = stack.enter_context(site(folder))
        place.broker, place.port = running.part, running.port
        place.use_broker(f"{DEVICE}{running.domain}", f"{HUB}{running.domain}" if running.domain else "")
        for helper in running.helpers:
            helper.start()
            stack.callback(helper.kill)
        try:
            return {"mqtt": kind.mqtt, **_results(place, kind)}
        except CommandError as error:
            return {"mqtt": kind.mqtt, "faults": [f"{error}; agent: {place.agent.tail()}; hub: {place.hub.tail()}"]}


def _results(place: Site, kind: Kind) -> dict[str, Any]:
    place.make_model(RATE_HZ)
    place.write_agent(RATE_HZ)
    begin_s = time.monotonic()
    place.broker.start()
    starts_s = wait_for("the broker accepts connections", lambda: accepts(place.port), kind.start_s)
    place.hub.start()
    place.agent.start()
    story = Story(place, RATE_HZ)
    _wait_committed(place, RESULTS // 2)
    place.broker.kill()
    time.sleep(AWAY_S)
    place.broker.start()
    wait_for("the broker accepts connections again", lambda: accepts(place.port), kind.start_s)
    back_s = time.monotonic()
    wait_for("results are delivered after the restart", place.connected, AGAIN_S)
    again_s = time.monotonic() - back_s
    _wait_committed(place, RESULTS)
    drain_s = story.drain()
    place.run_empty()
    place.hub.stop()
    story.note()
    verdict = proof.judge(story.expected, place.hub_db, place.state, RATE_HZ)
    return {
        **asdict(verdict),
        "seconds": round(time.monotonic() - begin_s, 1),
        "broker_starts_s": round(starts_s, 2),
        "connected_again_s": round(again_s, 2),
        "drain_s": round(drain_s, 2),
    }


def _wait_committed(place: Site, count: int) -> None:
    def there() -> bool:
        if not place.agent.running:
            raise CommandError("the agent ended by itself")
        return sum(proof.committed(place.state).values()) >= count

    wait_for(f"{count} results", there, RESULTS_S)
