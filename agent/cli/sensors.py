"""``axond sensors``: what is plugged in, what speaks on a port, and what a sensor says now."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import config
from agent.cli.command import (
    DEFAULT_CONFIG,
    Command,
    CommandError,
    add_config,
    add_json,
    cells,
    console,
    positive,
    print_json,
)
from agent.config import Config
from agent.status import StatusUnavailable, ask
from agent.tail import Meter, line
from drivers import inventory
from drivers.base import Driver, EndOfInput, Unavailable
from drivers.fit import toml, toml_value
from drivers.probe import HEARD_BYTES, LISTEN_S, Report, probe

if TYPE_CHECKING:
    from rich.live import Live

READ_TIMEOUT_S = 0.2
REFRESH_S = 0.5
LINES_S = 1.0
"""Into a pipe, and with --json."""
DASH = "-"


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = sub.add_parser("list", help="configured sensors, and what is plugged in")
    probed = sub.add_parser("probe", help="find kind and baud rate of serial sensors")
    probed.add_argument("ports", nargs="*", metavar="PORT", help="default: every port, and none is written to")
    tailed = sub.add_parser("tail", help="live values of one sensor")
    tailed.add_argument("sensor", metavar="NAME", help="name of the sensor in the configuration")
    tailed.add_argument("--seconds", type=positive, help="how long (default: until Ctrl-C)")
    tailed.add_argument("--json", action="store_true", help="one JSON document on a line for every second")
    for action, act in ((listed, _list), (probed, _probe), (tailed, _tail)):
        action.set_defaults(act=act)
    for action in (listed, probed):
        add_json(action)
    for action in (listed, tailed):
        add_config(action)


def _run(options: argparse.Namespace) -> int:
    code: int = options.act(options)
    return code


def _list(options: argparse.Namespace) -> int:
    settings = _settings(options.config)
    sensors = settings.sensors if settings else {}
    facts: dict[str, Any] = {
        "config": str(settings.path) if settings else None,
        "sensors": {
            name: {"driver": sensor.kind, "device": _device(sensor.settings)} for name, sensor in sensors.items()
        },
        "serial_ports": [asdict(port) for port in inventory.serial_ports()],
        "capture_devices": [asdict(device) for device in inventory.capture_devices()],
        "event_cameras": [asdict(camera) for camera in inventory.event_cameras()],
    }
    if options.json:
        print_json(facts)
        return 0
    rows = [{"sensor": name, **sensor} for name, sensor in facts["sensors"].items()]
    _show("configured sensors", rows, f"none: there is no {options.config}" if settings is None else "none")
    for title in ("serial_ports", "capture_devices", "event_cameras"):
        _show(title.replace("_", " "), facts[title], "none is plugged in")
    return 0


def _settings(path: Path) -> Config | None:
    """The configuration that was asked for; the one of the machine may be missing. Raises ConfigError."""
    machines = path == DEFAULT_CONFIG and not os.environ.get("AXOND_CONFIG")
    return None if machines and not path.exists() else config.load(path, whole=False)


def _device(settings: Any) -> str | None:
    """What a sensor's table says of where it is."""
    told = (getattr(settings, key, None) for key in ("port", "device", "path", "serial"))
    return next((str(value) for value in told if value), None)


def _show(title: str, rows: list[dict[str, Any]], otherwise: str) -> None:
    from rich.table import Table

    if not rows:
        print(f"{title}: {otherwise}")
        return
    table = Table(*(key.replace("_", " ") for key in rows[0]), title=title, title_justify="left")
    for row in rows:
        table.add_row(*cells(*(DASH if value in (None, "") else value for value in row.values())))
    console().print(table)


def _probe(options: argparse.Namespace) -> int:
    ports = options.ports or [port.stable or port.device for port in inventory.serial_ports()]
    if not ports:
        raise CommandError("no serial port is here: check the cable, and the drivers of its USB bridge")
    reports: list[tuple[Report, str | None]] = []
    for port in ports:
        try:
            reports.append((probe(port, ask=bool(options.ports), say=_progress), None))
        except Unavailable as error:
            if options.ports:
                raise
            reports.append((Report(port), str(error)))
    if options.json:
        print_json([_told(report, problem) for report, problem in reports])
    else:
        for report, problem in reports:
            print(_sentence(report, problem, asked=bool(options.ports)))
    return 0 if any(report.found for report, _ in reports) else 1


def _progress(sentence: str) -> None:
    print(f"axond: {sentence}", file=sys.stderr, flush=True)


def _told(report: Report, problem: str | None) -> dict[str, Any]:
    found = [{**asdict(one), "toml": toml("sensor0", report.port, one)} for one in report.found]
    return {
        "port": report.port,
        "found": found,
        "bytes_per_s": {str(baud): rate for baud, rate in report.heard.items()},
        "asked": report.asked,
        "problem": problem,
    }


def _sentence(report: Report, problem: str | None, *, asked: bool) -> str:
    port = report.port
    if problem:
        return f"{port}: {problem}"
    if report.found:
        best, *others = report.found
        told = f"{port}: {best.kind} at {best.settings['baud']} baud, {best.rate_hz:g} rows/s"
        lines = [told + (f"; {best.note}" if best.note else ""), "", toml("sensor0", port, best)]
        for other in others:
            differing = {key: value for key, value in other.settings.items() if best.settings.get(key) != value}
            choice = ", ".join(f"{key} = {toml_value(value)}" for key, value in differing.items())
            lines.append(f"# the bytes fit as well: {other.kind}{f' with {choice}' if choice else ''}")
        return "\n".join([*lines, ""])
    tried = ", ".join(str(baud) for baud in report.heard)
    loudest = max(report.heard, key=lambda baud: report.heard[baud], default=0)
    if not report.heard.get(loudest):
        more = f"; asked as {', '.join(report.asked)}, and nothing answered" if report.asked else ""
        hint = "" if asked else f"; a sensor that waits to be asked is found with: axond sensors probe {port}"
        return f"{port}: nothing arrives (listened at {tried} baud{more}); check power and wiring{hint}"
    return (
        f"{port}: {report.heard[loudest]:.0f} bytes/s arrive, but no driver understands them (listened at {tried} "
        f"baud, {LISTEN_S:g} s or {HEARD_BYTES >> 10} KiB each); sound without frames (audio.serial_pcm, raw) "
        "cannot be told from noise: 32000 bytes/s would be 16 kHz"
    )


def _tail(options: argparse.Namespace) -> int:
    settings = config.load(options.config, whole=False)
    name = options.sensor
    if name not in settings.sensors:
        there = ", ".join(settings.sensors) or "none"
        raise CommandError(f"{options.config}: no sensor {name!r}; there are {there}")
    driver = settings.sensors[name].make()
    with closing(driver):
        try:
            driver.open()
        except Unavailable as error:
            raise CommandError(_who_has_it(settings, name) or f"sensor {name}: {error}") from error
        try:
            return _follow(driver, options.seconds, as_json=options.json)
        except KeyboardInterrupt:
            return 0


def _who_has_it(settings: Config, name: str) -> str | None:
    """A sentence if the agent of this configuration runs and has the sensor."""
    try:
        sensor = ask(settings.device.state_dir)["sensors"].get(name)
    except StatusUnavailable:
        return None
    if sensor is None or sensor["state"] != "live":
        return None
    return (
        f"sensor {name} is held by the running agent, which reads {sensor['rate_hz']:g} samples/s of it: "
        f"see axond status --config {settings.path}, or stop the agent first"
    )


def _follow(driver: Driver[Any], seconds: float | None, *, as_json: bool) -> int:
    """Read and show until the time is over, or the source ends. Raises Unavailable when the sensor goes away."""
    start_ns = time.monotonic_ns()
    meter = Meter(driver.name, driver.info(), driver.counters, start_ns)
    live = not as_json and sys.stdout.isatty()
    with _screen(live) as screen:
        show = _shown(meter, screen, as_json=as_json)
        step_ns = int((REFRESH_S if live else LINES_S) * 1e9)
        end_ns = start_ns + int(seconds * 1e9) if seconds else None
        due_ns = start_ns + step_ns
        ended = False
        while not ended:
            now_ns = time.monotonic_ns()
            ended = end_ns is not None and now_ns >= end_ns
            if now_ns >= due_ns or ended:
                show(meter.take(now_ns))
                due_ns = max(due_ns + step_ns, now_ns)
                continue
            until_ns = min(due_ns, end_ns) if end_ns else due_ns
            try:
                packet = driver.read(min(READ_TIMEOUT_S, (until_ns - now_ns) / 1e9))
            except EndOfInput:
                show(meter.take(time.monotonic_ns()))
                return 0
            if packet is not None:
                meter.add(packet, time.monotonic_ns())
    return 0


def _screen(live: bool) -> AbstractContextManager["Live | None"]:
    if not live:
        return nullcontext()
    from rich.live import Live

    return Live(console=console(), auto_refresh=False)


def _shown(meter: Meter, screen: "Live | None", *, as_json: bool) -> Callable[[dict[str, Any]], None]:
    if screen is not None:
        return lambda facts: screen.update(meter.picture(facts), refresh=True)
    if as_json:
        return lambda facts: print(json.dumps(facts), flush=True)
    return lambda facts: print(line(facts), flush=True)


COMMAND = Command(
    "sensors",
    "what is plugged in, what speaks on a port, what a sensor says",
    """Look at sensors on this machine, beside the agent or before there is one.

  axond sensors list                      configured sensors, serial ports, microphones, event cameras; opens nothing
  axond sensors probe                     listen to every serial port: which driver, which baud rate?
  axond sensors probe /dev/ttyUSB0        the same for one port, and if it is silent, ask it as polled sensors are asked
  axond sensors tail imu0 --config FILE   live values, rate, jitter, losses; events as a picture, sound as a level
  axond sensors tail imu0 --json --seconds 10 | jq .rate_hz

A port is opened exclusively while it is probed; opening resets many Arduino boards. Exit codes: 0, and 1 when probe
finds nothing.
""",
    _configure,
    _run,
)
