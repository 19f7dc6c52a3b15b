"""``axond status``: how is the running agent."""

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table

from agent import config
from agent.cli.command import Command, CommandError, add_config, add_json, cells, console, print_json
from agent.status import StatusUnavailable, ask

_COLORS = {"ok": "green", "degraded": "yellow", "failed": "red"}


def _configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    settings = config.load(options.config, whole=False)
    try:
        facts = ask(settings.device.state_dir)
    except StatusUnavailable as error:
        raise CommandError(str(error)) from error
    if options.json:
        print_json(facts)
    else:
        _print(console(), facts)
    return 1 if facts["health"]["state"] == "failed" else 0


def _print(out: Console, facts: dict[str, Any]) -> None:
    state = facts["health"]["state"]
    out.print(
        f"{facts['device']}  [{_COLORS[state]}]{state}[/]  up {facts['up_s']:.0f} s, boot {facts['boot']}",
    )
    for part, reason in facts["health"]["reasons"].items():
        out.print(f"  {part}: {reason.removeprefix(f'{part}: ')}", markup=False)
    out.print(sensor_table(facts["sensors"]))
    out.print(pipeline_table(facts["pipelines"]))
    outbox, uplink = facts["outbox"], facts["uplink"]
    out.print(
        f"outbox  {outbox['rows']} results pending, oldest {outbox['oldest_age_s']:.1f} s, {outbox['bytes'] >> 10} KiB",
    )
    line = "none configured: results stay in the outbox" if uplink is None else uplink_line(uplink)
    out.print(f"uplink  {line}", markup=False)
    for name, mirror in facts["mirrors"].items():
        out.print(f"mirror  {name}: {mirror_line(mirror)}", markup=False)
    if facts.get("clock"):
        out.print(f"clock   {clock_line(facts['clock'])}", markup=False)
    out.print(f"profile {profile_line(facts['profile'])}", markup=False)
    out.print(f"http    {http_line(facts['http'])}", markup=False)
    for worker, times in facts["restarts"].items():
        out.print(f"worker  {worker}: failed and was started again {times} times", markup=False)
    old = 0
    for key, counts in facts["ledger"].items():
        if key.startswith(facts["boot"]) or counts["pending"] or not counts["balanced"]:
            out.print(f"ledger  {key}: {ledger_line(counts)}", markup=False)
        else:
            old += counts["delivered"]
    if old:
        out.print(f"ledger  earlier boots: {old} delivered, none pending")


def sensor_table(sensors: dict[str, Any]) -> Table:
    """Sensors with rates and losses."""
    table = Table("sensor", "state", "rate", "samples", "lost", "dropped", "bad frames", "problem", expand=False)
    for name, s in sensors.items():
        problem = s["problem"] or "; ".join(s["notes"].values())
        rate = f"{s['rate_hz']:.1f} Hz" if s["rate_hz"] else "-"
        numbers = (s["samples"], s["lost"], s["dropped"], s["bad_checksum"])
        table.add_row(*cells(name, s["state"], rate, *numbers, problem))
    return table


def pipeline_table(pipelines: dict[str, Any]) -> Table:
    """Pipelines with their health, latest decision and latencies; ``quality`` is of those that fuse sensors."""
    fused = any(p["quality"] is not None or p["inputs"] for p in pipelines.values())
    heads = ["pipeline", "health", "model", "backend", "incidents", "inferences", "latest", "score", "p50", "p99"]
    table = Table(*heads, *(["quality", "of"] if fused else []), expand=False)
    for name, p in pipelines.items():
        last, latency = p["last"], p["latency"]
        table.add_row(
            *cells(
                name,
                p["health"],
                p["model"],
                p["backend"] or p["state"],
                p["incidents"],
                p["inferences"],
                last["label"] if last else "-",
                f"{last['score']:.2f}" if last else "-",
                *(f"{latency[key]:.1f} ms" if latency else "-" for key in ("p50_ms", "p99_ms")),
                *((_number(p["quality"]), _inputs(p["inputs"])) if fused else ()),
            )
        )
    return table


def _inputs(inputs: dict[str, Any]) -> str:
    return ", ".join(f"{sensor} {_number(part['quality'])}" for sensor, part in inputs.items())


def _number(quality: float | None) -> str:
    return "-" if quality is None else f"{quality:.2f}"


def clock_line(clock: dict[str, Any]) -> str:
    """Known or not, how well, and what is known instead."""
    told = [clock["source"]]
    if clock["uncertainty_ms"] is not None:
        told.append(f"right to {clock['uncertainty_ms']:g} ms")
    elif clock["at_least"]:
        told.append(f"last known {clock['last_known'][:19]}Z, now {clock['at_least'][:19]}Z or later")
    elif not clock["may_ask"]:
        told.append("nobody may ask the kernel whether it is right (adjtimex is forbidden)")
    if clock["steps"]:
        told.append(f"leapt {clock['steps']} times, last by {clock['last_step_ms'] / 1000:+.3f} s")
    return ", ".join(told)


def profile_line(profile: dict[str, Any]) -> str:
    """Which one, why, and what threads got of it."""
    scheduling = profile["scheduling"]
    told = [f"{profile['name']}: {profile['reason']}"]
    if scheduling["data_cores"]:
        told.append(f"sensors and pipelines on cores {', '.join(map(str, scheduling['data_cores']))}")
    told += [f"{kind}s with {reached}" for kind, reached in scheduling["priorities"].items()]
    return "; ".join(told)


def http_line(http: dict[str, Any]) -> str:
    """Where health and metrics can be asked for."""
    where = ", ".join(f"http://{one}" for one in http["listen"]) or "off (http.listen is empty)"
    return where + (f": {http['problem']}" if http["problem"] else "")


def uplink_line(uplink: dict[str, Any]) -> str:
    """Connected or not, and what is wrong."""
    if uplink["connected"]:
        old = "" if uplink["mqtt"] == "5" else f" with MQTT {uplink['mqtt']}"
        return f"connected to {uplink['broker']}{old}" + (f", but {uplink['error']}" if uplink["error"] else "")
    return f"not connected: {uplink['error'] or 'not yet'}"


def mirror_line(mirror: dict[str, Any]) -> str:
    """Connected or not, what it sent and what it had to drop."""
    numbers = [f"{mirror[key]} {key}" for key in ("sent", "dropped", "skipped", "waiting")]
    state = "connected" if mirror["connected"] else "not connected" if mirror["error"] else "not connected yet"
    trouble = f": {mirror['error']}" if mirror["error"] else ""
    return f"{state}{trouble}; {', '.join(numbers)}"


def ledger_line(counts: dict[str, Any]) -> str:
    """One line that a person can check by adding up."""
    sides = " + ".join(f"{counts[key]} {key}" for key in ("delivered", "pending", "evicted", "refused"))
    return f"{counts['produced']} produced = {sides}" + ("" if counts["balanced"] else "  DOES NOT BALANCE")


COMMAND = Command(
    "status",
    "how is the running agent",
    """Ask the agent that runs with this configuration: sensors, pipelines, outbox, uplink, ledger.

Exit codes: 0 it runs (perhaps degraded), 1 it failed or does not run.

  axond status --config axond.toml
  axond status --config axond.toml --json | jq .health
""",
    _configure,
    _run,
)
