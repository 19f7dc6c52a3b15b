"""The last layer of a NIR graph with one row more, or another one. Needs the extra ``build``."""

import io
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import BadModel
from models.network import Layer
from models.nir_file import read_graph


def with_row(path: Path, last: Layer, row: npt.NDArray[np.int8], of: int | None) -> bytes:
    """The graph in ``path``, whose last layer became the integers ``last``, with ``row`` behind its rows, or in place
    of row ``of``. Raises BadModel where the graph does not end in Linear or Affine, neurons, Output."""
    import nir

    graph = read_graph(path)
    output = next((name for name, node in graph.nodes.items() if type(node).__name__ == "Output"), "")
    neurons = _before(graph, output, path)
    linear = _before(graph, neurons, path)
    node = graph.nodes[linear]
    if type(node).__name__ not in ("Linear", "Affine") or node.weight.shape != last.w_in.shape:
        raise BadModel(f"{path}: the last neurons hang on a {type(node).__name__}; teaching needs one Linear or Affine")
    weight = np.asarray(node.weight, np.float64)
    # The grid of the layer: least squares over the rows that were rounded onto it.
    unit = float((last.w_in * weight).sum() / (weight**2).sum())
    real = (row / unit).astype(node.weight.dtype)
    if of is None:
        graph.nodes[linear] = _longer(replace(node, weight=np.concatenate([node.weight, real[None]])), len(weight))
        graph.nodes[neurons] = _longer(graph.nodes[neurons], len(weight))
        graph.nodes[output] = nir.Output({"output": np.array([len(weight) + 1])})
    else:
        changed = node.weight.copy()
        changed[of] = real
        graph.nodes[linear] = replace(node, weight=changed)
    made = nir.NIRGraph(nodes=graph.nodes, edges=graph.edges, metadata=graph.metadata)
    out = io.BytesIO()
    nir.write(out, made)
    return out.getvalue()


def _before(graph: Any, name: str, path: Path) -> str:
    """The one node that leads to ``name``."""
    sources = [a for a, b in graph.edges if b == name]
    if len(sources) != 1:
        raise BadModel(f"{path}: {len(sources)} nodes lead to {name!r} at the end; teaching needs a plain chain there")
    return str(sources[0])


def _longer(node: Any, count: int) -> Any:
    """``node`` with each parameter of ``count`` neurons for one more: as the first one's, but without bias and leak."""
    changed = {}
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, np.ndarray) and value.shape == (count,):
            fresh = np.zeros(1, value.dtype) if field.name in ("bias", "v_leak") else value[:1]
            changed[field.name] = np.concatenate([value, fresh])
    return replace(node, **changed) if changed else node
