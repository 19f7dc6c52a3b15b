"""``axond model eval``: accuracy of a bundle on labelled recordings."""

import argparse
from pathlib import Path
from typing import Any

from rich.table import Table

from agent.cli.command import CommandError, add_json, cells, console, print_json
from models.bundle import Bundle
from models.datasets.load import load
from models.registry import open_bundle
from models.select import load_backend

MOST_GROUPS = 20
"""Of more, as of clips that name their source, people are told nothing one by one; ``--json`` has all."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        metavar="FOLDER",
        help="of recordings as README's table of data says; for a fused model once for each input, or a folder of both",
    )
    parser.add_argument("--split", default="test", help="which part of the data (default: test)")
    parser.add_argument(
        "--without", action="append", default=[], metavar="INPUT", help="of a fused model: as if this were unplugged"
    )
    parser.add_argument("--backend", default="auto", help="auto, or one that axond accelerators names (default: auto)")


def run(options: argparse.Namespace) -> int:
    from models.evaluate import Evaluation, evaluate
    from models.evaluate_fused import FusedEvaluation, evaluate_fused, load_pairs
    from models.evaluate_stream import StreamEvaluation, evaluate_stream

    bundle = open_bundle(options.bundle, [])
    fused = bundle.manifest.inputs is not None
    if not fused and (len(options.data) > 1 or options.without):
        raise CommandError(f"{bundle.id} has one input: give --data once, and no --without")
    pairs = load_pairs(bundle.manifest, options.data, options.split, options.without) if fused else []
    recordings = [] if fused else load(options.data[0], options.split)
    kind, backend = load_backend(bundle, options.backend)
    result: Evaluation | StreamEvaluation
    try:
        if fused:
            result = evaluate_fused(bundle, backend, pairs)
        else:
            result = (evaluate if bundle.manifest.state == "reset" else evaluate_stream)(bundle, backend, recordings)
    finally:
        backend.close()
    percent = 100.0 / result.total
    facts: dict[str, Any] = {
        "bundle": bundle.id,
        "backend": kind,
        "data": ", ".join(map(str, options.data)),
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
    if isinstance(result, StreamEvaluation):
        facts |= {"per": "step", "seconds": round(result.seconds, 1)}
        if result.hits is not None:
            facts |= {"hits": result.hits, "false_alarms": result.false_alarms}
    if isinstance(result, FusedEvaluation):
        facts |= {"per": "pair", "without": options.without, "quality": round(result.quality, 4)}
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
    for name, accuracy in facts["groups"].items() if len(facts["groups"]) <= MOST_GROUPS else ():
        out.print(f"  {name}: {accuracy:.4f}", markup=False)
    table = Table("true \\ decided", *bundle.manifest.labels)
    for label, row in zip(bundle.manifest.labels, facts["confusion"], strict=True):
        table.add_row(*cells(label, *(n or "." for n in row)))
    out.print(table)
    if "quality" in facts:
        out.print(f"mean quality {facts['quality']:.3f}, {_without(facts['without'])}")
    if "hits" in facts:
        out.print(f"as a detector: {facts['hits']} hits, {facts['false_alarms']} false alarms")
    out.print(
        f"{facts['encoder_us']:.0f} us encoder, {facts['backend_us']:.0f} us backend "
        f"per {facts.get('per', 'window')} (median)"
    )


def _without(names: list[str]) -> str:
    return f"without {', '.join(names)}" if names else "with all inputs"
