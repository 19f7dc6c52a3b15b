"""Five sensors at full speed under a real ``axond run``: what is lost, how times jitter, what the agent costs."""

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from serial import Serial

from agent.cli.command import CommandError
from hil.bench import process
from hil.bench.dut import Dut, running
from hil.bench.five import SENSORS, Sensor

LOOK_S = 0.25
"""The agent is asked so often; its answers are among its costs."""
DRAIN_S = 3.0
BARE_SHARE = 0.1
"""Of the time, for the same bytes read without a driver."""
BARE_READ_BYTES = 4096
COUNTERS = ("lost", "dropped", "bad_checksum", "resync_bytes", "out_of_range", "overruns", "reopened")
"""Of the status. All of them are 0 where nothing went wrong."""


class Player:
    """A sensor in a process of its own."""

    def __init__(self, name: str, child: subprocess.Popen[str]) -> None:
        self._name = name
        self._child = child

    def tell(self, word: str) -> None:
        """``go`` or ``hush``."""
        if self._child.stdin is None:
            raise CommandError(f"the emulator of {self._name} does not listen")
        self._child.stdin.write(f"{word}\n")
        self._child.stdin.flush()

    def hear(self) -> str:
        """The next line that it says. Raises CommandError when it ended."""
        line = self._child.stdout.readline() if self._child.stdout else ""
        if not line:
            raise CommandError(f"the emulator of {self._name} ended")
        return line.strip()


def measure(seconds: float) -> dict[str, Any]:
    """``faults`` has a sentence for everything that must not happen. Raises CommandError when it cannot be measured."""
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        players = {name: stack.enter_context(_played(name, folder / name)) for name in SENSORS}
        tables = {
            name: {"driver": sensor.case.kind, "port": str(folder / name), **sensor.case.settings}
            for name, sensor in SENSORS.items()
        }
        with running(folder, tables) as agent:
            _begin(agent, players)
            numbers, points = _observe(agent, seconds)
            made = {name: _hushed(player) for name, player in players.items()}
            facts = _drained(agent, made)
        numbers["bare_read_cpu_share_of_a_core"] = _bare(folder, players, max(1.0, seconds * BARE_SHARE))
    for name, sensor in SENSORS.items():
        own = _judge(sensor, made[name], facts["sensors"][name], np.array(points[name], np.int64))
        numbers |= {f"{name}.{key}": value for key, value in own.items()}
    numbers["faults"] = _faults(numbers)
    return numbers


@contextmanager
def _played(name: str, link: Path) -> Iterator[Player]:
    command = [sys.executable, "-m", "hil.bench.five", name, str(link)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            player = Player(name, child)
            player.hear()
            yield player
        finally:
            child.kill()


def _begin(agent: Dut, players: Mapping[str, Player]) -> None:
    """All sensors begin when the agent has opened and emptied their ports: it counts a silence by then."""
    silent = [name for name, sensor in SENSORS.items() if not sensor.commanded]
    agent.wait("all ports open", lambda facts: all(facts["sensors"][name]["silent_s"] > 0 for name in silent))
    for name in silent:
        players[name].tell("go")
    agent.wait("packets of all", lambda facts: all(s["state"] == "live" for s in facts["sensors"].values()))


def _observe(agent: Dut, seconds: float) -> tuple[dict[str, Any], dict[str, list[tuple[int, int]]]]:
    """What the agent costs without its start; samples and capture times of each sensor again and again."""
    points: dict[str, list[tuple[int, int]]] = {name: [] for name in SENSORS}
    begin_mib = process.pss_mib(agent.pid)
    begin_switches, begin_waited_s = process.context_switches(agent.pid), process.waited_s(agent.pid)
    begin_cpu_s, begin_s = process.cpu_s(agent.pid), time.monotonic()
    while (spent_s := time.monotonic() - begin_s) < seconds:
        for name, facts in agent.status()["sensors"].items():
            points[name].append((facts["samples"], facts["end_ns"]))
        time.sleep(min(LOOK_S, seconds - spent_s))
    spent_s = time.monotonic() - begin_s
    numbers = {
        "seconds": round(spent_s, 1),
        "cpu_share_of_a_core": round((process.cpu_s(agent.pid) - begin_cpu_s) / spent_s, 4),
        "waited_for_a_core_share": round((process.waited_s(agent.pid) - begin_waited_s) / spent_s, 4),
        "context_switches_per_s": round((process.context_switches(agent.pid) - begin_switches) / spent_s, 1),
        "pss_begin_mib": begin_mib,
        "pss_end_mib": process.pss_mib(agent.pid),
        "threads": process.threads(agent.pid),
        "descriptors": process.descriptors(agent.pid),
    }
    return numbers, points


def _hushed(player: Player) -> dict[str, int]:
    player.tell("hush")
    told: dict[str, int] = json.loads(player.hear())
    return told


def _drained(agent: Dut, made: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The status once everything that was made has come, or nothing more comes."""
    wanted = {name: told["made"] - SENSORS[name].held_samples for name, told in made.items()}
    deadline_s = time.monotonic() + DRAIN_S
    while True:
        facts = agent.status()
        if all(facts["sensors"][name]["samples"] == count for name, count in wanted.items()):
            return facts
        if time.monotonic() > deadline_s:
            return facts
        time.sleep(LOOK_S)


def _judge(sensor: Sensor, told: Mapping[str, int], facts: dict[str, Any], points: Any) -> dict[str, Any]:
    """Of one sensor. Jitter is how far capture times lie from the grid on which the sensor measured.

    Unless samples are missing: then nobody knows which ones.
    """
    off_ns = points[:, 1] - points[:, 0] * (1e9 / sensor.rate_hz)
    p50, p99, most = np.percentile(np.abs(off_ns - np.median(off_ns)), (50, 99, 100)) / 1e6
    missing = told["made"] - sensor.held_samples - facts["samples"]
    jitter = {"p50": p50, "p99": p99, "max": most}
    return {
        "made": told["made"],
        "missing": missing,
        "line_dropped_rows": told["dropped_rows"],
        **{key: facts[key] for key in COUNTERS},
        "rate_hz": facts["rate_hz"],
        **{f"jitter_{key}_ms": None if missing else round(float(ms), 3) for key, ms in jitter.items()},
    }


def _faults(numbers: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {key.replace('_', ' ')} {count}, expected 0"
        for name in SENSORS
        for key in ("missing", "line_dropped_rows", *COUNTERS)
        if (count := numbers[f"{name}.{key}"])
    ]


def _bare(folder: Path, players: Mapping[str, Player], seconds: float) -> float:
    """The baseline: all five ports in one thread, read with pyserial as soon as something is there, and thrown away."""
    with ExitStack() as stack:
        ports = []
        for name, sensor in SENSORS.items():
            players[name].tell("go")
            port = stack.enter_context(Serial(str(folder / name), sensor.case.settings["baud"], timeout=0.1))
            for command in sensor.case.start:
                port.write(command)
                port.read(BARE_READ_BYTES)
            ports.append(port)
        begin_cpu_s, begin_s = time.thread_time(), time.monotonic()
        while time.monotonic() - begin_s < seconds:
            for port in select.select(ports, [], [], LOOK_S)[0]:
                port.timeout = 0
                port.read(BARE_READ_BYTES)
        return round((time.thread_time() - begin_cpu_s) / (time.monotonic() - begin_s), 4)
