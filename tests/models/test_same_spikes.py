"""Networks of all kinds at random, and recordings: every backend that is here gives the same numbers, cell by cell."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from models.backends.onnx import OnnxBackend
from models.backends.reference import ReferenceBackend
from models.backends.tflite import TfliteBackend
from models.base import Backend, BackendUnavailable, BadModel, Raster, State, Trace
from models.compile.artefacts import artefacts
from models.convolution import ConvShape
from models.datasets.load import find, load
from models.datasets.recording import live_window
from models.network import DECAY_ONE, Layer, Network, check
from models.registry import AUTO_ORDER, make_encoder, open_bundle
from models.select import load_kind
from tests.models.networks import write_bundle

NETWORKS = int(os.environ.get("AXOND_NETWORKS", "60"))
"""``make exact`` sets 1000."""
STEPS = 24
WINDOWS = 200


def decays(draw: st.DrawFn, rng: np.random.Generator, n: int, most: int) -> np.ndarray:
    """None, one for all, or each its own."""
    kind = draw(st.sampled_from(("none", "one", "each", "all kept")))
    if kind == "each":
        return rng.integers(0, most + 1, n).astype(np.int32)
    value = {"none": 0, "all kept": most, "one": int(rng.integers(0, most + 1))}[kind]
    return np.full(n, value, np.int32)


def some_layer(
    draw: st.DrawFn, rng: np.random.Generator, name: str, image: tuple[int, int, int], last: bool
) -> tuple[Layer, tuple[int, int, int]]:
    """One layer behind ``image``, and what is to be seen behind it."""
    bits = draw(st.sampled_from((127, 7, 128)))
    conv = None
    if draw(st.booleans()):
        kernel = (draw(st.integers(1, 4)), image[0], draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        stride, padding = (draw(st.tuples(st.integers(low, 2), st.integers(low, 2))) for low in (1, 0))
        conv = ConvShape(image, stride, padding)
        if min(conv.out_shape(kernel)) < 1:
            conv = None
    if conv is not None:
        behind = conv.out_shape(kernel)
        shape, n = kernel, int(np.prod(behind))
    else:
        n = draw(st.integers(1, 24))
        shape, behind = (n, int(np.prod(image))), (1, 1, n)
    recurrent = conv is None and not last and draw(st.booleans())
    bias = draw(st.sampled_from((0, 1, 5000)))
    made = Layer(
        name=name,
        w_in=rng.integers(-bits, min(bits, 127) + 1, shape).astype(np.int8),
        w_rec=rng.integers(-bits, min(bits, 127) + 1, (n, n)).astype(np.int8) if recurrent else None,
        k_u=decays(draw, rng, n, DECAY_ONE - 6),
        k_v=decays(draw, rng, n, DECAY_ONE),
        bias=rng.integers(-bias, bias + 1, n).astype(np.int32),
        v_th=None if last else rng.integers(1, draw(st.sampled_from((50, 3000, 1 << 17))), n).astype(np.int32),
        conv=conv,
    )
    return made, behind


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A chain, behind one to three shorter ones side by side."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers: list[Layer] = []
    images = [
        (draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
        for _ in range(draw(st.integers(1, 3)))
    ]
    if len(images) > 1:
        for _ in range(draw(st.integers(1, 2))):
            for side, image in enumerate(images):
                layer, images[side] = some_layer(draw, rng, f"l{len(layers)}", image, last=False)
                layers.append(replace(layer, beside=side > 0))
    image = images[0] if len(images) == 1 else (1, 1, sum(int(np.prod(one)) for one in images))
    for i in range(draw(st.integers(1, 4))):
        last = draw(st.booleans()) if i == 3 else False
        layer, image = some_layer(draw, rng, f"l{len(layers)}", image, last)
        layers.append(layer)
    try:
        return check(Network(tuple(layers)))
    except BadModel:  # a current that can leave 32 bits
        reject()


def backends(network: Network) -> list[Backend]:
    compiled = artefacts(network)
    onnx, tflite = OnnxBackend(), TfliteBackend()
    onnx.load_step(compiled["model.onnx"], network, "made")
    tflite.load_step(compiled["model.tflite"], network, "made")
    return [onnx, tflite]


def busy_state(rng: np.random.Generator, network: Network) -> State:
    """Anything that the arithmetic allows, the extremes among it."""
    state = State.rest(network.neurons)
    for u, v, s, layer in zip(state.u, state.v, state.s, network.layers, strict=True):
        u[:] = rng.integers(-(1 << 20), 1 << 20, len(u))
        v[:] = rng.choice([-(2**23 - 1), 2**23 - 1, 0, -1, 1, 4095, -4096, 123_456], len(v))
        s[:] = 0 if layer.v_th is None else rng.integers(0, 2, len(s))
    return state


@settings(max_examples=NETWORKS, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(networks(), st.integers(0, 2**32), st.sampled_from((0.0, 0.05, 0.5, 1.0)), st.booleans())
def test_random_networks(network: Network, seed: int, density: float, busy: bool) -> None:
    rng = np.random.default_rng(seed)
    raster: Raster = (rng.random((STEPS, network.features)) < density).astype(np.uint8)
    start = busy_state(rng, network) if busy else State.rest(network.neurons)
    reference = ReferenceBackend()
    reference.load_network(network)
    expected, end = Trace.empty(STEPS, network.neurons), start.copy()
    outputs = reference.infer(raster, end, expected)
    for backend in backends(network):
        trace, state = Trace.empty(STEPS, network.neurons), start.copy()
        assert np.array_equal(backend.infer(raster, state, trace), outputs)
        assert trace.differing_cells(expected) == 0
        assert all(np.array_equal(a, b) for a, b in zip(state.arrays(), end.arrays(), strict=True))
        backend.close()


def test_the_graph_of_a_window_is_that_of_its_steps(tmp_path: Path) -> None:
    @settings(
        max_examples=max(10, NETWORKS // 10), deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(networks(), st.integers(0, 2**32))
    def run(network: Network, seed: int) -> None:
        assume(network.classes > 1)
        rng = np.random.default_rng(seed)
        raster: Raster = (rng.random((STEPS, network.features)) < 0.3).astype(np.uint8)
        backend, reference = OnnxBackend(), ReferenceBackend()
        backend.load(write_bundle(tmp_path / "made", network))
        reference.load_network(network)
        here = busy_state(rng, network)
        there = here.copy()
        assert np.array_equal(backend.infer(raster, here), reference.infer(raster, there))
        assert all(np.array_equal(a, b) for a, b in zip(here.arrays(), there.arrays(), strict=True))
        backend.close()

    run()


@pytest.mark.parametrize(("name", "data"), [("spoken-digits", "audio_fsdd"), ("activity", "imu_uci_har")])
def test_recorded_windows(name: str, data: str) -> None:
    folder = find(data)
    if folder is None:
        pytest.skip(f"no recordings {data} here")
    bundle = open_bundle(name, [])
    recordings = load(folder, "test") + load(folder, "train")
    encoder = make_encoder(bundle, recordings[0].info)
    rasters = []
    for recording in recordings:
        window = live_window(recording, bundle.windows)
        if window is not None:
            raster = np.zeros(encoder.shape, np.uint8)
            encoder.encode(window, raster)
            rasters.append(raster)
        if len(rasters) == WINDOWS:
            break
    assert len(rasters) == WINDOWS
    loaded = {}
    for kind in AUTO_ORDER:
        try:
            loaded[kind] = load_kind(bundle, kind)
        except (BackendUnavailable, BadModel) as error:
            assert kind in ("akida", "lava", "tflite"), error
    neurons = bundle.network.neurons
    for raster in rasters:
        expected = Trace.empty(len(raster), neurons)
        outputs = loaded["reference"].infer(raster, trace=expected)
        for kind, backend in loaded.items():
            trace = Trace.empty(len(raster), neurons)
            assert np.array_equal(backend.infer(raster, trace=trace), outputs), kind
            assert trace.differing_cells(expected) == 0, kind
    for backend in loaded.values():
        backend.close()
