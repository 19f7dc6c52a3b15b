"""Backends against the reference, to the bit."""

import numpy as np

from models.backends.reference import ReferenceBackend
from models.base import Backend, State, Trace
from models.network import Network


def some_state(rng: np.random.Generator, net: Network) -> State:
    """As it might be in the middle of a stream."""
    state = State.rest(net.neurons)
    for i, layer in enumerate(net.layers):
        state.u[i][:], state.v[i][:] = rng.integers(-(1 << 18), 1 << 18, (2, layer.neurons))
        if layer.v_th is not None:
            state.s[i][:] = rng.integers(0, 2, layer.neurons)
    return state


def assert_equal(backend: Backend, net: Network, raster: np.ndarray, state: State) -> Trace:
    """No output, spike or state that ``backend``, which has ``net`` loaded, gives differs; what it did."""
    reference = ReferenceBackend()
    reference.load_network(net)
    theirs = state.copy()
    mine, expected = Trace.empty(len(raster), net.neurons), Trace.empty(len(raster), net.neurons)
    outputs = backend.infer(raster, state, mine)
    assert np.array_equal(outputs, reference.infer(raster, theirs, expected))
    assert mine.differing_cells(expected) == 0
    assert all(np.array_equal(a, b) for a, b in zip(state.arrays(), theirs.arrays(), strict=True))
    return mine


def spikes_in(trace: Trace) -> int:
    """Of all layers."""
    return sum(int(spikes.sum()) for spikes in trace.spikes)
