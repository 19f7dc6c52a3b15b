"""Agent, broker and hub killed at random moments and troubled in other ways: nothing may be lost or stored twice."""

import random
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.cli.command import CommandError
from hil.chaos import faults, proof
from hil.chaos.faults import Story
from hil.chaos.namespace import Cable, cable
from hil.chaos.site import site

RATE_HZ = 100
DUPLICATES_SHARE = 0.05
"""Of what is stored, so much may come to the hub once more."""


def measure(kills: int, seeds: int, seconds: float) -> dict[str, Any]:
    """``kills`` in all, over ``seeds`` installations; then every other fault for ``seconds``, at each of them.

    ``faults`` has a sentence for everything that must not happen. Raises CommandError when it cannot be measured.
    """
    shares = [kills // seeds + (seed < kills % seeds) for seed in range(seeds)]
    runs = [_one(seed, share, seconds) for seed, share in enumerate(shares)]
    numbers: dict[str, Any] = {
        key: sum(run[key] for run in runs)
        for key in ("kills", "committed", "stored", "lost", "stored_twice", "duplicates", "boots")
    }
    share = numbers["duplicates"] / max(1, numbers["stored"])
    numbers["duplicates_share"] = round(share, 4)
    numbers["longest_drain_s"] = max(run["longest_drain_s"] for run in runs)
    numbers["runs"] = runs
    numbers["faults"] = [f"seed {run['seed']}: {fault}" for run in runs for fault in run["faults"]]
    if share > DUPLICATES_SHARE:
        numbers["faults"].append(f"{share:.1%} of the results came again, at most {DUPLICATES_SHARE:.0%} may")
    return numbers


def _one(seed: int, kills: int, seconds: float) -> dict[str, Any]:
    """One installation from its start to the proof."""
    with tempfile.TemporaryDirectory(prefix="axond-chaos-") as scratch, ExitStack() as stack:
        wire, why_not = stack.enter_context(cable())
        addresses = ("127.0.0.1", wire.host) if wire else ("127.0.0.1",)
        place = stack.enter_context(site(Path(scratch), addresses=addresses))
        place.make_model(RATE_HZ)
        if wire:
            place.agent.command = [*wire.prefix, *place.agent.command]
        place.write_agent(RATE_HZ)
        story = Story(place, RATE_HZ)
        place.start()
        drains_s, failures = _trouble(story, seed, kills, seconds, wire, why_not)
        verdict = _prove(story)
        killed = {part.name: part.kills for part in place.parts}
        return {
            "seed": seed,
            "kills": kills,
            "killed": killed,
            **{key: value for key, value in asdict(verdict).items() if key != "faults"},
            "drains_s": drains_s,
            "longest_drain_s": max(drains_s.values(), default=faults.DRAIN_S),
            "events": story.events,
            "faults": story.ended + failures + verdict.faults,
        }


def _trouble(
    story: Story, seed: int, kills: int, seconds: float, wire: Cable | None, why_not: str
) -> tuple[dict[str, float], list[str]]:
    """Seconds that each drain took, by what came before it; and a sentence if one took too long."""
    drains_s: dict[str, float] = {}
    try:
        faults.kill_at_random(story, kills, random.Random(seed))
        drains_s["kills"] = round(story.drain(), 2)
        if seconds:
            for name, took_s in faults.phases(story, seconds, wire, why_not):
                drains_s[name] = round(took_s, 2)
    except CommandError as error:
        story.tell("failed", why=str(error))
        return drains_s, [str(error)]
    return drains_s, []


def _prove(story: Story) -> proof.Verdict:
    """Stops the flow, lets the outbox run empty, and compares the books; what did not leave shows in them."""
    place = story.site
    for part in (place.broker, place.hub):
        if not part.running:
            part.start()
    try:
        place.run_empty()
    except CommandError as error:
        story.tell("not emptied", why=str(error))
        place.agent.kill()
    place.hub.stop()
    story.note()
    return proof.judge(story.expected, place.hub_db, place.state, RATE_HZ)
