"""Made networks and bundles for tests."""

import hashlib
from pathlib import Path

import nir
import numpy as np

from drivers.packet import SensorInfo
from models import bundle, network
from models.build import golden
from models.compile import tflite
from models.compile.onnx import compile_step
from models.network import Layer, Network

LABELS = ["left", "right", "still"]


def random_network(
    rng: np.random.Generator,
    features: int = 24,
    hidden: tuple[int, ...] = (20, 16),
    classes: int = 3,
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
    return network.check(Network(tuple(layers)))


def random_raster(rng: np.random.Generator, steps: int, features: int, density: float = 0.1) -> np.ndarray:
    return (rng.random((steps, features)) < density).astype(np.uint8)


def nir_graph(
    rng: np.random.Generator, features: int = 6, hidden: int = 8, classes: int = 3, dt: float = 0.01
) -> nir.NIRGraph:
    """Input -> Linear -> recurrent CubaLIF -> Linear -> CubaLI -> Output."""

    def cuba(n: int, spiking: bool) -> nir.NIRNode:
        tau_syn, tau_mem = np.full(n, 0.02), np.full(n, 0.05)
        common = {
            "tau_syn": tau_syn,
            "tau_mem": tau_mem,
            "r": tau_mem / dt,
            "v_leak": np.zeros(n),
            "w_in": tau_syn / dt,
        }
        if not spiking:
            return nir.CubaLI(**common)
        return nir.CubaLIF(**common, v_threshold=np.full(n, 1.0), v_reset=np.zeros(n))

    nodes = {
        "input": nir.Input({"input": np.array([features])}),
        "fc1": nir.Linear(rng.normal(0, 0.6, (hidden, features))),
        "rec": nir.Linear(rng.normal(0, 0.2, (hidden, hidden))),
        "lif1": cuba(hidden, True),
        "fc2": nir.Linear(rng.normal(0, 0.5, (classes, hidden))),
        "out": cuba(classes, False),
        "output": nir.Output({"output": np.array([classes])}),
    }
    edges = [
        ("input", "fc1"), ("fc1", "lif1"), ("lif1", "rec"), ("rec", "lif1"),
        ("lif1", "fc2"), ("fc2", "out"), ("out", "output"),
    ]  # fmt: skip
    return nir.NIRGraph(nodes, edges, metadata={"dt": dt})


def manifest(net: Network, encoder: dict[str, object] | None = None) -> dict[str, object]:
    return {
        "name": "made",
        "version": "1.0.0",
        "input": {"family": "imu", "channels": ["ax", "ay", "az", "gx", "gy", "gz"], "rate_hz": 50.0},
        "window": {"mode": "time", "samples": 128, "hop": 64},
        "encoder": encoder or {"kind": "imu_delta"},
        "labels": [f"c{i}" for i in range(net.classes)],
        "state": "reset",
        "temperature": 1000.0,
        "weight_bits": 8,
        "granularity": "layer",
    }


def write_bundle(path: Path, net: Network, **changes: object) -> bundle.Bundle:
    """A bundle of ``net``; ``changes`` replace fields of its manifest."""
    files = {
        "network.nir": b"not read by these tests",
        "CARD.md": b"# made\n",
        "network.npz": network.save(net),
        "model.onnx": compile_step(net),
        "model.tflite": tflite.compile_step(net),
        "golden.npz": network.write_npz(bundle.pack_golden(golden(net))),
    }
    return bundle.write(path, {**manifest(net), **changes}, files)


def seal(path: Path) -> None:
    """Make the manifest of the bundle at ``path`` the one that is meant, after a change."""
    digest = hashlib.sha256((path / bundle.MANIFEST).read_bytes()).hexdigest()
    (path / bundle.SEAL).write_text(f"{digest}  {bundle.MANIFEST}\n")


def sensor(made: bundle.Bundle) -> SensorInfo:
    """One that the bundle ``made`` listens to."""
    wanted = made.manifest.input
    units = ("g", "g", "g", "deg/s", "deg/s", "deg/s") if wanted.family == "imu" else ("1",) * len(wanted.channels)
    return SensorInfo(wanted.family, tuple(wanted.channels), units, (0.001,) * len(wanted.channels), wanted.rate_hz)
