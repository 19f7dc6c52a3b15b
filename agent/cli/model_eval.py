"""``axond model eval``: accuracy of a bundle on labelled recordings."""

import argparse
from pathlib import Path
from typing import Any

from rich.table import Table

from agent.cli.command import add_json, cells, console, print_json
from models.bundle import Bundle
from models.datasets.load import load
from models.registry import open_bundle
from models.select import load_backend


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="with manifest.csv or har.npz")
    parser.add_argument("--split", default="test", help="which part of the data (default: test)")
    parser.add_argument("--backend", default="auto", help="auto, or one that axond accelerators names (default: auto)")


def run(options: argparse.Namespace) -> int:
    from models.evaluate import evaluate

    bundle = open_bundle(options.bundle, [])
    recordings = load(options.data, options.split)
    kind, backend = load_backend(bundle, options.backend)
    try:
        result = evaluate(bundle, backend, recordings)
    finally:
        backend.close()
    percent = 100.0 / result.total
    facts: dict[str, Any] = {
        "bundle": bundle.id,
        "backend": kind,
        "data": str(options.data),
        "split": options.split,
        "total": result.total,
        "correct": result.correct,
        "accuracy": round(result.correct / result.total, 4),
        "accuracy_float": round(result.correct_float / result.total, 4),
        "difference_points": round(abs(result.correct - result.correct_float) * percent, 2),
        "disagreements": result.disagreements,
        "no_window": result.no_window,
        "groups": {name: round(good / total, 4) for name, (good, total) in result.groups.items()},
        "labels": bundle.manifest.labels,
        "confusion": result.confusion.tolist(),
        "backend_us": round(result.backend_us, 1),
        "encoder_us": round(result.encoder_us, 1),
    }
    if options.json:
        print_json(facts)
    else:
        _print_evaluation(bundle, facts)
    return 0


def _print_evaluation(bundle: Bundle, facts: dict[str, Any]) -> None:
    out = console()
    out.print(
        f"{facts['bundle']} on {facts['backend']}: [bold]{facts['correct']} of {facts['total']} right "
        f"({facts['accuracy']:.4f})[/bold]; the float network {facts['accuracy_float']:.4f}; "
        f"{facts['no_window']} without a window",
    )
    for name, accuracy in facts["groups"].items():
        out.print(f"  {name}: {accuracy:.4f}", markup=False)
    table = Table("true \\ decided", *bundle.manifest.labels)
    for label, row in zip(bundle.manifest.labels, facts["confusion"], strict=True):
        table.add_row(*cells(label, *(n or "." for n in row)))
    out.print(table)
    out.print(f"{facts['encoder_us']:.0f} us encoder, {facts['backend_us']:.0f} us backend per window (median)")
