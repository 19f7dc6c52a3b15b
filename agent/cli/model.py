"""``axond model``: what is in a bundle, does it answer its golden vectors, how good is it."""

import argparse
from pathlib import Path
from typing import Any

from rich.table import Table

from agent.cli.command import Command, CommandError, add_json, cells, console, print_json
from models import datasets
from models.base import BackendUnavailable, BadModel
from models.bundle import Bundle
from models.registry import backends, open_bundle
from models.select import load_backend


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    info = sub.add_parser("info", help="what a bundle is and takes")
    verify = sub.add_parser("verify", help="digests, and the golden vectors on every backend that is here")
    evaluate = sub.add_parser("eval", help="accuracy on a folder of labelled recordings")
    build = sub.add_parser("build", help="make a bundle of network.nir, recipe.json and CARD.md")
    for action in (info, verify, evaluate):
        action.add_argument("bundle", help="a model's name (spoken-digits, activity) or a bundle's folder (with a '/')")
        add_json(action)
    evaluate.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="with manifest.csv or har.npz")
    evaluate.add_argument("--split", default="test", help="which part of the data (default: test)")
    evaluate.add_argument("--backend", default="auto", help="auto, onnx, reference (default: auto)")
    build.add_argument("source", type=Path, help="folder with network.nir, recipe.json and CARD.md")
    build.add_argument("-o", "--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    for action, run in ((info, _info), (verify, _verify), (evaluate, _evaluate), (build, _build)):
        action.set_defaults(act=run)


def _run(options: argparse.Namespace) -> int:
    code: int = options.act(options)
    return code


def _info(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle, [])
    manifest = bundle.manifest
    layers = [
        {
            "name": layer.name,
            "inputs": layer.inputs,
            "neurons": layer.neurons,
            "recurrent": layer.w_rec is not None,
            "kind": "integrator" if layer.v_th is None else "CUBA-LIF",
        }
        for layer in bundle.network.layers
    ]
    if options.json:
        print_json({**manifest.model_dump(mode="json"), "layers": layers, "path": str(bundle.path)})
        return 0
    out = console()
    spec = manifest.input
    out.print(f"[bold]{bundle.id}[/bold]  {bundle.path}")
    out.print(f"input   {spec.family}, {', '.join(spec.channels)}, {spec.rate_hz:g} Hz", markup=False)
    if manifest.window is None:
        out.print(f"stream  a decision at every time step, over {manifest.readout_steps} steps", markup=False)
    else:
        out.print(f"window  {manifest.window.samples} samples, cut by {manifest.window.mode}", markup=False)
    out.print(f"encoder {manifest.encoder.get('kind')}", markup=False)
    out.print(f"labels  {', '.join(manifest.labels)}", markup=False)
    table = Table("layer", "inputs", "neurons", "recurrent", "neuron")
    for row in layers:
        recurrent = "yes" if row["recurrent"] else "no"
        table.add_row(*cells(row["name"], row["inputs"], row["neurons"], recurrent, row["kind"]))
    out.print(table)
    return 0


def _verify(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle, [])
    answers: dict[str, str] = {}
    for kind in backends():
        try:
            load_backend(bundle, kind)[1].close()
            answers[kind] = "identical"
        except BackendUnavailable as error:
            answers[kind] = f"not here: {error}"
        except BadModel as error:
            answers[kind] = f"WRONG: {error}"
    good = not any(answer.startswith("WRONG") for answer in answers.values())
    if options.json:
        print_json({"bundle": bundle.id, "ok": good, "golden_vectors": len(bundle.golden.rasters), "backends": answers})
    else:
        print(f"{bundle.id}: digests hold, {len(bundle.golden.rasters)} golden vectors")
        for kind, answer in answers.items():
            print(f"  {kind}: {answer}")
    return 0 if good else 1


def _evaluate(options: argparse.Namespace) -> int:
    from models.evaluate import evaluate

    bundle = open_bundle(options.bundle, [])
    recordings = datasets.load(options.data, options.split)
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


def _build(options: argparse.Namespace) -> int:
    try:
        from models.build import build
    except ImportError as error:
        raise CommandError(f"building needs more packages: pip install 'axond[build]' ({error})") from error
    bundle = build(options.source, options.out)
    print(
        f"{bundle.path}: {bundle.id}, {len(bundle.network.layers)} layers, {len(bundle.golden.rasters)} golden vectors"
    )
    return 0


COMMAND = Command(
    "model",
    "look into, verify, evaluate and build models",
    """Work with bundles: a model with its encoder, labels, digests and golden vectors.

  axond model info spoken-digits
  axond model verify spoken-digits
  axond model eval spoken-digits --data ../shared/data/audio_fsdd --split test
""",
    _configure,
    _run,
)
