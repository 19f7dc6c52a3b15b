"""What the doctor says: one finding a thing that was looked at."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from agent.doctor.scene import Scene

Level = Literal["problem", "warning", "note", "ok"]
LEVELS: tuple[Level, ...] = ("problem", "warning", "note", "ok")
"""Worst first. A problem keeps results from being made or delivered, a warning may; a note is worth knowing."""


class Word(str):
    """Text of axond's own, or one of a few that a kernel or a library knows. Never what a person or a device wrote:
    of all text only this, and the templates, enters a support bundle."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """``seen``, ``remedy`` and ``commands`` are templates: constants of this program, filled in with ``facts``."""

    id: str
    """``topic.what``; stable."""
    level: Level
    seen: str
    where: str = ""
    """Key path of the configuration, file, port or host."""
    remedy: str = ""
    commands: tuple[str, ...] = ()
    """Can be pasted into a shell."""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def topic(self) -> str:
        return self.id.partition(".")[0]

    def told(self) -> dict[str, Any]:
        """As ``axond doctor --json`` shows it."""
        quoted = {key: _quoted(value) for key, value in self.facts.items()}
        return {
            "id": self.id,
            "topic": self.topic,
            "level": self.level,
            "where": self.where,
            "seen": self.seen.format_map(self.facts),
            "remedy": self.remedy.format_map(self.facts),
            "commands": [command.format_map(quoted) for command in self.commands],
        }


def _quoted(value: object) -> object:
    return shlex.quote(value) if isinstance(value, str) and not isinstance(value, Word) else value


Look: TypeAlias = Callable[["Scene"], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One topic. ``look`` yields what it finds as it goes, so that a hanging step hides no earlier one."""

    topic: str
    look: Look
    deadline_s: float = 10.0
