"""The specification itself, against a scalar restatement of the published arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backends.reference import ReferenceBackend, decay
from models.base import Trace
from models.network import STATE_MAX, Layer, Network
from tests.models.networks import random_network, random_raster


@given(z=st.integers(-(1 << 40), 1 << 40), k=st.integers(0, 4096))
@settings(max_examples=300, deadline=None)
def test_decay_truncates_toward_zero(z: int, k: int) -> None:
    sign = -1 if z < 0 else 1
    expected = sign * ((abs(z) * k) >> 12)
    assert int(decay(np.array([z]), np.array([k]))[0]) == expected


def scalar_run(net: Network, raster: np.ndarray) -> tuple[list[list[list[int]]], list[int]]:
    """Python integers, one neuron at a time, straight from the equations."""
    state = [([0] * la.neurons, [0] * la.neurons, [0] * la.neurons) for la in net.layers]
    spikes: list[list[list[int]]] = [[] for _ in net.layers]
    total = [0] * net.classes

    def truncated(z: int, k: int) -> int:
        return (abs(z) * k >> 12) * (1 if z >= 0 else -1)

    for row in raster:
        x = [int(cell) for cell in row]
        for number, layer in enumerate(net.layers):
            u, v, s = state[number]
            before = list(s)
            for n in range(layer.neurons):
                current = sum(int(w) * a for w, a in zip(layer.w_in[n], x, strict=True))
                if layer.w_rec is not None:
                    current += sum(int(w) * a for w, a in zip(layer.w_rec[n], before, strict=True))
                u[n] = truncated(u[n], int(layer.k_u[n])) + ((2 * current) << 6)
                v[n] = truncated(v[n], int(layer.k_v[n])) + u[n] + int(layer.bias[n])
                v[n] = max(-((1 << 23) - 1), min((1 << 23) - 1, v[n]))
                s[n] = int(layer.v_th is not None and v[n] > int(layer.v_th[n]) << 6)
                v[n] = 0 if s[n] else v[n]
            spikes[number].append(list(s))
            x = list(s)
        last = state[-1][1] if net.layers[-1].v_th is None else state[-1][2]
        total = [a + b for a, b in zip(total, last, strict=True)]
    return spikes, total


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_scalar_equations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, 10, (8, 6), 3, recurrent=seed % 2 == 0, integrator=seed < 2, bias=seed == 3)
    raster = random_raster(rng, 30, 10, 0.3)
    backend = ReferenceBackend()
    backend.load_network(net)
    trace = Trace.empty(30, (8, 6, 3))
    potentials = backend.infer(raster, trace=trace).sum(axis=0)
    spikes, total = scalar_run(net, raster)
    for mine, expected in zip(trace.spikes, spikes, strict=True):
        assert mine.tolist() == expected
    assert potentials.tolist() == total


def test_the_potential_is_clipped_to_24_bits() -> None:
    one = np.ones(1, np.int32)
    layer = Layer("out", np.full((1, 200), 127, np.int8), None, 4096 * one, 4096 * one, 0 * one, None)
    backend = ReferenceBackend()
    backend.load_network(Network((layer,)))
    trace = Trace.empty(50, (1,))
    backend.infer(np.ones((50, 200), np.uint8), trace=trace)
    assert trace.v[0].max() == STATE_MAX
