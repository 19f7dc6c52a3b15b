"""``axond model info``: what is in a bundle, what a step costs, and which targets can run it."""

import argparse
import math
from typing import Any

from rich.table import Table

from agent.cli.command import add_json, cells, console, print_json
from models import capability
from models.backends.reference import ReferenceBackend
from models.base import Trace
from models.bundle import Bundle, Manifest, Part
from models.energy import dense_per_step, operations
from models.network import Layer
from models.registry import open_bundle


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle, [])
    layers = [_layer(layer) for layer in bundle.network.layers]
    targets = capability.targets(bundle.network)
    synaptic, density = _synaptic_per_step(bundle)
    if options.json:
        print_json(
            {
                **bundle.manifest.model_dump(mode="json"),
                "layers": layers,
                "synaptic_operations_per_step": synaptic,
                "input_density": density,
                "targets": targets,
                "path": str(bundle.path),
            }
        )
        return 0
    _print(bundle, layers)
    out = console()
    out.print(
        f"about {synaptic:.0f} synaptic operations a step on the golden vectors (input density {density:.2f})",
        markup=False,
    )
    table = Table("target", "can run it", "why not")
    for kind, reason in targets.items():
        table.add_row(*cells(kind, "no" if reason else "yes", reason or ""))
    out.print(table)
    return 0


def _layer(layer: Layer) -> dict[str, Any]:
    shape = [layer.neurons]
    kind = "dense"
    if layer.conv is not None:
        shape = list(layer.conv.out_shape(layer.w_in.shape))
        kind = f"conv {layer.w_in.shape[2]}x{layer.w_in.shape[3]}"
        kind += f" stride {layer.conv.stride[0]}x{layer.conv.stride[1]}" if max(layer.conv.stride) > 1 else ""
    return {
        "name": layer.name,
        "kind": "integrator" if layer.v_th is None else "CUBA-LIF" if layer.k_u.any() else "LIF",
        "synapses": kind,
        "inputs": layer.inputs,
        "neurons": layer.neurons,
        "beside": layer.beside,
        "shape": shape,
        "recurrent": layer.w_rec is not None,
        "bias": bool(layer.bias.any()),
        "weights": layer.w_in.size + (0 if layer.w_rec is None else layer.w_rec.size),
        "dense_operations_per_step": dense_per_step(layer),
    }


def _synaptic_per_step(bundle: Bundle) -> tuple[float, float]:
    """On the golden vectors, which every bundle has; and how dense they are."""
    backend = ReferenceBackend()
    backend.load(bundle)
    total = 0
    rasters = bundle.golden.rasters
    for raster in rasters:
        trace = Trace.empty(len(raster), bundle.network.neurons)
        backend.infer(raster, trace=trace)
        total += operations(bundle.network, raster, trace).synaptic
    return total / (rasters.shape[0] * rasters.shape[1]), round(float(rasters.mean()), 4)


def _print(bundle: Bundle, layers: list[dict[str, Any]]) -> None:
    manifest = bundle.manifest
    out = console()
    lines = [
        *(line for part in manifest.parts for line in _part(manifest, part)),
        *([] if manifest.late_ms is None else [f"fused   aligned by capture time, waits {manifest.late_ms:g} ms"]),
        f"labels  {', '.join(manifest.labels)}",
        f"weights int{manifest.weight_bits}, one scale per {manifest.granularity}",
    ]
    out.print(f"[bold]{bundle.id}[/bold]  {bundle.path}")
    for line in [*lines, "", *drawing(bundle.network.features, layers), ""]:
        out.print(line, markup=False)
    table = Table("layer", "synapses", "neuron", "inputs", "neurons", "weights", "dense operations a step")
    for row in layers:
        names = ("name", "synapses", "kind", "inputs", "neurons", "weights", "dense_operations_per_step")
        table.add_row(*cells(*(row[name] for name in names)))
    total = sum(row["weights"] for row in layers), sum(row["dense_operations_per_step"] for row in layers)
    table.add_row(*cells("all", "", "", "", sum(row["neurons"] for row in layers), *total))
    out.print(table)


def _part(manifest: Manifest, part: Part) -> list[str]:
    """One input as lines of text."""
    spec, window = part.input, part.window
    unit = "us" if spec.family == "event_camera" else "samples"
    lines = [
        f"input   {part.name + ': ' if manifest.inputs else ''}{spec.family}, {', '.join(spec.channels)}, "
        f"{spec.rate_hz:g} Hz",
        f"window  {window.samples} {unit}, cut by {window.mode}"
        if window
        else f"stream  state carried, a decision over {manifest.readout_steps} steps",
        f"encoder {part.encoder.get('kind')}",
    ]
    if part.rate_range is not None:
        lines.append(f"spikes  {part.rate_range[0]:g} to {part.rate_range[1]:g} in a window are plausible")
    return lines


def drawing(features: int, layers: list[dict[str, Any]]) -> list[str]:
    """The chain of layers as lines of text; no line leads to those that stand beside the one above them."""
    lines = [f"  input ({features})"]
    for row in layers:
        shape = " x ".join(map(str, row["shape"]))
        size = f"{shape} = {math.prod(row['shape'])}" if len(row["shape"]) > 1 else shape
        side = [f"beside, of {row['inputs']} more inputs"] if row["beside"] else []
        extras = [*side, row["synapses"], row["kind"], *(word for word in ("recurrent", "bias") if row[word])]
        lines += [] if row["beside"] else ["    |"]
        lines.append(f"  {row['name']} ({size})  {', '.join(extras)}")
        if row["recurrent"]:
            lines[-1] += "  <-+ its own spikes of the step before"
    return lines
