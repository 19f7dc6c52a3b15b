"""``axond model diff``: what differs between two bundles, from the manifest to the spikes."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.cli.command import add_json, print_json
from models.backends.reference import ReferenceBackend
from models.base import Trace
from models.bundle import Bundle
from models.datasets.load import load
from models.registry import open_bundle


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="compare the accuracy on these recordings, too")
    parser.add_argument("--split", default="test", help="which part of the data (default: test)")


def run(options: argparse.Namespace) -> int:
    pair = open_bundle(options.first, []), open_bundle(options.second, [])
    facts: dict[str, Any] = {
        "bundles": [f"{bundle.id} {bundle.path}" for bundle in pair],
        "manifest": _manifest(*pair),
        "layers": _layers(*pair),
        "golden_rasters": _spikes(*pair),
    }
    if options.data is not None:
        facts["accuracy"] = _accuracy(pair, options.data, options.split)
    same = not (facts["manifest"] or facts["layers"])
    if options.json:
        print_json({"same": same, **facts})
    else:
        _print(facts, same)
    return 0 if same else 1


def _manifest(first: Bundle, second: Bundle) -> dict[str, list[Any]]:
    """Field to its two values, where they differ; digests say nothing that the rest does not."""
    one, other = (bundle.manifest.model_dump(mode="json", exclude={"files"}) for bundle in (first, second))
    return {key: [one[key], other[key]] for key in one if one[key] != other[key]}


def _layers(first: Bundle, second: Bundle) -> dict[str, str]:
    one, other = first.network.layers, second.network.layers
    found = {}
    if len(one) != len(other):
        found["layers"] = f"{len(one)} and {len(other)}"
    for a, b in zip(one, other, strict=False):
        parts = [_arrays(field, getattr(a, field), getattr(b, field)) for field in _FIELDS]
        parts += [] if a.conv == b.conv else ["another convolution"]
        parts += [] if a.beside == b.beside else ["only one stands beside the layer before it"]
        changed = [part for part in parts if part]
        if changed:
            found[a.name if a.name == b.name else f"{a.name} / {b.name}"] = ", ".join(changed)
    return found


_FIELDS = ("w_in", "w_rec", "k_u", "k_v", "bias", "v_th")


def _arrays(field: str, a: npt.NDArray[Any] | None, b: npt.NDArray[Any] | None) -> str:
    if a is None or b is None:
        return "" if a is b else f"{field}: only one has it"
    if a.shape != b.shape:
        return f"{field}: {a.shape} and {b.shape}"
    changed = int(np.count_nonzero(a != b))
    return f"{field}: {changed} of {a.size} changed" if changed else ""


def _spikes(first: Bundle, second: Bundle) -> str:
    """On the golden rasters of the first."""
    if first.network.features != second.network.features or first.network.neurons != second.network.neurons:
        return "not comparable: other inputs or neurons"
    differ = cells = decided = 0
    rasters = first.golden.rasters
    backends = [ReferenceBackend(), ReferenceBackend()]
    for backend, bundle in zip(backends, (first, second), strict=True):
        backend.load(bundle)
    for raster in rasters:
        traces = [Trace.empty(len(raster), first.network.neurons) for _ in backends]
        said = [
            backend.infer(raster, trace=trace).sum(axis=0).argmax()
            for backend, trace in zip(backends, traces, strict=True)
        ]
        decided += int(said[0] != said[1])
        for a, b in zip(traces[0].spikes, traces[1].spikes, strict=True):
            differ, cells = differ + int(np.count_nonzero(a != b)), cells + a.size
    return f"{differ} of {cells} spike cells differ, {decided} of {len(rasters)} decisions"


def _accuracy(pair: tuple[Bundle, Bundle], data: Path, split: str) -> list[float]:
    from models.evaluate import evaluate

    recordings = load(data, split)
    found = []
    for bundle in pair:
        backend = ReferenceBackend()
        backend.load(bundle)
        result = evaluate(bundle, backend, recordings)
        found.append(round(result.correct / result.total, 4))
    return found


def _print(facts: dict[str, Any], same: bool) -> None:
    print(f"{facts['bundles'][0]}\n{facts['bundles'][1]}")
    if same:
        print("the same manifest and the same integers")
    for key, (one, other) in facts["manifest"].items():
        print(f"manifest {key}: {one} -> {other}")
    for name, text in facts["layers"].items():
        print(f"layer {name}: {text}")
    print(f"golden rasters: {facts['golden_rasters']}")
    if "accuracy" in facts:
        one, other = facts["accuracy"]
        print(f"accuracy: {one:.4f} -> {other:.4f}")
