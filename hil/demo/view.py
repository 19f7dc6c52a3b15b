"""The demo's live picture."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agent.cli.status import ledger_line, sensor_table, uplink_line
from hil.demo.report import Watcher


def picture(watcher: Watcher, elapsed_s: float) -> RenderableType:
    """Sensors, latest labels beside the truth, latencies, outbox, uplink, hub and ledger."""
    facts = watcher.facts
    if not facts:
        return Panel("waiting for the agent")
    heads = ("pipeline", "model on backend", "heard / seen", "truth", "score", "quality", "inferences", "p50", "p99")
    table = Table(*heads)
    for name, p in facts["pipelines"].items():
        last, latency, truth = p["last"], p["latency"], watcher.true_label(name)
        right = last is not None and last["label"] == truth
        table.add_row(
            name,
            f"{p['model']} on {p['backend']}",
            Text(last["label"], "bold green" if right else "bold yellow") if last else "-",
            truth or "-",
            f"{last['score']:.2f}" if last else "-",
            "" if p["quality"] is None else f"{p['quality']:.2f}",
            str(p["inferences"]),
            *(f"{latency[key]:.1f} ms" if latency else "-" for key in ("p50_ms", "p99_ms")),
        )
    outbox, uplink = facts["outbox"], facts["uplink"]
    lines = [
        f"outbox  {outbox['rows']} pending, {outbox['bytes'] / 1024:.0f} KiB",
        "uplink  " + ("none" if uplink is None else uplink_line(uplink)),
        f"hub     {'none' if watcher.hub_rows is None else f'{watcher.hub_rows} results stored'}",
        *(f"ledger  {key.partition('/')[2]}: {ledger_line(counts)}" for key, counts in facts["ledger"].items()),
        *(f"{part}: {reason}" for part, reason in facts["health"]["reasons"].items()),
    ]
    title = f"axond demo  {elapsed_s:.0f} s  {facts['health']['state']}  (Ctrl-C ends it)"
    return Panel(Group(sensor_table(facts["sensors"]), table, Text("\n".join(lines))), title=title)
