"""Read a NIR graph (``.nir``, HDF5) into the float network. Needs the extra ``build``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.base import BadModel
from models.float_network import FloatLayer, FloatNetwork
from models.linear import MAX_CELLS, Synapse, beside
from models.nir_file import read_graph
from models.nir_nodes import LINEAR, NEURONS, Shape, identity, population, through, whole_shape

_DOORS = ["Input", "Output"]


def read(path: Path, dt_s: float | None = None) -> FloatNetwork:
    """Read ``path``. ``dt_s`` is needed where the graph's metadata does not state ``dt``, and wins where it does.

    Raises BadModel.
    """
    graph = read_graph(path)
    for key, wanted in (("reset", "zero"), ("discretisation", "euler")):
        if graph.metadata.get(key, wanted) != wanted:
            raise BadModel(f"{path}: {key} is {graph.metadata[key]!r}; axond maps {wanted!r} only")
    dt = dt_s if dt_s is not None else _declared_dt(graph.metadata.get("dt"), path)
    return convert(graph, dt, str(path))


def _declared_dt(declared: Any, path: Path) -> float:
    if declared is None:
        raise BadModel(f"{path}: the graph does not state its time step; say it with --dt (seconds)")
    try:
        return float(np.asarray(declared).reshape(()))
    except (TypeError, ValueError) as error:
        raise BadModel(f"{path}: its metadata say dt = {declared!r}, expected seconds") from error


def convert(graph: Any, dt_s: float, where: str) -> FloatNetwork:
    """Turn a ``nir.NIRGraph`` into a chain of layers, or into several side by side, one from each Input, that meet.

    The features of the network are those of its Inputs, in the order of their names. Raises BadModel with the node's
    name and the reason.
    """
    if not (np.isfinite(dt_s) and dt_s > 0):
        raise BadModel(f"{where}: the time step dt is {dt_s:g} s, expected more than 0")
    nodes, edges = _flat(graph, where)
    for name, node in nodes.items():
        if type(node).__name__ not in (*NEURONS, *LINEAR, "Input", "Output"):
            raise BadModel(f"{where}: node {name!r} is a {type(node).__name__}, which axond cannot map yet")
    ends = {kind: [name for name, node in nodes.items() if type(node).__name__ == kind] for kind in ("Input", "Output")}
    if not ends["Input"] or len(ends["Output"]) != 1:
        kind = "Output" if ends["Input"] else "Input"
        raise BadModel(f"{where}: expected one {kind} node, found {len(ends[kind])}")
    wiring = _Wiring(nodes, edges, where)
    # A file does not keep the order of its nodes.
    at = [
        (name, whole_shape(nodes[name].input_type["input"], f"{where}: node {name!r} shape"))
        for name in sorted(ends["Input"])
    ]
    layers: list[FloatLayer] = []
    while any(name in wiring.forward for name, _ in at):
        at, stage = _stage(wiring, at, dt_s, {layer.name for layer in layers})
        layers += stage
    if wiring.forward or not layers:
        missing = ", ".join(target for _, target in wiring.forward.values()) or "no neurons"
        raise BadModel(f"{where}: not a chain of populations from the Input ({missing})")
    loose = [name for name, node in nodes.items() if type(node).__name__ in LINEAR and name not in wiring.used]
    if loose:
        raise BadModel(f"{where}: node {loose[0]!r} leads to no neurons; end the graph with LI or CubaLI")
    if len(at) > 1 or wiring.sources[ends["Output"][0]] != [at[0][0]]:
        raise BadModel(f"{where}: expected one Output node, behind the last population {at[-1][0]!r}")
    return FloatNetwork(tuple(layers), dt_s, tuple(sorted(ends["Input"])))


def _stage(
    wiring: "_Wiring", before: list[tuple[str, Shape]], dt_s: float, known: set[str]
) -> tuple[list[tuple[str, Shape]], list[FloatLayer]]:
    """The populations behind ``before`` (nodes and their shapes), with their shapes, and as layers side by side."""
    where = wiring.where
    heard: dict[str, list[tuple[Synapse, Shape]]] = {}
    for name, shape in before:
        if name not in wiring.forward:
            raise BadModel(
                f"{where}: node {name!r} leads nowhere while others beside it go on; paths must be equally long"
            )
        path, target = wiring.forward.pop(name)
        if target in known:
            raise BadModel(f"{where}: node {name!r} feeds back into the earlier {target!r}, which axond cannot map yet")
        if target in heard and target != next(reversed(heard)):
            raise BadModel(f"{where}: node {target!r} hears populations that are not side by side")
        synapse, out = wiring.along(path, shape)
        whole = wiring.spent(identity(shape, f"{where}: node {target!r}") if synapse is None else synapse)
        heard.setdefault(target, []).append((whole, out))
    after: list[tuple[str, Shape]] = []
    layers: list[FloatLayer] = []
    for target, parts in heard.items():
        if len(parts) > 1:  # one matrix then, whatever the parts were
            wiring.spend(sum(part.neurons * part.inputs for part, _ in parts))
        synapse = beside([part for part, _ in parts], f"{where}: node {target!r}")
        shape = parts[0][1] if len(parts) == 1 else (synapse.neurons,)
        recurrent = None
        if target in wiring.recurrent:
            recurrent, back = wiring.along(wiring.recurrent[target], shape)
            recurrent = wiring.spent(identity(shape, f"{where}: node {target!r}") if recurrent is None else recurrent)
            if recurrent.neurons != synapse.neurons:
                raise BadModel(f"{where}: node {target!r} has {synapse.neurons} neurons, its recurrence gives {back}")
        made = population(target, wiring.nodes[target], synapse, recurrent, dt_s, f"{where}: node {target!r}:")
        layers.append(replace(made, beside=bool(layers)))
        after.append((target, shape))
    return after, layers


def _flat(graph: Any, where: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nodes and edges with the graphs inside the graph unfolded; their nodes are called ``graph.node``."""
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    ends: dict[str, tuple[list[str], list[str]]] = {}
    for name, node in graph.nodes.items():
        if type(node).__name__ != "NIRGraph":
            nodes[name] = node
            continue
        inner, inner_edges = _flat(node, f"{where}: graph {name!r}")
        doors = {n for n, part in inner.items() if type(part).__name__ in ("Input", "Output")}
        if [type(inner[n]).__name__ for n in sorted(doors, key=lambda n: type(inner[n]).__name__)] != _DOORS:
            raise BadModel(f"{where}: graph {name!r} inside the graph must have one Input and one Output")
        if any(a in doors and b in doors for a, b in inner_edges):
            raise BadModel(f"{where}: graph {name!r} inside the graph leads past its nodes, which axond cannot map yet")
        parts = {f"{name}.{n}": part for n, part in inner.items() if n not in doors}
        clash = sorted(parts.keys() & (nodes.keys() | graph.nodes.keys()))
        if clash:
            raise BadModel(f"{where}: two nodes are called {clash[0]!r}")
        nodes |= parts
        edges += [(f"{name}.{a}", f"{name}.{b}") for a, b in inner_edges if a not in doors and b not in doors]
        ends[name] = (
            [f"{name}.{b}" for a, b in inner_edges if a in doors],
            [f"{name}.{a}" for a, b in inner_edges if b in doors],
        )
    for a, b in graph.edges:
        if a not in graph.nodes or b not in graph.nodes:
            raise BadModel(f"{where}: an edge leads from {a!r} to {b!r}, and one of them is not there")
        edges += [(x, y) for x in (ends[a][1] if a in ends else [a]) for y in (ends[b][0] if b in ends else [b])]
    return nodes, list(dict.fromkeys(edges))


class _Wiring:
    """Which population drives which, and through what."""

    def __init__(self, nodes: Mapping[str, Any], edges: list[tuple[str, str]], where: str) -> None:
        self.nodes = nodes
        self.where = where
        self.sources: dict[str, list[str]] = {name: [] for name in nodes}
        for source, target in edges:
            self.sources[target].append(source)
        self.forward: dict[str, tuple[list[str], str]] = {}
        """Population (or the Input) -> the linear nodes behind it, and the population that they drive."""
        self.recurrent: dict[str, list[str]] = {}
        """Population -> the linear nodes from it back to itself."""
        self.used: set[str] = set()
        self._cells = 0
        for name, node in nodes.items():
            if type(node).__name__ in NEURONS:
                for source in self.sources[name]:
                    self._add(name, source)

    def _add(self, name: str, source: str) -> None:
        path: list[str] = []
        while type(self.nodes[source]).__name__ in LINEAR:
            if source in path:
                raise BadModel(f"{self.where}: node {source!r} is in a loop without neurons, which would never settle")
            path.insert(0, source)
            if len(self.sources[source]) != 1:
                raise BadModel(f"{self.where}: node {source!r} has {len(self.sources[source])} inputs, expected one")
            source = self.sources[source][0]
        self.used.update(path)
        if source == name:
            if name in self.recurrent:
                raise BadModel(
                    f"{self.where}: node {name!r} has several recurrent synapses, which axond cannot map yet"
                )
            self.recurrent[name] = path
        elif source in self.forward:
            raise BadModel(f"{self.where}: node {source!r} drives several populations, which axond cannot map yet")
        else:
            self.forward[source] = (path, name)

    def spent(self, synapse: Synapse) -> Synapse:
        """``synapse``, counted."""
        self.spend(synapse.w.size)
        return synapse

    def spend(self, cells: int) -> None:
        """A small file can ask for many large synapses. Raises BadModel when there are too many."""
        self._cells += cells
        if self._cells > MAX_CELLS:
            raise BadModel(f"{self.where}: its synapses have more than {MAX_CELLS} weights in all")

    def along(self, path: list[str], shape: Shape) -> tuple[Synapse | None, Shape]:
        """The linear nodes of ``path`` as one synapse, for an input of ``shape``; None where there are none."""
        synapse: Synapse | None = None
        for name in path:
            synapse, shape = through(self.nodes[name], synapse, shape, f"{self.where}: node {name!r}:")
        return synapse, shape
