"""Finds a mirror's class by its kind; the file name is the registration."""

import re
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.mirrors.base import Mirror

_DECLARATION = re.compile(r"^MIRROR\b", re.MULTILINE)


def kinds() -> tuple[str, ...]:
    """Every kind that can be configured, sorted. Reads files, imports nothing."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(sorted(file.stem for file in files if _DECLARATION.search(file.read_text(encoding="utf-8"))))


def mirror_class(kind: str) -> type[Mirror[Any]]:
    """The class behind ``kind``: ``influx`` is ``MIRROR`` of ``agent/mirrors/influx.py``. ConfigError if unknown."""
    known = kinds()
    if kind not in known:
        close = get_close_matches(kind, known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"there is no mirror {kind!r}{hint} (known: {', '.join(known)})")
    found: type[Mirror[Any]] = import_module(f"agent.mirrors.{kind}").MIRROR
    return found
