"""What the demo saw: results beside the truth, counts at both ends, and the summary."""

import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from agent import wire
from agent.hub.store import HubStore
from agent.outbox_reader import records
from agent.outbox_store import audit
from hil.demo.score import Result, Score, Truth, score_motion, score_words
from hil.demo.stage import DEVICE
from hil.demo.stimuli import Stimulus


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

    @property
    def lost(self) -> int:
        """Results that are neither at the hub nor in the outbox."""
        return self.ledger["produced"] - self.ledger["evicted"] - self.ledger["refused"] - self.kept

    def good(self) -> bool:
        """The agent stopped cleanly, both pipelines gave results, and nothing is missing or doubled."""
        results = all(score.results for score in self.scores.values())
        return (
            self.agent_exit == 0 and results and self.balanced and self.lost == 0 and self.hub_rows == self.hub_distinct
        )

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
            "ok": self.good(),
        }


class Watcher:
    """Follows a running demo."""

    def __init__(
        self, folder: Path, hub_db: Path | None, words: Stimulus, motion: Stimulus, motion_start_ns: int
    ) -> None:
        self.facts: dict[str, Any] = {}
        """The agent's last status."""
        self.hub_rows: int | None = None
        self.truths: dict[str, Truth] = {"activity": Truth(motion, motion_start_ns)}
        self._inputs = {"speech": words.source, "motion": motion.source}
        self._folder = folder
        self._hub_db = hub_db
        self._words = words
        self._since_ns = 0

    def update(self, facts: dict[str, Any] | None) -> None:
        """Take a new status of the agent (None: it did not answer)."""
        if facts is not None:
            self.facts = facts
            since_ns = facts["sensors"]["mic0"]["since_ns"]
            if since_ns and "digits" not in self.truths:
                self._since_ns = since_ns
                self.truths["digits"] = Truth(self._words, since_ns)
        if self._hub_db is not None:
            with suppress(FileNotFoundError), closing(HubStore.open_for_reading(self._hub_db)) as store:
                self.hub_rows = sum(line.stored for line in store.ledger(DEVICE))

    def true_label(self, pipeline: str) -> str | None:
        """What the last inference of a pipeline should have been."""
        last = self.facts["pipelines"][pipeline]["last"] if self.facts else None
        truth = self.truths.get(pipeline)
        if last is None or truth is None:
            return None
        return truth.label(Result(pipeline, last["start_ns"], last["stop_ns"], last["label"], last["score"]))

    def report(self, seconds: float, stop_s: float, agent_exit: int) -> Report:
        """Sum up, after the agent has stopped."""
        outbox = self._folder / "state" / "outbox.db"
        counts = list(audit(outbox).values()) if outbox.exists() else []
        names = ("produced", "delivered", "pending", "evicted", "refused")
        batches = [wire.decode(r.payload) for r in records(outbox)] if outbox.exists() else []
        waiting = [{"boot": b.boot, "stream": b.stream, **row} for b in batches for row in b.rows]
        rows = waiting if self._hub_db is None else stored_rows(self._hub_db)
        results = [_result(row) for row in rows]
        until_ns = time.monotonic_ns() - int(stop_s * 1e9)
        words = [r for r in results if r.stream == "digits"]
        truth = self.truths.get("digits")
        scores = {
            "digits": score_words(words, truth, self._since_ns, until_ns) if truth else Score(len(words), 0, 0, 0),
            "activity": score_motion([r for r in results if r.stream == "activity"], self.truths["activity"]),
        }
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
        )


def stored_rows(hub_db: Path) -> list[dict[str, Any]]:
    """Everything that the hub has of the demo's device, with ``boot`` and ``stream``; nothing if it never began."""
    try:
        store = HubStore.open_for_reading(hub_db)
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
    return Result(row["stream"], start_ns, start_ns + int(row["dur_us"]) * 1000, str(row["label"]), float(row["score"]))


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
    sides = " + ".join(f"{report.ledger[k]} {k}" for k in ("delivered", "pending", "evicted", "refused"))
    verdict = "[green]balances[/]" if report.balanced else "[red]DOES NOT BALANCE[/]"
    console.print(f"ledger    {report.ledger['produced']} produced = {sides}: {verdict}")
    if report.hub_rows is None:
        console.print("hub       none (no broker): the results are in the outbox")
    else:
        doubled = report.hub_rows - (report.hub_distinct or 0)
        console.print(f"hub       {report.hub_rows} stored, {report.lost} lost, {doubled} twice")
    console.print(f"stop      {report.stop_s:.1f} s, exit code {report.agent_exit}")
