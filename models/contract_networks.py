"""Made networks: what a backend is tried with, and what the capability table asks about."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.extras import how_to_install
from models import bundle
from models.base import ModelError, Raster
from models.convolution import ConvShape
from models.network import DECAY_ONE, THRESHOLD_MAX, Layer, Network, check, save, write_npz

FEATURES = 24
HIDDEN = (20, 16)
CLASSES = 3
IMAGE = (2, 9, 7)
_BUSY_SEEDS = (7, 8, 12, 24, 27, 10)
"""Of mixtures in which every layer spikes; the last has everything that a dense network can have."""


def random_network(
    rng: np.random.Generator,
    features: int = FEATURES,
    hidden: tuple[int, ...] = HIDDEN,
    classes: int = CLASSES,
    *,
    recurrent: bool = True,
    integrator: bool = True,
    bias: bool = False,
) -> Network:
    """Weights, decays and thresholds of all sizes, so that spikes are neither absent nor everywhere."""
    layers = []
    inputs = features
    sizes = (*hidden, classes)
    for i, n in enumerate(sizes):
        last = i == len(sizes) - 1
        spiking = not (last and integrator)
        layers.append(
            Layer(
                name=f"l{i}",
                w_in=rng.integers(-127, 128, (n, inputs)).astype(np.int8),
                w_rec=rng.integers(-60, 61, (n, n)).astype(np.int8) if recurrent and spiking else None,
                k_u=rng.integers(0, 4090, n).astype(np.int32) if i % 2 else np.zeros(n, np.int32),
                k_v=rng.integers(0, 4097, n).astype(np.int32),
                bias=rng.integers(-5000, 5000, n).astype(np.int32) if bias else np.zeros(n, np.int32),
                v_th=rng.integers(1, 3000, n).astype(np.int32) if spiking else None,
            )
        )
        inputs = n
    return check(Network(tuple(layers)))


def random_raster(rng: np.random.Generator, steps: int, features: int, density: float = 0.1) -> Raster:
    """Spikes at random, ``density`` of all cells."""
    return (rng.random((steps, features)) < density).astype(np.uint8)


def plain_network(bits: int = 8, **last: Any) -> Network:
    """Two spiking layers of what every target has: one threshold and one decay for all neurons of a layer, no more.

    ``last`` replaces fields of the last layer.
    """
    rng = np.random.default_rng(bits)
    most = (1 << (bits - 1)) - 1
    hidden = _plain("hidden", rng.integers(-most, most + 1, (HIDDEN[0], FEATURES)).astype(np.int8), 3 * most)
    fields = _fields(rng.integers(-most, most + 1, (CLASSES, HIDDEN[0])).astype(np.int8), most)
    return check(Network((hidden, Layer("out", **(fields | last)))))


def convolution_network() -> Network:
    """A convolution with stride and padding, then a dense layer."""
    rng = np.random.default_rng(5)
    kernel = rng.integers(-127, 128, (4, IMAGE[0], 3, 3)).astype(np.int8)
    shape = ConvShape(IMAGE, (2, 1), (1, 1))
    image = _plain("image", kernel, 250, shape)
    weights = rng.integers(-127, 128, (CLASSES, image.neurons)).astype(np.int8)
    return check(Network((image, _plain("out", weights, 300))))


def beside_network() -> Network:
    """Twice two layers side by side, a convolution and recurrent synapses among them; the readout hears both sides."""
    rng = np.random.default_rng(6)
    image = ConvShape(IMAGE, (2, 2), (1, 1))
    layers = [
        _plain("left", _weights(rng, 10, 8), 120, w_rec=rng.integers(-30, 31, (10, 10)).astype(np.int8)),
        _plain("image", _weights(rng, 3, IMAGE[0], 3, 3), 250, conv=image, beside=True),
    ]
    layers.append(_plain("right", _weights(rng, 7, 10), 120))
    layers.append(
        _plain("image again", _weights(rng, 4, 3, 2, 2), 150, conv=ConvShape((3, 5, 4), (1, 2), (0, 0)), beside=True)
    )
    inputs = layers[2].neurons + layers[3].neurons
    return check(Network((*layers, _plain("out", _weights(rng, CLASSES, inputs), 300))))


def loud_network() -> Network:
    """No leak, all weights at their limit: the potentials run into both ends of their range."""
    weights = np.full((4, FEATURES), 127, np.int8)
    weights[1::2] = -127
    first = _fields(weights, THRESHOLD_MAX) | {"k_v": np.full(4, DECAY_ONE, np.int32)}
    readout = _fields(np.full((2, 4), 127, np.int8), 1) | {"v_th": None}
    return check(Network((Layer("loud", **first), Layer("out", **readout))))


def _fields(weights: npt.NDArray[np.int8], threshold: int, conv: ConvShape | None = None) -> dict[str, Any]:
    n = len(weights) if conv is None else int(np.prod(conv.out_shape(weights.shape)))
    return {
        "w_in": weights,
        "w_rec": None,
        "k_u": np.full(n, 2048, np.int32),
        "k_v": np.full(n, 3900, np.int32),
        "bias": np.zeros(n, np.int32),
        "v_th": np.full(n, threshold, np.int32),
        "conv": conv,
    }


def _plain(
    name: str, weights: npt.NDArray[np.int8], threshold: int, conv: ConvShape | None = None, **more: Any
) -> Layer:
    return Layer(name, **(_fields(weights, threshold, conv) | more))


def _weights(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.int8]:
    return rng.integers(-127, 128, shape).astype(np.int8)


def _ints(*numbers: int) -> npt.NDArray[np.int32]:
    return np.array(numbers, np.int32)


def capabilities() -> dict[str, Network]:
    """What a target may be able to do, each as the plain network with this one thing more."""
    rng = np.random.default_rng(9)
    return {
        "8-bit weights": plain_network(),
        "4-bit weights": plain_network(4),
        "convolution": convolution_network(),
        "layers side by side": beside_network(),
        "recurrent synapses": plain_network(w_rec=rng.integers(-127, 128, (CLASSES, CLASSES)).astype(np.int8)),
        "integrator as readout": plain_network(v_th=None),
        "a threshold per neuron": plain_network(v_th=_ints(100, 127, 300)),
        "a tau_syn per neuron": plain_network(k_u=_ints(0, 2048, 4000)),
        "a tau_mem per neuron": plain_network(k_v=_ints(1000, 3900, 4096)),
        "no synaptic current between steps (LIF)": plain_network(k_u=_ints(0, 0, 0)),
        "no leak (IF)": plain_network(k_v=_ints(4096, 4096, 4096)),
        "no memory of the potential": plain_network(k_v=_ints(0, 0, 0)),
        "small bias": plain_network(bias=_ints(1500, -900, 4000)),
        "any bias": plain_network(bias=_ints(5001, -123_457, 1)),
    }


def trials() -> dict[str, Network]:
    """What a backend is tried with: each capability alone, then several together."""
    mixed = {
        f"mixture {i}": random_network(
            np.random.default_rng(i), recurrent=i % 2 == 0, integrator=i % 3 != 0, bias=i % 4 >= 2
        )
        for i in _BUSY_SEEDS
    }
    return {**capabilities(), "potentials at their limits": loud_network(), **mixed}


def manifest(network: Network, encoder: Mapping[str, object] | None = None) -> dict[str, object]:
    """Of a bundle of ``network``, but format and files."""
    return {
        "name": "made",
        "version": "1.0.0",
        "input": {"family": "imu", "channels": ["ax", "ay", "az", "gx", "gy", "gz"], "rate_hz": 50.0},
        "window": {"mode": "time", "samples": 128, "hop": 64},
        "encoder": encoder or {"kind": "imu_delta"},
        "labels": [f"c{i}" for i in range(network.classes)],
        "state": "reset",
        "temperature": 1000.0,
        "weight_bits": 8,
        "granularity": "layer",
    }


def write_bundle(path: Path, network: Network, **changes: object) -> bundle.Bundle:
    """A bundle of ``network``; ``changes`` replace fields of its manifest. Needs the extra ``build``."""
    try:
        from models.build import golden
        from models.compile.artefacts import artefacts
    except ImportError as error:
        raise ModelError(f"making bundles needs more packages: {how_to_install('build')} ({error})") from error
    files = {
        "network.nir": b"not read by these trials",
        "CARD.md": b"# made\n",
        "network.npz": save(network),
        **artefacts(network),
        "golden.npz": write_npz(bundle.pack_golden(golden(network))),
    }
    return bundle.write(path, {**manifest(network), **changes}, files)
