"""Finds a driver's class by its kind; the file name is the registration."""

import re
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from drivers.base import Driver, Misconfigured

ENTRY_POINT_GROUP = "axond.drivers"
"""Third parties add ``kind = "package.module:CLASS"`` under this group."""

_DECLARATION = re.compile(r"^DRIVER\b", re.MULTILINE)


def kinds() -> tuple[str, ...]:
    """Every kind that can be configured, sorted. Reads files and package metadata, imports nothing."""
    return tuple(sorted({*_own_kinds(), *_third_party()}))


def driver_class(kind: str) -> type[Driver[Any]]:
    """The class behind ``kind``: ``imu.witmotion`` is ``DRIVER`` of ``drivers/imu/witmotion.py``.

    Raises Misconfigured for an unknown kind, and for a third party's driver that cannot be imported.
    """
    if kind in _own_kinds():
        found: object = import_module(f"drivers.{kind}").DRIVER
    elif point := _third_party().get(kind):
        found = _load(point)
    else:
        raise Misconfigured(_unknown(kind))
    if not (isinstance(found, type) and issubclass(found, Driver)):
        raise Misconfigured(f"driver {kind!r} is {found!r}, expected a subclass of drivers.base.Driver")
    return found


def driver_classes() -> tuple[dict[str, type[Driver[Any]]], list[str]]:
    """Every driver by its kind, and a sentence for each that is broken: those keep no other from working."""
    found: dict[str, type[Driver[Any]]] = {}
    broken: list[str] = []
    for kind in kinds():
        try:
            found[kind] = driver_class(kind)
        except Misconfigured as error:
            broken.append(str(error))
    return found, broken


def _own_kinds() -> set[str]:
    root = Path(__file__).parent
    files = (path for path in root.rglob("*.py") if _DECLARATION.search(path.read_text(encoding="utf-8")))
    return {".".join(path.relative_to(root).with_suffix("").parts) for path in files}


def _third_party() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _load(point: EntryPoint) -> object:
    try:
        loaded: object = point.load()
    except Exception as error:
        # Other people's code raises what it likes; all of it becomes one sentence.
        package = f"package {point.dist.name}" if point.dist else "its package"
        raise Misconfigured(
            f"driver {point.name!r} ({point.value}) cannot be imported: {type(error).__name__}: {error}; "
            f"repair or remove {package}"
        ) from error
    return loaded


def _unknown(kind: str) -> str:
    known = kinds()
    close = get_close_matches(kind, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"there is no driver {kind!r}{hint} (known: {', '.join(known)})"
