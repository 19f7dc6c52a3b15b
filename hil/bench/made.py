"""Networks of usual sizes with random weights, as bundles: for measuring, not for deciding anything."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models import bundle, network
from models.build import golden
from models.compile.artefacts import artefacts
from models.convolution import ConvShape
from models.network import DECAY_ONE, Layer, Network

DENSE = (700, 128, 128, 20)
"""The network that others measure their spiking runtimes with."""
LIVELY = 0.35
"""Thresholds in units of what the weights of all inputs would sum up to at random: every layer spikes at times."""


def made_bundles(folder: Path) -> Iterator[bundle.Bundle]:
    """Write the bundles into ``folder``."""
    for name, net in (("dense-700-128-128-20", dense()), ("conv-nmnist", convolutional())):
        manifest = {
            "name": name,
            "version": "1.0.0",
            "input": {"family": "imu", "channels": ["ax"], "rate_hz": 100.0},
            "window": {"mode": "time", "samples": 128, "hop": 64},
            "encoder": {"kind": "none"},
            "labels": [str(i) for i in range(net.classes)],
            "state": "reset",
            "temperature": 1.0,
            "weight_bits": 8,
            "granularity": "layer",
        }
        files = {
            "network.npz": network.save(net),
            **artefacts(net),
            "golden.npz": network.write_npz(bundle.pack_golden(golden(net))),
        }
        yield bundle.write(folder / name, manifest, files)


def dense() -> Network:
    """LIF layers, fully connected."""
    rng = np.random.default_rng(0)
    sizes = zip(DENSE[1:], DENSE[:-1], strict=True)
    layers = [_layer(f"l{i}", rng.integers(-127, 128, (n, m)).astype(np.int8), n) for i, (n, m) in enumerate(sizes)]
    return network.check(Network(tuple(layers)))


def convolutional() -> Network:
    """The layers of the N-MNIST network of the NIR paper: three convolutions, pooling folded in, two dense layers."""
    rng = np.random.default_rng(1)
    layers: list[Layer] = []
    for kernel, shape in (
        ((16, 2, 5, 5), ConvShape((2, 34, 34), (2, 2), (1, 1))),
        ((16, 16, 3, 3), ConvShape((16, 16, 16), (1, 1), (1, 1))),
        ((8, 16, 6, 6), ConvShape((16, 16, 16), (2, 2), (2, 2))),
    ):
        n = int(np.prod(shape.out_shape(kernel)))
        layers.append(_layer(f"c{len(layers)}", rng.integers(-127, 128, kernel).astype(np.int8), n, shape))
    for n, m in ((256, layers[-1].neurons), (10, 256)):
        layers.append(_layer(f"d{len(layers)}", rng.integers(-127, 128, (n, m)).astype(np.int8), n))
    return network.check(Network(tuple(layers)))


def _layer(name: str, w: npt.NDArray[np.int8], n: int, conv: ConvShape | None = None) -> Layer:
    threshold = max(1, round(LIVELY * float(np.sqrt(w[0].size)) * 127))
    return Layer(
        name=name,
        w_in=w,
        w_rec=None,
        k_u=np.zeros(n, np.int32),
        k_v=np.full(n, int(0.9 * DECAY_ONE), np.int32),
        bias=np.zeros(n, np.int32),
        v_th=np.full(n, threshold, np.int32),
        conv=conv,
    )
