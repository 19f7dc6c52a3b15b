"""Do the sensors say something, and is it what the configuration expects? Opens them, unless an agent has them."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.config import Sensor
from agent.doctor.finding import Finding, Word
from agent.doctor.ports import configured
from agent.doctor.scene import Scene, there
from drivers.base import EndOfInput, Misconfigured, Unavailable
from drivers.fit import LEAST_FRAMES, Found, toml_value
from drivers.probe import LISTEN_S, START_S, probe

READ_S = 0.2
ENOUGH_S = LISTEN_S
"""From the first sample on."""
DEADLINE_S = 60.0
SOUND = "audio.alsa"


def look(scene: Scene) -> Iterator[Finding]:
    """A running agent has its sensors and knows how they are; else each is opened for a moment."""
    if scene.status is not None:
        yield from _told(scene.status)
        return
    if scene.mute is not None:
        return
    ports = {port.sensor: port for port in configured(scene)}
    for name, sensor in scene.settings.sensors.items():
        port = ports.get(name)
        if port is not None and not there(port.path):
            continue
        if sensor.kind == SOUND and not (scene.root / "proc/asound/pcm").exists():
            continue
        yield _sensor(name, sensor, port.path if port else None)


def _told(status: dict[str, Any]) -> Iterator[Finding]:
    for name, sensor in status["sensors"].items():
        facts: dict[str, object] = {"sensor": name, "rate_hz": sensor["rate_hz"], "state": Word(sensor["state"])}
        sentence = sensor["problem"] or "; ".join(sensor["notes"].values())
        if sentence:
            yield Finding(
                "sensors.agent_says", "problem" if sensor["problem"] else "warning",
                "the running agent says of {sensor}: {sentence}", f"sensors.{name}",
                "look at the sensor; the agent takes it up again by itself once it is there",
                ("axond sensors list",), {**facts, "sentence": sentence},
            )  # fmt: skip
        else:
            yield Finding(
                "sensors.live", "ok", "{sensor} is {state} in the running agent, {rate_hz:g} samples/s",
                f"sensors.{name}", facts=facts,
            )  # fmt: skip


def _sensor(name: str, sensor: Sensor, port: Path | None) -> Finding:
    where = f"sensors.{name}"
    facts: dict[str, object] = {"sensor": name, "kind": Word(sensor.kind), "port": str(port or "")}
    driver = sensor.make()
    rows = 0
    begin_s = time.monotonic()
    end_s = begin_s + START_S
    with closing(driver):
        try:
            driver.open()
            while (left_s := end_s - time.monotonic()) > 0 and rows < LEAST_FRAMES * 1000:
                packet = driver.read(min(READ_S, left_s))
                if packet is not None:
                    end_s = end_s if rows else min(end_s, time.monotonic() + ENOUGH_S)
                    rows += len(packet.data)
        except EndOfInput:
            rows = max(rows, LEAST_FRAMES)
        except (Unavailable, Misconfigured) as error:
            return Finding(
                "sensors.cannot_open", "problem", "{sensor} cannot be used: {sentence}", where,
                "see what is plugged in and who has it", ("axond sensors list",), {**facts, "sentence": str(error)},
            )  # fmt: skip
    counters = driver.counters
    bad = counters.bad_checksum + counters.out_of_range
    facts |= {"rows": rows, "bad": bad, "skipped": counters.resync_bytes}
    if rows >= LEAST_FRAMES and bad <= rows:
        return Finding(
            "sensors.speaks", "ok", "{sensor} gives samples that its driver {kind} understands ({rows} of them)", where,
            facts=facts,
        )  # fmt: skip
    if port is None:
        return _silent(where, facts)
    return _what_else(where, sensor, port, facts)


def _what_else(where: str, sensor: Sensor, port: Path, facts: dict[str, object]) -> Finding:
    """Nothing that the driver understands came: what did?"""
    try:
        report = probe(str(port), ask=False, say=lambda _: None)
    except Unavailable as error:
        return Finding(
            "sensors.cannot_open", "problem", "{sensor} cannot be used: {sentence}", where,
            "see what is plugged in and who has it", ("axond sensors list",), {**facts, "sentence": str(error)},
        )  # fmt: skip
    if report.found:
        return _other(where, sensor, report.found[0], facts)
    loudest = max(report.heard, key=lambda baud: report.heard[baud], default=0)
    if not report.heard.get(loudest):
        return _silent(where, facts)
    return Finding(
        "sensors.not_understood", "problem",
        "{rate:.0f} bytes/s come from {port}, but neither {kind} nor any other driver understands them at any rate",
        where, "check rate, format and wiring of the sensor (RX and TX, common ground)",
        ("axond sensors probe {port}",), {**facts, "rate": report.heard[loudest]},
    )  # fmt: skip


def _other(where: str, sensor: Sensor, found: Found, facts: dict[str, object]) -> Finding:
    lines = " and ".join(f"{key} = {toml_value(value)}" for key, value in found.settings.items())
    facts = {**facts, "found": Word(found.kind), "baud": found.settings["baud"], "lines": Word(lines)}
    facts["configured_baud"] = getattr(sensor.settings, "baud", 0)
    if found.kind == sensor.kind:
        return Finding(
            "sensors.wrong_baud", "problem",
            "bytes come from {port}, but at {configured_baud} baud they make no sense: they are {found} at {baud} baud",
            f"{where}.baud", "write {lines}, or set the sensor to {configured_baud} baud",
            ("axond sensors probe {port}",), facts,
        )  # fmt: skip
    return Finding(
        "sensors.wrong_protocol", "problem",
        "bytes come from {port}, but not those of {kind}: they are {found} at {baud} baud",
        f"{where}.driver", 'write driver = "{found}" and {lines}, or plug the right sensor in',
        ("axond sensors probe {port}",), facts,
    )  # fmt: skip


def _silent(where: str, facts: dict[str, object]) -> Finding:
    return Finding(
        "sensors.silent", "problem", "{sensor} can be opened, but nothing comes from it", where,
        "check power and wiring of the sensor (RX and TX, common ground), and whether it was told to send",
        ("axond sensors list",), facts,
    )  # fmt: skip
