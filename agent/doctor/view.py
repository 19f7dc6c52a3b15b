"""The doctor's report for people."""

from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from agent.doctor.finding import LEVELS, Finding

_STYLES = {"problem": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


def show(out: Console, findings: list[Finding]) -> None:
    """By topic, those with problems first; remedies as commands that can be pasted."""
    order = {topic: n for n, topic in enumerate(dict.fromkeys(finding.topic for finding in findings))}
    # Findings come worst first: the order of topics by their first finding is the order by their worst.
    for topic, group in groupby(sorted(findings, key=lambda finding: order[finding.topic]), lambda f: f.topic):
        out.print(Text(topic, style="bold"))
        for finding in group:
            _one(out, finding.told())
    counts = ", ".join(f"{n} {level}{'s' * (n != 1 and level != 'ok')}" for level, n in count(findings).items() if n)
    out.print(Text(counts, style="bold"))


def count(findings: list[Finding]) -> dict[str, int]:
    """How many there are of each level."""
    return {level: sum(finding.level == level for finding in findings) for level in LEVELS}


def _one(out: Console, told: dict[str, Any]) -> None:
    head = Text("  ")
    head.append(f"{told['level']:<8}", _STYLES[told["level"]])
    head.append(_plain(told["seen"]))
    if told["level"] == "ok":
        out.print(head)
        return
    head.append(f"  [{_plain(told['where'] + ': ' if told['where'] else '')}{told['id']}]", "dim")
    out.print(head)
    if told["remedy"]:
        out.print(Text(f"          {_plain(told['remedy'])}"))
    for command in told["commands"]:
        out.print(Text(f"            {_plain(command)}", "bold"), soft_wrap=True)


def _plain(text: str) -> str:
    """Without control characters: what a device or a file says must not steer the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
