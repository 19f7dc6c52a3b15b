"""A sensor unplugged and plugged in again under a real ``axond run``, many times: how soon is it back, what remains?"""

import os
import pty
import random
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agent.cli.command import CommandError
from hil.bench import process
from hil.bench.dut import Dut, running
from hil.emulators.witmotion import WitmotionEmulator

RATE_HZ = 100
BACK_S = 1.0
"""A device that returned must give a packet within this."""
GIVE_UP_S = 10.0
AWAY_S = 0.5
"""Most cycles: away for up to this long. Every fifth is over before the agent can notice."""
AT_ONCE_EVERY = 5
LONG_EVERY, LONG_AT, LONG_AWAY_S = 50, 1, 4.0
"""So long that the agent's back-off has grown, in the second of fifty cycles."""


def measure(cycles: int) -> dict[str, Any]:
    """``faults`` has a sentence for everything that must not happen. Raises CommandError when it cannot be measured."""
    rows = np.random.default_rng(0).integers(-3000, 3000, (500, 6)).astype(np.int16)
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as scratch:
        folder = Path(scratch)
        table = {"driver": "imu.witmotion", "port": str(folder / "imu"), "baud": 115200, "rate_hz": RATE_HZ}
        with WitmotionEmulator(rows, RATE_HZ, folder / "imu") as sensor, running(folder, {"imu": table}) as agent:
            agent.wait("packets", _live)
            before = process.descriptors(agent.pid), process.threads(agent.pid)
            begin_mib = process.pss_mib(agent.pid)
            begin_s = time.monotonic()
            took_ms, moves = _cycles(agent, sensor, cycles)
            spent_s = time.monotonic() - begin_s
            after = process.descriptors(agent.pid), process.threads(agent.pid)
            facts = agent.status()["sensors"]["imu"]
            end_mib = process.pss_mib(agent.pid)
    p50, p99, most = np.percentile(took_ms, (50, 99, 100))
    numbers: dict[str, Any] = {
        "cycles": cycles,
        "seconds": round(spent_s, 1),
        "other_terminal_behind_the_link": moves,
        "return_to_packet_p50_ms": round(float(p50), 1),
        "return_to_packet_p99_ms": round(float(p99), 1),
        "return_to_packet_max_ms": round(float(most), 1),
        "slower_than_1_s": sum(ms > BACK_S * 1e3 for ms in took_ms),
        "reopened": facts["reopened"],
        "descriptors_before": before[0],
        "descriptors_after": after[0],
        "threads_before": before[1],
        "threads_after": after[1],
        "pss_begin_mib": begin_mib,
        "pss_end_mib": end_mib,
    }
    numbers["faults"] = _faults(numbers)
    return numbers


def _cycles(agent: Dut, sensor: WitmotionEmulator, cycles: int) -> tuple[list[float], int]:
    """Milliseconds from each return to its first packet; how often another terminal was behind the link."""
    away = random.Random(0)
    took_ms: list[float] = []
    moves = 0
    decoy = ExitStack()
    with decoy:
        for cycle in range(cycles):
            reopened = _reopened(agent.status())
            terminal = sensor.link.readlink()
            sensor.unplug()
            if cycle % AT_ONCE_EVERY:
                agent.wait("the loss is noticed", lambda facts: facts["sensors"]["imu"]["state"] == "missing")
                # The kernel gives out the lowest free number: somebody else takes the sensor's, every other time.
                decoy.close()
                if cycle % 2:
                    for descriptor in pty.openpty():
                        decoy.callback(os.close, descriptor)
                time.sleep(LONG_AWAY_S if cycle % LONG_EVERY == LONG_AT else away.uniform(0, AWAY_S))
            back_s = time.monotonic()
            sensor.plug()
            moves += sensor.link.readlink() != terminal
            with suppress(CommandError):
                agent.wait("the return", partial(_is_back, reopened), GIVE_UP_S)
            took_ms.append((time.monotonic() - back_s) * 1e3)
    return took_ms, moves


def _reopened(facts: dict[str, Any]) -> int:
    count: int = facts["sensors"]["imu"]["reopened"]
    return count


def _is_back(reopened: int, facts: dict[str, Any]) -> bool:
    """``reopened``: how often it had come back before."""
    return _reopened(facts) > reopened


def _live(facts: dict[str, Any]) -> bool:
    live: bool = facts["sensors"]["imu"]["state"] == "live"
    return live


def _faults(numbers: dict[str, Any]) -> list[str]:
    faults = []
    if numbers["slower_than_1_s"]:
        faults.append(
            f"{numbers['slower_than_1_s']} returns took longer than {BACK_S:g} s, up to "
            f"{numbers['return_to_packet_max_ms']:g} ms"
        )
    if numbers["reopened"] != numbers["cycles"]:
        faults.append(f"the agent opened the sensor anew {numbers['reopened']} times in {numbers['cycles']} cycles")
    for what in ("descriptors", "threads"):
        before, after = numbers[f"{what}_before"], numbers[f"{what}_after"]
        if before != after:
            faults.append(f"the agent had {before} {what} before and {after} after")
    return faults
