"""Turn a trained graph into a self-testing bundle. Needs the extra ``build``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from drivers.packet import SensorInfo
from models import batch, bundle, network, nir_graph, statistics
from models.backends.reference import ReferenceBackend
from models.base import BadModel, Trace
from models.calibrate import Labels, Quantized, Rasters, calibrate, float_decisions, temperature
from models.compile.artefacts import artefacts
from models.float_network import FloatNetwork
from models.nir_file import with_dt
from models.quantize import Bits, Granularity
from models.registry import encoder_for, stream_encoder_for
from models.stages import stages

GOLDEN_VECTORS = 6
GOLDEN_STEPS = 48
GOLDEN_CELLS = 8_000_000
"""Inputs and neurons, times steps, times vectors: large networks have fewer steps, but at least two."""
GOLDEN_SEED = 7
CHOICES: tuple[tuple[Bits, Granularity], ...] = ((8, "layer"), (8, "neuron"), (4, "layer"), (4, "neuron"))


@dataclass(frozen=True, slots=True)
class Samples:
    """Labelled rasters: ``rasters`` (n, steps, features) and ``labels`` (n,) to calibrate with, others to judge by."""

    rasters: Rasters
    labels: Labels
    judged: Rasters
    truth: Labels


@dataclass(frozen=True, slots=True)
class Result:
    """One way to quantise and what it gives; ``accuracy`` and ``disagree`` (with the float network) are parts of 1."""

    bits: Bits
    granularity: Granularity
    accuracy: float | None = None
    disagree: float | None = None
    quantized: Quantized | None = None
    problem: str | None = None
    """Why the network cannot be quantised so."""


@dataclass(frozen=True, slots=True)
class Built:
    """A new bundle, what the float network and each choice reach, and how far the state can go."""

    bundle: bundle.Bundle
    chosen: Result
    results: tuple[Result, ...]
    accuracy_float: float | None
    reach: tuple[batch.Reach, ...]


def build(source: Path, out: Path, granularity: Granularity = "layer", bits: Bits = 8) -> bundle.Bundle:
    """Build the bundle ``out`` from the folder ``source`` with ``network.nir``, ``recipe.json`` and ``CARD.md``.

    ``statistics.npz`` goes into the bundle where the folder has it. The recipe holds the manifest's fields but format,
    files, weight_bits and granularity. The same inputs give the same bytes. Raises BadModel.
    """
    recipe = _recipe(source / "recipe.json")
    graph, card = source / "network.nir", source / "CARD.md"
    floats = nir_graph.read(graph)
    _check_inputs(floats, recipe, graph)
    quantized = calibrate(floats, granularity, bits)
    try:
        extra = {}
        if (source / statistics.FILE).exists():
            extra[statistics.FILE] = (source / statistics.FILE).read_bytes()
            statistics.load(extra[statistics.FILE], quantized.network, str(source / statistics.FILE))
        return assemble(out, recipe, graph.read_bytes(), card.read_bytes(), quantized, extra)
    except OSError as error:
        raise BadModel(f"{error.filename}: cannot be read ({error.strerror})") from error


def build_graph(
    graph: Path,
    out: Path,
    recipe: dict[str, Any],
    *,
    dt_s: float | None = None,
    choice: tuple[Bits, Granularity] = (8, "layer"),
    samples: Samples | None = None,
    card: bytes | None = None,
) -> Built:
    """Build the bundle ``out`` from one ``.nir`` file.

    ``recipe`` is as in ``build``; its temperature, if it has none, and the scales are fitted to ``samples``. Without a
    ``card`` the bundle's card says what was measured here. Raises BadModel.
    """
    floats = nir_graph.read(graph, dt_s)
    _check_inputs(floats, recipe, graph)
    judged = None if samples is None else (samples.judged, float_decisions(floats, samples.judged))
    results = tuple(_result(floats, one, samples, judged) for one in (CHOICES if samples else (choice,)))
    chosen = next(result for result in results if (result.bits, result.granularity) == choice)
    if chosen.quantized is None:
        raise BadModel(f"{graph}: {chosen.problem}")
    made = chosen.quantized
    seen = golden(made.network).rasters if samples is None else samples.rasters
    potentials, reach = batch.run(made.network, seen)
    fitted = temperature(potentials, None if samples is None else samples.labels)
    manifest = {"temperature": round(fitted, 3), **recipe}
    right = None if samples is None or judged is None else float((judged[1] == samples.truth).mean())
    text = card or _card(manifest, chosen, right, 0 if samples is None else len(samples.truth)).encode()
    content = with_dt(graph, floats.dt_s)
    return Built(assemble(out, manifest, content, text, made), chosen, results, right, reach)


def _check_inputs(floats: FloatNetwork, recipe: Mapping[str, Any], graph: Path) -> None:
    """BadModel where sensors would come to each other's layers; the rest of the recipe is judged with the manifest."""
    parts = recipe.get("inputs")
    if len(floats.inputs) > 1 and isinstance(parts, list):
        names = tuple(part.get("name") for part in parts if isinstance(part, dict))
        if names != floats.inputs:
            raise BadModel(
                f"{graph}: its Inputs are {', '.join(floats.inputs)} in the order of their names, the recipe's inputs "
                f"are {', '.join(map(str, names))}; name both alike and put the recipe's in that order"
            )


def size(graph: Path, dt_s: float | None) -> tuple[int, int]:
    """Inputs and outputs of the network in ``graph``. Raises BadModel."""
    layers = nir_graph.read(graph, dt_s).layers
    return sum(layers[i].inputs for i in stages(layers)[0]), layers[-1].neurons


def _result(
    floats: FloatNetwork,
    choice: tuple[Bits, Granularity],
    samples: Samples | None,
    judged: tuple[Rasters, Labels] | None,
) -> Result:
    bits, granularity = choice
    try:
        quantized = calibrate(floats, granularity, bits, None if samples is None else samples.rasters)
    except BadModel as error:
        return Result(bits, granularity, problem=str(error))
    if samples is None or judged is None:
        return Result(bits, granularity, quantized=quantized)
    said = batch.run(quantized.network, judged[0])[0].argmax(axis=1)
    right, other = float((said == samples.truth).mean()), float((said != judged[1]).mean())
    return Result(bits, granularity, right, other, quantized)


def manifest_of(recipe: dict[str, Any]) -> bundle.Manifest:
    """The manifest that ``recipe`` will become, with stand-ins for what is not known yet. Raises BadModel."""
    known = {"temperature": 1.0, "weight_bits": 8, "granularity": "layer", **recipe}
    try:
        return bundle.Manifest.model_validate({"format": bundle.FORMAT, "files": {}, **known})
    except ValidationError as error:
        raise BadModel(f"the recipe: {bundle.first_error(error)}") from error


def check_encoder(manifest: bundle.Manifest, features: int, info: SensorInfo, where: str) -> None:
    """Raise BadModel unless the encoder takes the sensor and gives what the network takes."""
    if manifest.state == "reset":
        encoder_for(manifest, features, info, where)
    else:
        stream_encoder_for(manifest, features, info, where)


def assemble(
    out: Path,
    recipe: dict[str, Any],
    graph: bytes,
    card: bytes,
    quantized: Quantized,
    extra: Mapping[str, bytes] | None = None,
) -> bundle.Bundle:
    """Write the bundle ``out``: the recipe, the graph, and everything that follows from the integers. Raises BadModel.

    Its golden vectors are random rasters, so that nobody's recordings are in a bundle. ``extra`` are more files, by
    name.
    """
    made = quantized.network
    files = {
        "network.nir": graph,
        "CARD.md": card,
        "network.npz": network.save(made),
        **artefacts(made),
        "golden.npz": network.write_npz(bundle.pack_golden(golden(made))),
        **(extra or {}),
    }
    how = {"weight_bits": quantized.bits, "granularity": quantized.granularity}
    return bundle.write(out, {**recipe, **how}, files)


def _card(manifest: dict[str, Any], chosen: Result, accuracy_float: float | None, count: int) -> str:
    text = f"# {manifest['name']} {manifest['version']}\n\nBuilt from a NIR graph by `axond model build`.\n\n"
    text += f"int{chosen.bits} weights, one scale per {chosen.granularity}.\n\n## Accuracy\n\n"
    if chosen.accuracy is None or accuracy_float is None:
        return text + "Not measured: no data was given.\n"
    return text + (
        f"On {count} windows that were not used to calibrate: float {accuracy_float:.4f}, "
        f"int{chosen.bits} {chosen.accuracy:.4f}.\n"
    )


def golden(net: network.Network) -> bundle.Golden:
    """Answers of the reference backend to seeded random rasters from sparse to dense, so that every layer is busy."""
    rng = np.random.default_rng(GOLDEN_SEED)
    density = np.geomspace(0.02, 0.5, GOLDEN_VECTORS)[:, None, None]
    steps = min(GOLDEN_STEPS, max(2, GOLDEN_CELLS // (GOLDEN_VECTORS * (net.features + sum(net.neurons)))))
    rasters = (rng.random((GOLDEN_VECTORS, steps, net.features)) < density).astype(np.uint8)
    backend = ReferenceBackend()
    backend.load_network(net)
    traces, potentials = [], []
    for raster in rasters:
        trace = Trace.empty(steps, net.neurons)
        potentials.append(backend.infer(raster, trace=trace).sum(axis=0))
        traces.append(trace)
    layers = range(len(net.layers))
    return bundle.Golden(
        rasters,
        tuple(np.stack([trace.spikes[i] for trace in traces]) for i in layers),
        tuple(np.stack([trace.u[i][-1] for trace in traces]) for i in layers),
        tuple(np.stack([trace.v[i][-1] for trace in traces]) for i in layers),
        np.stack(potentials),
    )


def _recipe(path: Path) -> dict[str, Any]:
    try:
        recipe = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadModel(f"{path}: not a readable recipe ({error})") from error
    if not isinstance(recipe, dict):
        raise BadModel(f"{path}: expected a JSON object")
    return recipe
