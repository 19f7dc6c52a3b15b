"""Read a NIR graph (``.nir``, HDF5) into the float network. Needs the extra ``build``."""

from pathlib import Path
from typing import Any

import numpy as np

from models.base import BadModel
from models.float_network import FloatLayer, FloatNetwork, Floats

_NEURONS = ("LIF", "CubaLIF", "LI", "CubaLI")
_SYNAPSES = ("Affine", "Linear")


def read(path: Path, dt_s: float | None = None) -> FloatNetwork:
    """Read ``path``. ``dt_s`` is needed where the graph's metadata does not state ``dt``. Raises BadModel."""
    try:
        import nir
    except ImportError as error:
        raise BadModel(f"reading {path} needs the nir package: pip install 'axond[build]'") from error
    try:
        graph = nir.read(str(path))
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise BadModel(f"{path}: not a NIR graph ({error})") from error
    for key, wanted in (("reset", "zero"), ("discretisation", "euler")):
        if graph.metadata.get(key, wanted) != wanted:
            raise BadModel(f"{path}: {key} is {graph.metadata[key]!r}; axond maps {wanted!r} only")
    declared = graph.metadata.get("dt")
    dt = dt_s if dt_s is not None else (float(declared) if declared is not None else None)
    if dt is None:
        raise BadModel(f"{path}: the graph does not state its time step; say it with dt (seconds)")
    return convert(graph, dt, str(path))


def convert(graph: Any, dt_s: float, where: str) -> FloatNetwork:
    """Turn a ``nir.NIRGraph`` into a chain of layers. Raises BadModel with the node's name and the reason."""
    nodes: dict[str, Any] = graph.nodes
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in graph.edges:
        sources[target].append(source)
    for name, node in nodes.items():
        if type(node).__name__ not in (*_NEURONS, *_SYNAPSES, "Input", "Output"):
            raise BadModel(f"{where}: node {name!r} is a {type(node).__name__}, which axond cannot map yet")
    inputs = [name for name, node in nodes.items() if type(node).__name__ == "Input"]
    if len(inputs) != 1:
        raise BadModel(f"{where}: expected one Input node, found {len(inputs)}")
    drives, recurrent = _wiring(nodes, sources, where)
    layers = []
    at = inputs[0]
    used = set(recurrent.values())
    while at in drives:
        synapse, at = drives.pop(at)
        used.add(synapse)
        rec = nodes[recurrent[at]] if at in recurrent else None
        layers.append(_layer(at, nodes[at], nodes[synapse], rec, dt_s, where))
    if drives or not layers:
        raise BadModel(f"{where}: not a chain of populations from the Input ({', '.join(drives) or 'no neurons'})")
    loose = [name for name, node in nodes.items() if type(node).__name__ in _SYNAPSES and name not in used]
    if loose:
        raise BadModel(f"{where}: node {loose[0]!r} leads to no neurons; end the graph with LI or CubaLI")
    outputs = [sources[name] for name, node in nodes.items() if type(node).__name__ == "Output"]
    if outputs != [[at]]:
        raise BadModel(f"{where}: expected one Output node, behind the last population {at!r}")
    return FloatNetwork(tuple(layers), dt_s)


def _wiring(
    nodes: dict[str, Any], sources: dict[str, list[str]], where: str
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Source population -> (synapse, population it drives), and population -> its recurrent synapse."""
    drives: dict[str, tuple[str, str]] = {}
    recurrent: dict[str, str] = {}
    for name in (name for name, node in nodes.items() if type(node).__name__ in _NEURONS):
        for synapse in sources[name]:
            if type(nodes[synapse]).__name__ not in _SYNAPSES or len(sources[synapse]) != 1:
                raise BadModel(f"{where}: node {name!r} must be driven by Affine or Linear nodes of one source each")
            source = sources[synapse][0]
            if source == name and name in recurrent:
                raise BadModel(f"{where}: node {name!r} has several recurrent synapses, which axond cannot map yet")
            if source == name:
                recurrent[name] = synapse
            elif source in drives:
                raise BadModel(f"{where}: node {source!r} drives several populations, which axond cannot map yet")
            else:
                drives[source] = (synapse, name)
    return drives, recurrent


def _vector(value: Any, n: int, what: str) -> Floats:
    array = np.asarray(value, np.float64).reshape(-1)
    if array.size == 1:
        array = np.repeat(array, n)
    if array.shape != (n,) or not np.isfinite(array).all():
        raise BadModel(f"{what} must be {n} finite numbers")
    return array


def _layer(name: str, neuron: Any, synapse: Any, recurrent: Any, dt_s: float, where: str) -> FloatLayer:
    what = f"{where}: node {name!r}:"
    w_in = np.asarray(synapse.weight, np.float64)
    n = w_in.shape[0]
    bias = _vector(getattr(synapse, "bias", 0.0), n, f"{what} bias")
    w_rec = None
    if recurrent is not None:
        w_rec = np.asarray(recurrent.weight, np.float64)
        bias = bias + _vector(getattr(recurrent, "bias", 0.0), n, f"{what} recurrent bias")
    for weights in (w_in, w_rec):
        if weights is not None and not np.isfinite(weights).all():
            raise BadModel(f"{what} weights must be finite")
    kind = type(neuron).__name__
    leak = _vector(neuron.v_leak, n, f"{what} v_leak")
    r = _vector(neuron.r, n, f"{what} r")
    tau_v = _vector(neuron.tau_mem if kind.startswith("Cuba") else neuron.tau, n, f"{what} tau_mem")
    decay_i, gain_i = np.zeros(n), np.ones(n)
    if kind.startswith("Cuba"):
        tau_i = _vector(neuron.tau_syn, n, f"{what} tau_syn")
        decay_i = 1 - dt_s / tau_i
        gain_i = _vector(neuron.w_in, n, f"{what} w_in") * dt_s / tau_i
    threshold = None if kind in ("LI", "CubaLI") else _vector(neuron.v_threshold, n, f"{what} v_threshold")
    reset = (
        np.zeros(n) if threshold is None or neuron.v_reset is None else _vector(neuron.v_reset, n, f"{what} v_reset")
    )
    decay_v = 1 - dt_s / tau_v
    if (decay_i < 0).any() or (decay_v < 0).any():
        raise BadModel(f"{what} a time constant is shorter than the time step {dt_s:g} s")
    return FloatLayer(
        name=name, w_in=w_in, bias=bias, w_rec=w_rec, decay_i=decay_i, gain_i=gain_i, decay_v=decay_v,
        gain_v=r * dt_s / tau_v, leak=leak * dt_s / tau_v, threshold=threshold, reset=reset,
    )  # fmt: skip
