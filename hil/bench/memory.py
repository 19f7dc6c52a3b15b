"""A day's worth of results in minutes, with outages: does the memory of agent and hub grow?"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.cli.command import CommandError
from hil.bench import process
from hil.bench.uplink import store_laps
from hil.chaos.faults import Story
from hil.chaos.site import Site, site

RATE_HZ = 500
CYCLE_S = 20.0
AWAY_S = 4.0
"""Of each cycle, the broker is away at its begin."""
LOOK_S = 0.25
FILL_RESULTS = 500_000
"""Stored before, of another device: SQLite's cache of 2 MiB is full then, and has a file behind it as after months."""
SIGMAS = 3.0
COLUMNS = ("agent_pss", "agent_own", "hub_pss", "hub_own")
SMALL_MIB = 1.0
"""Less than this over the whole time is no growth that a day of it makes harmful: the pages of a heap come and go."""


def measure(seconds: float) -> dict[str, Any]:
    """MiB, and MiB an hour with one standard error. ``faults`` as everywhere. Raises CommandError.

    PSS is what the machine has less because of a process; other processes that map the same libraries change it. Heaps
    and stacks alone (``own``) are what can leak, so they decide.
    """
    cycles = max(6, round(seconds / CYCLE_S))
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as scratch, site(Path(scratch)) as place:
        place.make_model(RATE_HZ)
        place.write_agent(RATE_HZ)
        place.start()
        store_laps(place, lambda _, results: results < FILL_RESULTS)
        story = Story(place, RATE_HZ)
        begin_s = time.monotonic()
        points = np.array([_cycle(place) for _ in range(cycles)])
        spent_s = time.monotonic() - begin_s
        story.drain()
        place.agent.stop()
        story.note()
        results = sum(story.expected.values())
    numbers: dict[str, Any] = {
        "seconds": round(spent_s, 1),
        "results": results,
        "results_per_s_over_24_h": round(results / 86_400, 2),
        "outages": cycles,
    }
    faults = []
    # The agent's caches and heap fill first. What grows for ever grows in the second half as well.
    late = slice(cycles // 2, None)
    at_h = np.arange(cycles)[late] * CYCLE_S / 3600
    for column, name in enumerate(COLUMNS):
        slope, error = line(at_h, points[late, column])
        growth_mib = slope * float(at_h[-1] - at_h[0])
        numbers |= {
            f"{name}_by_outage_mib": points[:, column].round(1).tolist(),
            f"{name}_slope_mib_per_h": round(slope, 3),
            f"{name}_slope_error_mib_per_h": round(error, 3),
            f"{name}_growth_mib": round(growth_mib, 3),
        }
        if name.endswith("own") and slope > SIGMAS * error and growth_mib > SMALL_MIB:
            faults.append(f"{name} grows by {growth_mib:.2f} MiB with {results // 2} results, and that is no noise")
    return {**numbers, "faults": faults}


def line(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Slope of the least-squares line through at least 3 points, and its standard error."""
    off = x - x.mean()
    slope = float(off @ y / (off @ off))
    residual = y - y.mean() - slope * off
    return slope, float(np.sqrt(residual @ residual / (len(x) - 2) / (off @ off)))


def _cycle(place: Site) -> list[float]:
    """An outage and what follows: the median of each of ``COLUMNS`` in the quiet second half."""
    end_s = time.monotonic() + CYCLE_S
    place.broker.kill()
    back_s = time.monotonic() + AWAY_S
    seen: list[list[float]] = []
    while (now_s := time.monotonic()) < end_s:
        if not place.broker.running and now_s >= back_s:
            place.start_broker()
        for part in (place.agent, place.hub):
            if not part.running:
                raise CommandError(f"the {part.name} ended by itself: {part.tail()}")
        pids = (place.agent.pid, place.hub.pid)
        seen.append([measured(pid) for pid in pids for measured in (process.pss_mib, process.anonymous_mib)])
        time.sleep(LOOK_S)
    quiet: list[float] = np.median(seen[len(seen) // 2 :], axis=0).tolist()
    return quiet
