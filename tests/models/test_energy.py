"""Operations are counted as a chip would do them."""

import numpy as np

from models.backends.reference import ReferenceBackend
from models.base import Trace
from models.convolution import ConvShape, matrix
from models.energy import operations
from models.network import Layer, Network, check
from tests.models.networks import random_network, random_raster


def counted(network: Network, raster: np.ndarray) -> tuple[Trace, object]:
    backend = ReferenceBackend()
    backend.load_network(network)
    trace = Trace.empty(len(raster), network.neurons)
    backend.infer(raster, trace=trace)
    return trace, operations(network, raster, trace)


def test_every_spike_counts_the_weights_that_it_reaches() -> None:
    net = random_network(np.random.default_rng(1))
    raster = random_raster(np.random.default_rng(2), 30, net.features, 0.3)
    trace, found = counted(net, raster)
    expected, x = 0, raster
    for i, layer in enumerate(net.layers):
        for t in range(30):
            expected += int((layer.w_in[:, x[t] == 1] != 0).sum())
            if layer.w_rec is not None and t:
                expected += int((layer.w_rec[:, trace.spikes[i][t - 1] == 1] != 0).sum())
        x = trace.spikes[i]
    assert found.synaptic == expected > 0
    assert found.spikes == sum(int(s.sum()) for s in trace.spikes) > 0
    assert found.neuron_updates == 30 * sum(net.neurons)
    assert found.dense > found.synaptic


def test_a_convolution_counts_like_its_matrix() -> None:
    rng = np.random.default_rng(3)
    for stride, padding in (((1, 1), (1, 1)), ((2, 2), (1, 0)), ((3, 2), (0, 2))):
        shape = ConvShape((2, 11, 9), stride, padding)
        kernel = rng.integers(-2, 3, (3, 2, 3, 3)).astype(np.int8)
        n = int(np.prod(shape.out_shape(kernel.shape)))
        same = {"k_u": np.zeros(n, np.int32), "k_v": np.full(n, 2000, np.int32), "bias": np.zeros(n, np.int32)}
        conv = Layer("c", kernel, None, v_th=np.full(n, 5, np.int32), conv=shape, **same)
        flat = Layer("d", matrix(kernel, shape), None, v_th=np.full(n, 5, np.int32), **same)
        raster = random_raster(rng, 10, conv.inputs, 0.2)
        a, b = (counted(check(Network((layer,))), raster)[1] for layer in (conv, flat))
        assert (a.synaptic, a.spikes) == (b.synaptic, b.spikes)
        assert a.synaptic > 0
