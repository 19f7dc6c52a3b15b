"""Turn a trained graph and its recipe into a self-testing bundle. Needs the extra ``build``."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from models import bundle, network, nir_graph
from models.backends.reference import ReferenceBackend
from models.base import BadModel, Trace
from models.compile.artefacts import artefacts
from models.quantize import Granularity, quantize

GOLDEN_VECTORS = 6
GOLDEN_STEPS = 48
GOLDEN_SEED = 7


def build(source: Path, out: Path, granularity: Granularity = "layer") -> bundle.Bundle:
    """Build the bundle ``out`` from the folder ``source`` with ``network.nir``, ``recipe.json`` and ``CARD.md``.

    The recipe holds the manifest's fields but format, files, weight_bits and granularity. The same inputs give the same
    bytes. Raises BadModel.
    """
    recipe = _recipe(source / "recipe.json")
    graph = source / "network.nir"
    quantized = quantize(nir_graph.read(graph), granularity)
    card = source / "CARD.md"
    try:
        files = {"network.nir": graph.read_bytes(), "CARD.md": card.read_bytes()}
    except OSError as error:
        raise BadModel(f"{error.filename}: cannot be read ({error.strerror})") from error
    files |= {
        "network.npz": network.save(quantized),
        **artefacts(quantized),
        "golden.npz": network.write_npz(bundle.pack_golden(golden(quantized))),
    }
    return bundle.write(out, {**recipe, "weight_bits": 8, "granularity": granularity}, files)


def golden(net: network.Network) -> bundle.Golden:
    """Answers of the reference backend to seeded random rasters from sparse to dense, so that every layer is busy."""
    rng = np.random.default_rng(GOLDEN_SEED)
    density = np.geomspace(0.02, 0.5, GOLDEN_VECTORS)[:, None, None]
    rasters = (rng.random((GOLDEN_VECTORS, GOLDEN_STEPS, net.features)) < density).astype(np.uint8)
    backend = ReferenceBackend()
    backend.load_network(net)
    traces, potentials = [], []
    for raster in rasters:
        trace = Trace.empty(GOLDEN_STEPS, net.neurons)
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
