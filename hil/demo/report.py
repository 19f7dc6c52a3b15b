"""What the demo saw: results beside the truth, counts at both ends, and the summary."""

import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from agent import wire
from agent.outbox_reader import records
from agent.outbox_store import audit
from hil.demo.plugs import Phase
from hil.demo.score import Result, Score, Truth, score_motion, score_words
from hil.demo.stage import DEVICE


@dataclass(frozen=True, slots=True)
class FusedPhase:
    """The fused pipeline while the same sensors were there."""

    gone: str
    """The sensor that was unplugged; empty for none."""
    results: int
    scored: int
    correct: int
    quality: float | None
    """Mean."""
    named: bool
    """Whether the health named that sensor."""


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a demo."""

    seconds: float
    stop_s: float
    agent_exit: int
    inputs: dict[str, str]
    scores: dict[str, Score]
    ledger: dict[str, int]
    """Sum over streams, from the outbox after the agent stopped."""
    balanced: bool
    hub_rows: int | None
    """None without a broker."""
    hub_distinct: int | None
    kept: int
    """Distinct results that are at the hub, or in the outbox, or both."""
    latency: dict[str, Any]
    sensors: dict[str, Any]
    fusion: list[FusedPhase]
    """Of ``--unplug``: what the fused pipeline gave while a sensor was gone, and while none was."""

    @property
    def lost(self) -> int:
        """Results that are neither at the hub nor in the outbox."""
        return self.ledger["produced"] - self.ledger["evicted"] - self.ledger["refused"] - self.kept

    def good(self) -> bool:
        """The agent stopped cleanly, all pipelines gave results, and nothing is missing or doubled.

        Of a fused one also while a sensor was gone, and the health named that sensor.
        """
        results = all(score.results for score in self.scores.values())
        named = all(phase.named and phase.results for phase in self.fusion)
        whole = self.balanced and self.lost == 0 and self.hub_rows == self.hub_distinct
        return self.agent_exit == 0 and results and named and whole

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "seconds": round(self.seconds, 1),
            "agent_stop_s": round(self.stop_s, 2),
            "agent_exit": self.agent_exit,
            "inputs": self.inputs,
            "pipelines": {name: {**asdict(score), "accuracy": score.accuracy} for name, score in self.scores.items()},
            "produced": self.ledger["produced"],
            "hub_rows": self.hub_rows,
            "lost": self.lost,
            "duplicates": None if self.hub_rows is None else self.hub_rows - (self.hub_distinct or 0),
            "ledger": self.ledger,
            "ledger_balanced": self.balanced,
            "latency": self.latency,
            "sensors": self.sensors,
            "fusion": [asdict(phase) for phase in self.fusion],
            "ok": self.good(),
        }


class Watcher:
    """Follows a running demo."""

    def __init__(self, folder: Path, hub_db: Path | None, inputs: dict[str, str], truths: dict[str, Truth]) -> None:
        """``inputs``: where they come from, for people; ``truths``: of each pipeline."""
        self.facts: dict[str, Any] = {}
        """The agent's last status."""
        self.hub_rows: int | None = None
        self.truths = truths
        self.complaints: dict[str, int] = {}
        """What the health said of the fused pipeline, and when first."""
        self._inputs = inputs
        self._folder = folder
        self._hub_db = hub_db
        self._since_ns = time.monotonic_ns()

    def update(self, facts: dict[str, Any] | None) -> None:
        """Take a new status of the agent (None: it did not answer)."""
        if facts is not None:
            self.facts = facts
            problem = facts["pipelines"].get("fused", {}).get("problem")
            if problem:
                self.complaints.setdefault(problem, time.monotonic_ns())
        if self._hub_db is not None:
            from agent.hub.reader import HubReader

            with suppress(FileNotFoundError), closing(HubReader.open_for_reading(self._hub_db)) as store:
                self.hub_rows = sum(line.stored for line in store.ledger(DEVICE))

    def true_label(self, pipeline: str) -> str | None:
        """What the last inference of a pipeline should have been."""
        last = self.facts["pipelines"][pipeline]["last"] if self.facts else None
        truth = self.truths.get(pipeline)
        if last is None or truth is None:
            return None
        return truth.label(Result(pipeline, last["start_ns"], last["stop_ns"], last["label"], last["score"]))

    def report(self, seconds: float, stop_s: float, agent_exit: int, phases: list[Phase]) -> Report:
        """Sum up, after the agent has stopped; ``phases``: when which sensor was unplugged."""
        outbox = self._folder / "state" / "outbox.db"
        counts = list(audit(outbox).values()) if outbox.exists() else []
        names = ("produced", "delivered", "pending", "evicted", "refused")
        batches = [wire.decode(r.payload) for r in records(outbox)] if outbox.exists() else []
        waiting = [{"boot": b.boot, "stream": b.stream, **row} for b in batches for row in b.rows]
        rows = waiting if self._hub_db is None else stored_rows(self._hub_db)
        results = [_result(row) for row in rows]
        until_ns = time.monotonic_ns() - int(stop_s * 1e9)
        scores = {}
        for name, truth in self.truths.items():
            mine = [r for r in results if r.stream == name]
            if name == "activity":
                scores[name] = score_motion(mine, truth)
            else:
                scores[name] = score_words(mine, truth, self._since_ns, until_ns)
        fused = [r for r in results if r.stream == "fused"]
        keys = {(row["boot"], row["stream"], row["seq"]) for row in rows}
        kept = keys | {(row["boot"], row["stream"], row["seq"]) for row in waiting}
        return Report(
            seconds=seconds,
            stop_s=stop_s,
            agent_exit=agent_exit,
            inputs=self._inputs,
            scores=scores,
            ledger={name: sum(getattr(c, name) for c in counts) for name in names},
            balanced=all(c.balanced() for c in counts),
            hub_rows=None if self._hub_db is None else len(rows),
            hub_distinct=None if self._hub_db is None else len(keys),
            kept=len(kept),
            latency={name: p["latency"] for name, p in self.facts.get("pipelines", {}).items()},
            sensors=self.facts.get("sensors", {}),
            fusion=[self._fused_phase(gone, fused, phases) for gone in dict.fromkeys(p.gone for p in phases)],
        )

    def _fused_phase(self, gone: str, results: list[Result], phases: list[Phase]) -> FusedPhase:
        """Of the windows that lie in a phase without ``gone`` as a whole."""
        spans = [(phase.start_ns, phase.stop_ns) for phase in phases if phase.gone == gone]
        mine = [r for r in results if any(first <= r.start_ns and r.stop_ns <= stop for first, stop in spans)]
        labels = [(r.label, self.truths["fused"].label(r)) for r in mine]
        quality = [r.quality for r in mine if r.quality is not None]
        named = not gone or any(f"{gone}: missing" in problem for problem in self.complaints)
        right = sum(said == true for said, true in labels if true is not None)
        mean = round(sum(quality) / len(quality), 3) if quality else None
        return FusedPhase(gone, len(mine), sum(true is not None for _, true in labels), right, mean, named)


def stored_rows(hub_db: Path) -> list[dict[str, Any]]:
    """Everything that the hub has of the demo's device, with ``boot`` and ``stream``; nothing if it never began."""
    from agent.hub.reader import HubReader

    try:
        store = HubReader.open_for_reading(hub_db)
    except FileNotFoundError:
        return []
    with closing(store):
        return [
            {"stream": line.stream, **row}
            for line in store.ledger(DEVICE)
            for row in store.results(DEVICE, line.stream, line.stored + 1, boot=line.boot)
        ]


def _result(row: dict[str, Any]) -> Result:
    """A stored row, back on this machine's CLOCK_MONOTONIC."""
    offset_us = wire.SystemClock().offset_us()
    start_ns = (int(row["t_us"]) - offset_us) * 1000
    stop_ns = start_ns + int(row["dur_us"]) * 1000
    return Result(row["stream"], start_ns, stop_ns, str(row["label"]), float(row["score"]), row.get("quality"))


def print_summary(console: Console, report: Report) -> None:
    """For people."""
    console.rule("axond demo")
    for name, score in report.scores.items():
        line = f"{name:9s} {score.results} results"
        if score.accuracy is not None:
            line += f", {score.accuracy:.2f} right ({score.correct} of {score.scored})"
        for number, what in ((score.missed, "missed"), (score.spurious, "without a word"), (score.ambiguous, "mixed")):
            line += f", {number} {what}" if number else ""
        latency = report.latency.get(name)
        if latency:
            line += f"; p50 {latency['p50_ms']:.1f} ms, p99 {latency['p99_ms']:.1f} ms from capture to disk"
        console.print(line)
    for phase in report.fusion:
        seen = f"{phase.correct} of {phase.scored} right, mean quality {phase.quality}"
        which = f"without {phase.gone}" if phase.gone else "with all sensors"
        named = "" if not phase.gone else "; health names it" if phase.named else "; [red]health does not name it[/]"
        console.print(f"fused     {which}: {phase.results} results, {seen}{named}")
    sides = " + ".join(f"{report.ledger[k]} {k}" for k in ("delivered", "pending", "evicted", "refused"))
    verdict = "[green]balances[/]" if report.balanced else "[red]DOES NOT BALANCE[/]"
    console.print(f"ledger    {report.ledger['produced']} produced = {sides}: {verdict}")
    if report.hub_rows is None:
        console.print("hub       none (no broker): the results are in the outbox")
    else:
        doubled = report.hub_rows - (report.hub_distinct or 0)
        console.print(f"hub       {report.hub_rows} stored, {report.lost} lost, {doubled} twice")
    console.print(f"stop      {report.stop_s:.1f} s, exit code {report.agent_exit}")
