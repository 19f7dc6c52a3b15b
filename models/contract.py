"""``python -m models.contract KIND``: does a backend or an encoder keep its contract?

``KIND`` is what stands in a configuration or a manifest (ours, or a third party's from the entry points), or a Python
module with ``BACKEND``, ``ENCODER`` or ``STREAM``. Needs the extra ``build``, as the trials make bundles.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from models import contract_backend, contract_encoder
from models.base import BackendUnavailable, BadModel, ModelError
from models.contract_check import Check, Outcome, failed, perform
from models.registry import backends, encoders, find_backend, find_encoder

GROUPS = {"BACKEND": "backend", "ENCODER": "encoder of windows", "STREAM": "encoder of streams"}


class UnknownSubjectError(ModelError):
    """There is nothing of that name."""


def subjects(name: str) -> Iterator[tuple[str, Any, str | None]]:
    """What ``name`` stands for: attribute, implementation, and the kind under which axond finds it.

    Raises UnknownSubjectError, and BackendUnavailable or BadModel for one that cannot be imported.
    """
    if name in backends():
        yield "BACKEND", find_backend(name), name
    for attribute in ("ENCODER", "STREAM"):
        if name in encoders(attribute):
            yield attribute, find_encoder(name, attribute), name
    if name in {*backends(), *encoders("ENCODER"), *encoders("STREAM")}:
        return
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise UnknownSubjectError(
            f"{name!r} is no kind of backend or encoder, and cannot be imported as a module: "
            f"{type(error).__name__}: {error}"
        ) from error
    found = [attribute for attribute in GROUPS if hasattr(module, attribute)]
    if not found:
        raise UnknownSubjectError(f"module {name} has none of {', '.join(GROUPS)}")
    for attribute in found:
        yield attribute, getattr(module, attribute), None


def checks(attribute: str, found: Any, kind: str | None, settings: Mapping[str, Any]) -> list[Check]:
    """The suite of one implementation."""
    if attribute == "BACKEND":
        return contract_backend.checks(found, kind)
    suite = contract_encoder.window_checks if attribute == "ENCODER" else contract_encoder.stream_checks
    return suite(found, settings)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.contract", description=__doc__)
    parser.add_argument("name", metavar="KIND", help="a kind of backend or encoder, or a Python module")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="of an encoder that needs some")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        settings = json.loads(options.settings) or contract_encoder.SETTINGS.get(options.name, {})
        outcomes = list(_try(options.name, settings, quiet=options.json))
    except ValueError as error:
        parser.error(f"--settings is no JSON object ({error})")
    except (UnknownSubjectError, BackendUnavailable, BadModel) as error:
        print(f"axond: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([{"subject": what, **asdict(outcome)} for what, outcome in outcomes], indent=1))
    wrong, total = failed(outcome for _, outcome in outcomes), len(outcomes)
    if not options.json:
        skipped = sum(outcome.outcome == "skipped" for _, outcome in outcomes)
        print(f"{total - wrong - skipped} passed, {wrong} failed, {skipped} skipped")
    return 1 if wrong else 0


def _try(name: str, settings: Mapping[str, Any], *, quiet: bool) -> Iterator[tuple[str, Outcome]]:
    for attribute, found, kind in subjects(name):
        what = f"{GROUPS[attribute]} {name}"
        if not quiet:
            print(what)
        for check in checks(attribute, found, kind, settings):
            outcome = perform(check)
            if not quiet:
                reason = f": {outcome.reason}" if outcome.reason else ""
                print(f"  {outcome.outcome}  {outcome.name}{reason}", flush=True)
            yield what, outcome


if __name__ == "__main__":
    sys.exit(main())
