"""A check of a contract, and what became of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from models.base import ModelError


class Failed(ModelError):
    """The implementation does not keep its contract."""


class Skipped(ModelError):
    """It cannot be tried here."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of a contract."""

    name: str
    run: Callable[[], None]
    """Raises Failed or Skipped with a sentence; what else it raises is a failure too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check gave."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""


def perform(check: Check) -> Outcome:
    """Run ``check``; whatever happens in it is an outcome."""
    try:
        _run(check)
    except Skipped as error:
        return Outcome(check.name, "skipped", str(error))
    except Failed as error:
        return Outcome(check.name, "failed", str(error))
    return Outcome(check.name, "passed")


def _run(check: Check) -> None:
    try:
        check.run()
    except (Failed, Skipped):
        raise
    except Exception as error:
        # Other people's code raises what it likes; all of it becomes one sentence.
        raise Failed(f"raised {type(error).__name__}: {' '.join(str(error).split())}") from error


def demand(holds: object, otherwise: str) -> None:
    """Raise Failed with the sentence ``otherwise`` unless ``holds``."""
    if not holds:
        raise Failed(otherwise)


def failed(outcomes: Iterable[Outcome]) -> int:
    """How many."""
    return sum(outcome.outcome == "failed" for outcome in outcomes)
