"""``axond accelerators``: which backends can run networks here, why the others cannot, and what to install."""

import argparse
from typing import Any

from agent.cli.command import Command, add_json, cells, console, print_json
from agent.profile import choose
from models.base import BackendUnavailable, BadModel
from models.bundle import MANIFEST, Bundle, load
from models.registry import ZOO, backends, make_backend
from models.select import load_kind


def _configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    bundles = [load(manifest.parent) for manifest in sorted(ZOO.glob(f"*/{MANIFEST}"))]
    order = choose("auto").backends
    found = [look(kind, bundles) for kind in (*order, *(kind for kind in backends() if kind not in order))]
    if options.json:
        print_json(found)
        return 0
    from rich.table import Table

    table = Table("backend", "usable", "runtime", "chips", "why", expand=False)
    for row in found:
        chips = ", ".join(row["devices"]) or "-"
        table.add_row(
            *cells(row["backend"], "yes" if row["usable"] else "no", row["runtime"] or "-", chips, row["reason"])
        )
    console().print(table)
    first = next((row["backend"] for row in found if row["usable"]), "none of them")
    print(f'backend = "auto" takes the first that runs the pipeline\'s model; here it begins with {first}')
    return 0


def survey(kind: str) -> dict[str, Any]:
    """One row, from what is installed and plugged in; no chip is taken."""
    row: dict[str, Any] = {"backend": kind, "usable": False, "runtime": "", "devices": []}
    try:
        found = make_backend(kind).survey()
    except BackendUnavailable as error:
        return {**row, "reason": str(error)}
    row |= {"runtime": found.runtime, "devices": list(found.devices)}
    return {**row, "usable": not found.missing, "reason": found.missing or "it is installed"}


def look(kind: str, bundles: list[Bundle]) -> dict[str, Any]:
    """One row. Whether it is usable is tried, on golden vectors and in a process of its own."""
    row = survey(kind)
    if not row["usable"]:
        return row
    row["usable"] = False
    reasons = []
    for bundle in bundles:
        try:
            load_kind(bundle, kind, isolate=True).close()
        except BackendUnavailable as error:
            return {**row, "reason": str(error)}
        except BadModel as error:
            reasons.append(str(error))
        else:
            return {**row, "usable": True, "reason": f"answers the golden vectors of {bundle.id}"}
    return {**row, "reason": f"works, but runs no model that is shipped: {'; '.join(reasons)}"}


COMMAND = Command(
    "accelerators",
    "which chips and runtimes are here, and what the others need",
    """Try every backend on the golden vectors of a shipped model, each in a process of its own, and say which are
usable, why the others are not, and what to install.

  axond accelerators
  axond accelerators --json | jq '.[] | select(.usable).backend'
""",
    _configure,
    _run,
)
